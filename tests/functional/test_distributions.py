"""The layout of level distributions and the node probabilities that follow from them, node by node in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.distributions import (
  block_parents,
  by_chain_rule,
  by_leaves,
  by_levels,
  by_paths,
  level_argmax,
  level_blocks,
  level_splits,
  log_sums,
  of_nodes,
  shares,
)
from hierjax.functional.search import beam_search
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, ROOT, STOP, UNKNOWN, LabelTree
from hierjax.types import DecodeOptions
from path_oracle import TableModel, nodes_of, random_model
from random_trees import random_tree

BATCH = 3


@functools.cache
def tree_of(depth, early_leaf=0.4):
  return random_tree(np.random.default_rng(depth), depth, most_children=3, early_leaf=early_leaf)


def blocks_of(tree):
  """Returns the nodes of each level's block."""
  leaves = tree.leaves.tolist()
  return [
    [*range(*tree.level_offsets[t : t + 2]), *(leaf for leaf in leaves if tree.level[leaf] < t)]
    for t in range(tree.depth)
  ]


def at_levels(tree, row):
  """Returns by level the probability of each node of its block."""
  parts = np.split(np.asarray(row), level_splits(tree_arrays(tree)))
  return [dict(zip(block, part.tolist(), strict=True)) for block, part in zip(blocks_of(tree), parts, strict=True)]


def random_levels(tree, rng, concentration=0.5):
  """Returns a distribution for each level, and example."""
  blocks = [rng.dirichlet(np.full(len(block), concentration), size=BATCH) for block in blocks_of(tree)]
  return np.concatenate(blocks, axis=1).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_block_is_a_level_and_the_leaves_above_it(depth):
  tree = tree_of(depth)
  arrays, blocks = tree_arrays(tree), blocks_of(tree)
  nodes, above_of = jax.jit(lambda arrays: (level_blocks(arrays), block_parents(arrays)))(arrays)
  assert [block.tolist() for block in nodes] == blocks
  assert arrays.block_sizes == tuple(map(len, blocks))
  assert level_splits(arrays) == tuple(np.cumsum(arrays.block_sizes)[:-1])
  assert tree.uniform == (depth < 4) == (sum(arrays.block_sizes) == tree.num_nodes)
  for above, below, parents in zip(blocks, blocks[1:], above_of, strict=False):
    carried = [node if tree.level[node] < tree.level[below[0]] else tree.parent[node] for node in below]
    assert [above[i] for i in parents.tolist()] == carried


def test_node_probabilities_are_those_of_consistent_levels(rng):
  tree = tree_of(4)
  arrays = tree_arrays(tree)
  leaves = rng.dirichlet(np.full(len(tree.leaves), 0.5), size=BATCH)
  node_prob = np.zeros((BATCH, tree.num_nodes), np.float32)
  for leaf, prob in zip(tree.leaves.tolist(), leaves.T, strict=True):
    node_prob[:, list(tree.path(leaf))] += prob[:, None].astype(np.float32)
  level_prob, back = jax.jit(lambda x, arrays: (of_nodes(x, arrays), by_levels(of_nodes(x, arrays), arrays)))(
    node_prob, arrays
  )
  for row, probs in zip(np.asarray(level_prob), node_prob, strict=True):
    for level in at_levels(tree, row):
      assert level == {node: float(probs[node]) for node in level} and sum(level.values()) == pytest.approx(1, abs=1e-5)
  np.testing.assert_allclose(back, node_prob, rtol=1e-5, atol=1e-7)


def test_the_chain_rule_takes_shares_among_siblings_and_parts_equally_where_there_are_none(rng):
  tree = tree_of(4)
  level_prob = random_levels(tree, rng)
  starved = int(tree.parent[-1])  # a parent whose children have nothing on their level
  first = sum(map(len, blocks_of(tree)[:-1])) - tree.level_offsets[-2]
  children = tree.children(starved)
  level_prob[0, first + children.start : first + children.stop] = 0
  found = np.asarray(jax.jit(by_levels)(level_prob, tree_arrays(tree)))
  for row, probs in zip(level_prob, found, strict=True):
    levels = at_levels(tree, row)
    for node in range(tree.num_nodes):
      here, parent = levels[tree.level[node]], tree.parent[node]
      siblings = sum(here[child] for child in tree.children(parent))
      share = here[node] / siblings if siblings > 0 else 1 / len(tree.children(parent))
      expected = here[node] if parent == ROOT else probs[parent] * share
      assert probs[node] == pytest.approx(expected, rel=1e-5)
    for node in range(tree.level_offsets[-2]):
      assert tree.is_leaf(node) or probs[tree.children(node)].sum() == pytest.approx(probs[node], rel=1e-5)
  np.testing.assert_allclose(found[0, children], found[0, starved] / len(children), rtol=1e-6)


