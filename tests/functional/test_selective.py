"""Abstaining below a confidence threshold, against loops in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.selective import abstain, confidence, not_contradicted
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Prediction
from random_trees import random_tree


def shortened(paths, node_prob, threshold):
  """Returns the paths after abstaining, which changes nothing else."""
  rest = jnp.zeros(paths.shape[:2])
  before = Prediction(jnp.asarray(paths), rest, rest, jnp.asarray(node_prob, jnp.float32), jnp.zeros(1))
  after = abstain(before, threshold)
  assert all(a is b for a, b in zip(jax.tree.leaves(before)[1:], jax.tree.leaves(after)[1:], strict=True))
  return after.paths


@pytest.fixture
def tree(rng):
  return random_tree(rng, depth=4, most_children=3)


def test_a_path_ends_above_its_first_node_that_is_less_probable(rng, tree):
  paths = tree.encode(rng.integers(0, tree.num_nodes, (40, 2))).reshape(40, 2, -1)
  paths = np.where(paths >= 0, paths, PAD)
  node_prob = rng.integers(0, 11, (40, tree.num_nodes)).astype(np.float32) / 10  # with ties
  sure = np.asarray(confidence(jnp.asarray(paths), jnp.asarray(node_prob)))
  found = np.asarray(shortened(paths, node_prob, 0.4))
  shorter = 0
  for b in range(40):
    for k in range(2):
      least, expected = 1.0, []
      for level, node in enumerate(paths[b, k].tolist()):
        least = min(least, float(node_prob[b, node])) if node >= 0 else 0.0
        assert sure[b, k, level] == pytest.approx(least)
        expected.append(node if node >= 0 and least >= np.float32(0.4) else PAD)
      assert found[b, k].tolist() == expected
      shorter += expected != paths[b, k].tolist()
  assert 0 < shorter < 80


def test_a_threshold_of_0_shortens_nothing(rng, tree):
  paths = tree.encode(rng.integers(0, tree.num_nodes, (20, 1))).reshape(20, 1, -1)
  found = shortened(np.where(paths >= 0, paths, PAD), np.zeros((20, tree.num_nodes)), 0.0)
  np.testing.assert_array_equal(found, np.where(paths >= 0, paths, PAD))


def test_what_the_label_does_not_contradict(toy_tree):
  animal, thing, dog, cat, _, basenji, leonberg = range(7)
  unknown, stop = [animal, dog, UNKNOWN], [animal, dog, STOP]
  for label, answer, expected in (
    ([animal, dog, basenji], [animal, dog, basenji], [1, 1, 1]),
    ([animal, dog, basenji], [animal, dog, leonberg], [1, 1, 0]),
    ([animal, dog, basenji], [animal, cat, PAD], [1, 0, 0]),
    ([animal, dog, basenji], [thing, dog, basenji], [0, 0, 0]),  # a raw path
    (unknown, [animal, dog, leonberg], [1, 1, 1]),
    (unknown, [animal, cat, PAD], [1, 0, 0]),
    (stop, [animal, dog, PAD], [1, 1, 1]),
    (stop, [animal, dog, basenji], [1, 1, 0]),
    ([animal, cat, PAD], [animal, dog, basenji], [1, 0, 0]),
  ):
    found = not_contradicted(jnp.asarray([answer]), jnp.asarray([label]))
    assert found[0].astype(int).tolist() == expected, (label, answer)
