"""Adaptation against the paper's Algorithm 1 as printed, and against READINGS D7 node by node, both in float64."""

import functools

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.adaptation import adapt, adapted, check_alpha
from hierjax.functional.decoding import decode
from hierjax.functional.distributions import by_levels, level_blocks, level_splits
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.types import DecodeOptions, Distribution
from random_trees import random_tree

BATCH, BEAM = 3, 4
EVEN = LabelTree.from_children(list("ABCabcdef"), [3, 3, 1, 2, *[0] * 6])  # two levels, of 3 and 6 nodes
FATHERS = np.array([0, 0, 0, 1, 2, 2])
TREES = {
  "two levels": EVEN,
  "two levels, early leaf": LabelTree.from_children(list("ABCabcd"), [3, 3, 0, 1, *[0] * 4]),
  "three levels": LabelTree.from_children(list("ABabcdefgh"), [2, 2, 1, 2, 1, 2, *[0] * 5]),
  "three levels, early leaves": LabelTree.from_children(list("ABCabcdefgh"), [3, 2, 0, 2, 2, 0, 2, *[0] * 5]),
  "five levels, early leaves": random_tree(np.random.default_rng(5), depth=5, most_children=2, early_leaf=0.3),
}
sweep = jax.jit(jax.vmap(adapt, in_axes=(None, 0, None)))  # [a b e]
level_blocks = jax.jit(level_blocks)


def random_levels(tree, concentration=0.5):
  rng = np.random.default_rng(7)
  sizes = tree_arrays(tree).block_sizes
  return np.concatenate([rng.dirichlet(np.full(size, concentration), BATCH) for size in sizes], axis=1).astype("f4")


def entries(tree):
  """Returns (level, node) of each entry."""
  return [(t, node) for t, block in enumerate(level_blocks(tree_arrays(tree))) for node in block.tolist()]


def by_definition(tree, row, alpha):
  """READINGS D7 for one example, entry by entry, in float64."""
  place = {entry: i for i, entry in enumerate(entries(tree))}

  def children(t, node):
    return [(t + 1, child) for child in ([node] if tree.is_leaf(node) else tree.children(node))]

  @functools.cache
  def masses(t, node):
    """Returns what the entry and its descendants have at its own level, the next, ..."""
    own = np.array([row[place[t, node]]], np.float64)
    return np.concatenate([own, sum(masses(*child) for child in children(t, node))]) if t + 1 < tree.depth else own

  target = {entry: masses(*entry).mean() for entry in children(-1, ROOT)}
  for parent in place:
    siblings = children(*parent) if parent[0] + 1 < tree.depth else []
    raw = [masses(*entry).mean() for entry in siblings]
    for entry, mass in zip(siblings, raw, strict=True):
      target[entry] = target[parent] * (mass / sum(raw) if sum(raw) else 1 / len(raw))
  return np.array([(1 - alpha) * row[i] + alpha * target[entry] for entry, i in place.items()])


def algorithm_1(coarse, fine, alpha):
  """The paper's Algorithm 1 on `EVEN`, line by line; right where no Q_coarse is 0."""
  adjusted_coarse, adjusted_fine = np.zeros(3), np.zeros(6)
  for i in range(3):
    members = np.flatnonzero(i == FATHERS)
    q_coarse = fine[members].sum()
    target_prob = (coarse[i] + q_coarse) / 2
    adjusted_coarse[i] = (1 - alpha) * coarse[i] + alpha * target_prob
    for j in members:
      fine_target_prob = (fine[j] * target_prob) / q_coarse
      adjusted_fine[j] = (1 - alpha) * fine[j] + alpha * fine_target_prob
  return np.concatenate([adjusted_coarse, adjusted_fine])


@pytest.mark.parametrize("name", TREES)
def test_it_is_the_definition_and_keeps_the_sums_and_ends_consistent(name):
  tree, arrays, depth = TREES[name], tree_arrays(TREES[name]), TREES[name].depth
  level_prob, splits = random_levels(tree), level_splits(arrays)
  last = level_prob[:, splits[-1] :]
  last[0, tree.parent[[node for _, node in entries(tree)[splits[-1] :]]] == arrays.inner[-1]] = 0  # D1's case
  last[0] /= last[0].sum()
  alphas = np.array([0, 0.3, 1, 2 if depth == 2 else 0.9], np.float32)
  found = np.asarray(sweep(level_prob, alphas, arrays))
  for of_alpha, alpha in zip(found, alphas.tolist(), strict=True):
    for row, example in zip(of_alpha, level_prob, strict=True):
      np.testing.assert_allclose(row, by_definition(tree, example, alpha), rtol=2e-5, atol=1e-7)
  np.testing.assert_array_equal(found[0], level_prob)
  assert (found >= 0).all()
  for block in np.split(found, splits, axis=-1):
    np.testing.assert_allclose(block.sum(-1), 1, rtol=1e-5)
  consistent = dict(zip(entries(tree), found[2].T, strict=True))
  for (t, node), prob in consistent.items():
    if t + 1 < depth:
      below = [node] if tree.is_leaf(node) else tree.children(node)
      np.testing.assert_allclose(prob, sum(consistent[t + 1, child] for child in below), rtol=1e-5, atol=1e-7)


