import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.paths import are_walks, climb, complete, ends, single_path
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, ROOT, STOP, UNKNOWN
from random_trees import random_tree


def test_they_say_what_the_label_tree_says(rng):
  tree = random_tree(rng, depth=4, most_children=3)
  arrays = tree_arrays(tree)
  nodes = np.arange(-1, tree.num_nodes, dtype=np.int32)
  paths = tree.encode(nodes)
  np.testing.assert_array_equal(jax.jit(ends)(jnp.asarray(paths)), tree.ends(paths))
  np.testing.assert_array_equal(jax.jit(climb)(jnp.asarray(nodes), arrays), np.where(paths >= 0, paths, PAD))
  noise = rng.integers(UNKNOWN, tree.num_nodes, size=(500, tree.depth)).astype(np.int32)
  paths = np.concatenate([paths, noise, np.where(rng.random(noise.shape) < 0.8, noise, PAD)])
  np.testing.assert_array_equal(
    jax.jit(are_walks)(jnp.asarray(paths), arrays), [tree.is_path(p) for p in paths.tolist()]
  )


def test_complete_fills_in_the_ancestors(toy_tree):
  known = jnp.array(
    [[UNKNOWN, UNKNOWN, 6], [UNKNOWN, 4, STOP], [UNKNOWN, UNKNOWN, UNKNOWN], [1, 2, UNKNOWN]], jnp.int32
  )
  expected = [[0, 2, 6], [1, 4, STOP], [UNKNOWN] * 3, [0, 2, UNKNOWN]]
  np.testing.assert_array_equal(jax.jit(complete)(known, tree_arrays(toy_tree)), expected)


def test_several_paths_an_image_are_refused():
  one = jnp.zeros((2, 1, 3), jnp.int32)
  np.testing.assert_array_equal(single_path(one), one[:, 0])
  np.testing.assert_array_equal(single_path(one[:, 0]), one[:, 0])
  with pytest.raises(ValueError, match="up to 2 label paths"):
    single_path(jnp.zeros((2, 2, 3), jnp.int32))


@pytest.mark.parametrize("short_labels,stop_at", [("unknown", "leaf"), ("stop", "node")])
def test_tree_arrays_agree_with_the_tree(rng, short_labels, stop_at):
  tree = random_tree(rng, depth=4, most_children=4)
  arrays = tree_arrays(tree, short_labels)
  assert (arrays.num_leaves, arrays.num_outputs, arrays.stop_at) == (len(tree.leaves), tree.num_nodes + 1, stop_at)
  inner = [i for i in range(tree.num_nodes) if not tree.is_leaf(i)]
  assert arrays.inner.tolist() == inner
  for t in range(tree.depth):
    mine = arrays.inner[arrays.inner_offsets[t] : arrays.inner_offsets[t + 1]]
    assert mine.tolist() == [i for i in inner if tree.level[i] == t]
  number = arrays.leaf_spans[tree.leaves + 1, 0]
  assert sorted(number.tolist()) == list(range(len(tree.leaves)))
  for node in range(ROOT, tree.num_nodes):
    first, end = arrays.leaf_spans[node + 1]
    below = {leaf for leaf in tree.leaves.tolist() if node == ROOT or node in tree.path(leaf)}
    assert {leaf for leaf, n in zip(tree.leaves.tolist(), number, strict=True) if first <= n < end} == below
