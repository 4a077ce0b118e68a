"""Abstaining below a confidence threshold, against loops in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.selective import abstain, confidence, not_contradicted, shortened, surest_path
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import DecodeOptions, Prediction
from random_trees import random_tree


def decoded(paths, node_prob):
  """Returns a prediction with these paths and probabilities."""
  rest = jnp.zeros(paths.shape[:2])
  return Prediction(jnp.asarray(paths), rest, rest, jnp.asarray(node_prob, jnp.float32), jnp.zeros(1))


def cut(paths, node_prob, threshold):
  """Returns the paths after `shortened`, which changes nothing else."""
  before = decoded(paths, node_prob)
  after = shortened(before, threshold)
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
  found = np.asarray(cut(paths, node_prob, 0.4))
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
  found = cut(np.where(paths >= 0, paths, PAD), np.zeros((20, tree.num_nodes)), 0.0)
  np.testing.assert_array_equal(found, np.where(paths >= 0, paths, PAD))


def probabilities(rng, tree, ends, count):
  """Returns the probabilities of all nodes, where paths end at `ends` with drawn ones."""
  prob = np.zeros((count, tree.num_nodes), np.float32)
  for end, share in zip(ends, rng.dirichlet(np.full(len(ends), 0.15), count).T, strict=True):
    prob[:, list(tree.path(end))] += share[:, None].astype(np.float32)
  return prob


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_the_answer_is_the_deepest_node_that_is_probable_enough_wherever_the_best_path_goes(rng, tree, short_labels):
  arrays = tree_arrays(tree, short_labels)
  ends = tree.leaves.tolist() if short_labels == "unknown" else list(range(tree.num_nodes))
  prob = probabilities(rng, tree, ends, 300)
  best = np.tile(tree.encode([ends[0]])[:, None], (300, 2, 1))
  best, answered = np.where(best >= 0, best, PAD), jax.jit(abstain)
  for threshold in (0.501, 0.7, 0.95):
    found = answered(decoded(best, prob), jnp.float32(threshold), arrays).paths
    for row, path, further in zip(prob, found[:, 0].tolist(), found[:, 1].tolist(), strict=True):
      deepest = np.flatnonzero(row >= np.float32(threshold)).max(initial=-1)  # the nodes are a chain
      assert [node for node in path if node >= 0] == (list(tree.path(int(deepest))) if deepest >= 0 else [])
      assert further == [n if n >= 0 and row[n] >= np.float32(threshold) else PAD for n in best[0, 0].tolist()]


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_below_one_half_the_most_probable_continuation_is_followed(rng, tree, short_labels):
  arrays = tree_arrays(tree, short_labels)
  ends = tree.leaves.tolist() if short_labels == "unknown" else list(range(tree.num_nodes))
  prob = probabilities(rng, tree, ends, 100)
  expected = []
  for row in prob:
    node, path = -1, []
    while children := list(tree.children(node)):
      best = max(children, key=lambda child, row=row: row[child])
      stop = row[node] - sum(row[child] for child in children) if node >= 0 and short_labels == "stop" else 0.0
      if row[best] < stop:
        break
      path, node = [*path, best], best
    expected.append(path + [PAD] * (tree.depth - len(path)))
  found = jax.jit(surest_path)(jnp.asarray(prob), arrays)
  np.testing.assert_array_equal(found, expected)
  assert short_labels == "unknown" or any(path[-1] == PAD and tree.children(max(path)) for path in expected)


def test_paths_of_other_rules_are_shortened_alone(tree):
  arrays, paths = tree_arrays(tree), np.where(tree.encode([0]) >= 0, tree.encode([0]), PAD)[None]
  prob = np.zeros((1, tree.num_nodes), np.float32)
  prob[0, 1] = 0.9
  found = abstain(decoded(paths, prob), 0.5, arrays, DecodeOptions(rule="edges"))
  assert (found.paths == PAD).all()


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


def test_predictions_of_any_model_are_shortened_too(tree):
  """They hold numpy arrays; the answer is the deepest node of a probability of at least the threshold, by numpy."""
  rng = np.random.default_rng(0)
  probs = rng.dirichlet(np.full(len(tree.leaves), 0.3), 50)
  prediction = Prediction.from_leaf_probs(probs, tree)
  found = tree.ends(jax.jit(abstain)(prediction, 0.6, tree_arrays(tree)).paths[:, 0])
  for node_prob, end in zip(prediction.node_prob, found, strict=True):
    sure = [node for node in range(tree.num_nodes) if node_prob[node] >= 0.6]
    assert end == (max(sure, key=lambda node: tree.level[node]) if sure else -1)
