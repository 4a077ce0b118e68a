"""Laws of mixup, CutMix and label smoothing along the tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.data import augment, mixing, photo_augment
from hierjax.data.augment import Transform
from hierjax.data.mixing import Mixing
from hierjax.functional.paths import are_walks
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Batch, Examples

KEY = jax.random.key(5)

mixed_batch = jax.jit(mixing.mixed_batch, static_argnums=3)
smoothed_paths = jax.jit(mixing.smoothed_paths, static_argnums=3)
train_batch = jax.jit(augment.train_batch, static_argnums=2)
eval_batch = jax.jit(augment.eval_batch, static_argnums=1)
keys_of = jax.jit(photo_augment.keys_of)
TREE = from_paths([("a", "x", "p"), ("a", "x", "q"), ("a", "y", "r"), ("b", "z"), ("b", "w", "s"), ("b", "w", "t")])


def node_of(path):
  return next(n for n in range(TREE.num_nodes) if tuple(TREE.names[i] for i in TREE.path(n)) == path)


def draws(count):
  return jnp.stack([jnp.zeros(count, jnp.int32), jnp.arange(count, dtype=jnp.int32)], axis=1)


def batch_of(inputs):
  paths = jnp.arange(len(inputs), dtype=jnp.int32)[:, None, None]
  return Batch(jnp.asarray(inputs), paths, jnp.ones(len(inputs)).at[-1].set(0))


def test_mixup_is_the_weighted_mean_of_an_image_and_the_next():
  inputs = np.random.default_rng(0).random((64, 4, 4, 3), np.float32)
  found = mixed_batch(batch_of(inputs), draws(64), KEY, Mixing(mixup=0.4))
  weight = np.asarray(found.mixed.weight)
  share = weight[:, None, None, None]
  np.testing.assert_allclose(found.inputs, share * inputs + (1 - share) * np.roll(inputs, -1, axis=0), atol=1e-6)
  np.testing.assert_array_equal(found.mixed.paths[:, 0, 0], np.roll(np.arange(64), -1))
  assert weight[-1] == weight[-2] == 1  # the last row is padding
  assert weight.min() < 0.1 and weight.max() > 0.9 and 0.3 < weight[:-2].mean() < 0.7


def test_cutmix_is_a_box_of_the_next_image_and_its_weight_the_rest_of_the_area():
  inputs = np.arange(64, dtype=np.float32)[:, None, None, None] + np.zeros((64, 12, 12, 1), np.float32)
  found = mixed_batch(batch_of(inputs), draws(64), KEY, Mixing(cutmix=1.0))
  own = np.asarray(found.inputs)[..., 0] == np.arange(64)[:, None, None]
  other = np.asarray(found.inputs)[..., 0] == np.roll(np.arange(64), -1)[:, None, None]
  assert (own ^ other).all()
  np.testing.assert_allclose(own.mean(axis=(1, 2)), found.mixed.weight, atol=1e-6)
  for box in other[other.any(axis=(1, 2))]:
    assert box.sum() == box.any(axis=0).sum() * box.any(axis=1).sum()


def test_nothing_is_mixed_by_default_and_both_kinds_occur_together():
  inputs = np.random.default_rng(1).random((40, 6, 6, 3), np.float32)
  assert mixed_batch(batch_of(inputs), draws(40), KEY, Mixing()).mixed is None
  found = np.asarray(mixed_batch(batch_of(inputs), draws(40), KEY, Mixing(mixup=1.0, cutmix=1.0)).inputs)
  untouched = (found == inputs).all(axis=-1).mean(axis=(1, 2))
  assert ((untouched > 0) & (untouched < 1)).any() and (untouched == 0).any()


def soft_labels(path, epsilon):
  """Returns the probability of each path by enumeration, as the docstring of `smoothed_paths` defines it."""
  nodes = [node for node in path if node >= 0]
  to_leaf = not len(TREE.children(nodes[-1]))
  found = {}
  for falls in range(TREE.depth + 1):
    chance = epsilon**falls * ((1 - epsilon) if falls < TREE.depth else 1)
    kept = nodes[: max(0, len(nodes) - falls)] if falls else nodes
    for end, below in descend(kept, len(nodes), to_leaf) if falls else [(tuple(nodes), 1.0)]:
      found[end] = found.get(end, 0) + chance * below
  return found


def descend(kept, length, to_leaf):
  children = TREE.children(kept[-1]) if kept else TREE.children(-1)
  if not len(children) or (len(kept) >= length and not to_leaf):
    return [(tuple(kept), 1.0)]
  return [
    (end, chance / len(children)) for child in children for end, chance in descend([*kept, child], length, to_leaf)
  ]


@pytest.mark.parametrize("label", [("a", "x", "p"), ("b", "z"), ("b", "w")])
def test_smoothed_labels_have_the_probabilities_of_their_definition(label):
  count, epsilon = 40_000, 0.4
  path = TREE.encode(np.array([[node_of(label)]]), "unknown")[0]
  paths = jnp.asarray(np.repeat(path[None], count, axis=0))
  arrays = tree_arrays(TREE)
  found = np.asarray(smoothed_paths(paths, keys_of(draws(count), KEY), arrays, epsilon))
  ends, counts = np.unique(found[:, 0], axis=0, return_counts=True)
  expected = soft_labels(path[0].tolist(), epsilon)
  assert sum(expected.values()) == pytest.approx(1)
  seen = {tuple(n for n in end.tolist() if n >= 0): c / count for end, c in zip(ends, counts, strict=True)}
  assert seen.keys() == expected.keys()
  for end, chance in expected.items():
    assert seen[end] == pytest.approx(chance, abs=4 * np.sqrt(chance / count))
  assert np.asarray(are_walks(jnp.asarray(found[:, 0]), arrays)).all()


def test_no_smoothing_and_unknown_labels_change_nothing_and_stops_stay_below_inner_ends():
  arrays = tree_arrays(TREE, "stop")
  ends = [node_of(p) for p in (("a",), ("a", "x"), ("b", "z"))]
  paths = jnp.asarray(TREE.encode(np.array(ends)[:, None], "stop"))
  np.testing.assert_array_equal(smoothed_paths(paths, keys_of(draws(3), KEY), arrays, 0.0), paths)
  unknown = jnp.full((50, 1, TREE.depth), UNKNOWN, jnp.int32)
  np.testing.assert_array_equal(smoothed_paths(unknown, keys_of(draws(50), KEY), arrays, 0.9), unknown)
  many = jnp.repeat(paths, 200, axis=0)
  for path in np.asarray(smoothed_paths(many, keys_of(draws(600), KEY), arrays, 0.6))[:, 0]:
    nodes = [n for n in path.tolist() if n >= 0]
    tail = path[len(nodes) :].tolist()
    assert tail == ([STOP] + [PAD] * (len(tail) - 1) if tail else [])


def test_training_smooths_labels_and_evaluation_does_not():
  path = TREE.encode(np.full((200, 1), node_of(("a", "x", "p"))), "unknown")
  examples = Examples(np.zeros((200, 4, 4, 3), np.uint8), path, np.ones(200, np.float32), np.asarray(draws(200)))
  transform = Transform(4, mixing=Mixing(label_smoothing=0.5))
  changed = np.asarray(train_batch(examples, KEY, transform, tree_arrays(TREE)).paths != path).any(axis=(1, 2))
  assert 40 < changed.sum() < 120  # half are redrawn, and some of these are drawn as they were
  np.testing.assert_array_equal(eval_batch(examples, transform).paths, path)