def test_on_two_levels_it_is_the_papers_algorithm_and_a_mirror_about_1():
  level_prob, arrays = random_levels(EVEN), tree_arrays(EVEN)
  alphas = np.array([0, 0.4, 1.6, 2], np.float32)
  found = np.asarray(sweep(level_prob, alphas, arrays))
  for of_alpha, alpha in zip(found, alphas.tolist(), strict=True):
    for row, example in zip(of_alpha, level_prob.astype(np.float64), strict=True):
      np.testing.assert_allclose(row, algorithm_1(example[:3], example[3:], alpha), rtol=1e-5, atol=1e-7)
  sums = np.stack([found[..., 3:][..., i == FATHERS].sum(-1) for i in range(3)], axis=-1)
  np.testing.assert_allclose(found[..., :3], sums[::-1], rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(found[3, :, :3], sums[0], rtol=1e-5)
  np.testing.assert_allclose(sums[3], level_prob[:, :3], rtol=1e-5)


def test_small_probabilities_stay_what_they_are():
  """At 2 the levels swap, to the last digits, also where one gives a node 1e-30 of what the other does, or nothing."""
  tiny = 1e-30
  rows = [[1, tiny, 0, 3 * tiny, tiny, 0, 1, 0, 0], [0, 1, tiny, 0, 0, 0, tiny, 0.25, 0.75]]
  found = sweep(np.array(rows, np.float32), np.array([0, 0.4, 1.6, 2], np.float32), tree_arrays(EVEN))[3]
  expected = [[4 * tiny, 1, 0, 0.75, 0.25, 0, tiny, 0, 0], [0, tiny, 1, 0, 0, 0, 1, 0.25 * tiny, 0.75 * tiny]]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@jax.jit
@functools.partial(jax.grad, argnums=(0, 1))
def gradients(row, alpha, weights, arrays):
  return (adapt(row[None], alpha, arrays)[0] * weights).sum()


@pytest.mark.parametrize("nothing_below", [False, True])
def test_gradients_are_those_of_the_definition(nothing_below):
  """Also beside siblings that have nothing, where it jumps and only has to be finite."""
  tree = TREES["three levels, early leaves"]
  arrays = tree_arrays(tree)
  row = random_levels(tree, concentration=4.0)[0]
  starved = np.array([t == tree.depth - 1 and tree.parent[node] == arrays.inner[-1] for t, node in entries(tree)])
  starved &= nothing_below
  row[starved] = 0
  weights = np.random.default_rng(1).normal(size=len(row)).astype(np.float32)
  gradient, of_alpha = gradients(row, np.float32(0.7), weights, arrays)

  def outcome(given, alpha=0.7):
    return by_definition(tree, given, alpha) @ weights

  expected = np.array([(outcome(row + step) - outcome(row - step)) / 2e-6 for step in 1e-6 * np.eye(len(row))])
  np.testing.assert_allclose(np.asarray(gradient)[~starved], expected[~starved], rtol=1e-3, atol=1e-4)
  assert np.isfinite(gradient).all() and starved.any() == nothing_below
  assert of_alpha == pytest.approx(outcome(row, 1.7) - outcome(row, 0.7), rel=1e-3, abs=1e-5)


def test_node_probabilities_and_paths_follow_the_adapted_levels():
  level_prob, arrays = random_levels(EVEN), tree_arrays(EVEN)

  @jax.jit
  def run(p, alpha):
    moved = adapted(Distribution(by_levels(p, arrays), p), alpha, arrays)
    return decode(moved, arrays, DecodeOptions(beam=BEAM))

  for alpha in np.array([0.4, 1], np.float32):
    found = run(level_prob, alpha)
    level = np.stack([by_definition(EVEN, row, alpha) for row in level_prob])
    coarse, fine = level[:, :3], level[:, 3:]
    leaf = coarse[:, FATHERS] * fine / np.stack([fine[:, i == FATHERS].sum(-1) for i in FATHERS], axis=-1)
    np.testing.assert_allclose(found.level_prob, level, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.node_prob, np.concatenate([coarse, leaf], axis=1), rtol=1e-5, atol=1e-7)
    scores = coarse[:, FATHERS] * fine  # of a path: the product over the levels
    best = np.argsort(-scores)[:, :BEAM]
    np.testing.assert_array_equal(found.paths, np.stack([FATHERS[best], 3 + best], axis=-1))
    np.testing.assert_allclose(found.log_prob, np.log(-np.sort(-scores)[:, :BEAM]), rtol=1e-4)
    np.testing.assert_array_equal(found.raw_nodes, np.stack([coarse.argmax(1), 3 + fine.argmax(1)], axis=1))
    assert not found.raw_consistent
  np.testing.assert_allclose(found.node_prob, found.level_prob, rtol=1e-5, atol=1e-7)


def test_levels_that_agree_by_construction_come_back_as_they_are():
  arrays, level_prob = tree_arrays(TREES["three levels"]), random_levels(TREES["three levels"])
  says = Distribution(level_prob, level_prob)
  for same in (says.replace(level_prob=None), says.replace(summed_levels=(0, 1))):
    assert adapted(same, 0.5, arrays) is same
  moved = jax.jit(lambda p: adapted(p, 0.5, arrays))(says.replace(summed_levels=(1,)))
  assert moved.summed_levels == (1,) and np.abs(moved.level_prob - level_prob).max() > 0.01


@pytest.mark.parametrize(("alpha", "depth"), [(-0.1, 2), (2.1, 2), (2.1, 1), (1.1, 3), (float("nan"), 2)])
def test_what_would_make_probabilities_negative_is_refused(alpha, depth):
  with pytest.raises(UserError, match=rf"--alpha = {alpha}: .*{depth} levels.* from 0 to {1 if depth > 2 else 2}$"):
    check_alpha(alpha, depth, "--alpha")


def test_the_ends_of_the_range_are_allowed():
  for alpha, depth in ((0.0, 2), (2.0, 2), (0.0, 3), (1.0, 3)):
    check_alpha(alpha, depth, "--alpha")