def test_shares_and_their_gradient_stay_finite_whatever_the_size():
  """Siblings of 1e-30 part as those of 0.1 do, and the gradient is the true one, 1e29 times as large; 0 has none."""
  block = np.array([[0.3, 0.1, 3e-30, 1e-30, 0.0, 0.0]], np.float32)
  parents = jax.device_put(np.array([0, 0, 1, 1, 2, 2], np.int32))

  @jax.jit
  def run(block, pull):
    found, pullback = jax.vjp(lambda x: shares(x, parents, 3), block)
    return found, *pullback(pull)

  found, gradient = run(block, np.array([[1, 0, 1, 0, 1, 0]], np.float32))
  np.testing.assert_allclose(found, [[0.75, 0.25] * 2 + [0.5, 0.5]], rtol=1e-6)
  expected = np.array([[0.1, -0.3, 0.1 * 1e29, -0.3 * 1e29, 0, 0]]) / 0.4**2
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_log_sums_are_of_probabilities_that_would_underflow():
  block = np.array([[-1.0, -2.0, -2000.0, -2001.0]], np.float32)
  found = jax.jit(lambda x: log_sums(x, jnp.array([1, 1, 0, 0]), 2))(block)
  np.testing.assert_allclose(found, [[-2000 + np.log1p(np.exp(-1)), -1 + np.log1p(np.exp(-1))]], rtol=1e-6)


def test_the_best_node_of_a_level_is_none_where_a_leaf_above_has_more(toy_tree):
  arrays = tree_arrays(toy_tree)  # levels of 2, 3 and 2 nodes; leaves 3 and 4 are on the last level too
  level_prob = np.array(
    [[0.4, 0.6, 0.1, 0.8, 0.1, 0.2, 0.3, 0.5, 0.0], [0.7, 0.3, 0.2, 0.3, 0.5, 0.3, 0.4, 0.1, 0.2]], np.float32
  )
  found = jax.jit(level_argmax)(level_prob, arrays)
  np.testing.assert_array_equal(found, [[1, 3, PAD], [0, 4, 6]])


@pytest.mark.parametrize("stop_at", ["bottom", "leaf", "node", "some"])
def test_the_chain_rule_is_the_sum_over_all_paths(stop_at):
  model = random_model(2, stop_at)
  tree = model.tree
  node = next(i for i in range(tree.num_nodes) if tree.level[i] == 1 and not tree.is_leaf(i))
  known = np.full((2, tree.depth), UNKNOWN, np.int32)
  known[1, 1] = node
  paths = [model.enumerate(0), model.enumerate(1)]
  k = len(paths[0])

  @jax.jit
  def both(arrays, known):
    chain = by_chain_rule(model.step, model.carry(1), known, arrays)
    beams = beam_search(model.step, model.carry(k), known, arrays, DecodeOptions(beam=k, normalise="siblings"))
    return chain, by_paths(beams.paths, beams.log_prob, arrays)

  expected = np.zeros((2, tree.num_nodes))
  stopped = np.zeros((2, tree.num_nodes))
  for example in range(2):
    for scored in paths[example]:
      forced = 2 if example == 1 else 0
      if forced and scored.path[1] != node:
        continue
      mass = np.exp(sum(scored.shares[forced:]))
      expected[example, list(nodes_of(scored.path))] += mass
      stopped[example, nodes_of(scored.path)[-1]] += mass * (scored.path[-1] == STOP)
  for found in jax.device_get(both(model.arrays, known)):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for i in range(-1, tree.num_nodes):
      children = list(tree.children(i))
      if children:
        parent = found[:, i] - stopped[:, i] if i >= 0 else 1.0
        np.testing.assert_allclose(found[:, np.array(children)].sum(1), parent, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1, list(tree.path(node))], 1.0, rtol=1e-5)


def test_leaves_sum_up_to_their_ancestors(rng):
  tree = random_tree(rng, depth=4, most_children=3)
  probs = rng.dirichlet(np.ones(len(tree.leaves)), size=3).astype(np.float32)
  expected = np.zeros((3, tree.num_nodes))
  for column, leaf in enumerate(tree.leaves.tolist()):
    expected[:, list(tree.path(leaf))] += probs[:, [column]]
  np.testing.assert_allclose(jax.jit(by_leaves)(probs, tree_arrays(tree)), expected, rtol=1e-5)


def test_a_tree_of_one_level():
  tree = LabelTree.from_children(["a", "b"], [2, 0, 0])
  model = TableModel(np.random.default_rng(0), tree, "bottom")
  known = np.full((2, 1), UNKNOWN, np.int32)
  found = jax.jit(lambda known: by_chain_rule(model.step, model.carry(1), known, model.arrays))(known)
  expected = [[np.exp(s.shares[0]) for s in model.enumerate(example)] for example in range(2)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
