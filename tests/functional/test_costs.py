"""Answers of least expected cost, and the best nodes of a level, against tables over all pairs of nodes."""

import functools

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.costs import COSTS
from hierjax.functional.decoding import decode
from hierjax.functional.tree_arrays import heights, tree_arrays
from hierjax.tree.label_tree import PAD, LabelTree
from hierjax.types import DecodeOptions, Distribution
from path_oracle import nodes_of, random_model

BATCH = 6


@functools.partial(jax.jit, static_argnums=2)
def prediction_of(node_prob, arrays, options):
  return decode(Distribution(node_prob), arrays, options)


def decoded(node_prob, arrays, options):
  return jax.device_get(prediction_of(node_prob.astype(np.float32), arrays, options))


@functools.cache
def setting(stop_at):
  """Returns a tree, its arrays, the nodes where paths may end, and probabilities of these ends and of all nodes."""
  model = random_model(4, stop_at)
  places = sorted(model.ends) if stop_at != "bottom" else model.tree.leaves.tolist()
  ends = np.random.default_rng(5).dirichlet(np.full(len(places), 0.3), BATCH)
  ends[-1] *= 0.6  # a lower bound: the rest is a label of which no node is right
  node_prob = np.zeros((BATCH, model.tree.num_nodes))
  for place, prob in zip(places, ends.T, strict=True):
    node_prob[:, list(model.tree.path(place))] += prob[:, None]
  return model.tree, model.arrays, places, ends, node_prob


def height(tree, node):
  return max((1 + height(tree, child) for child in tree.children(node)), default=0)


def cost(tree, name, answer, label):
  """Returns the cost of an answer, a node or -1, for a label; None is a label of which no node is right."""
  named, known = (set() if node in (-1, None) else set(tree.path(node)) for node in (answer, label))
  if name == "edges":
    return len(named ^ known)
  if name == "height":
    shared = max(named & known, default=-1)
    return 0 if answer == label else height(tree, shared)
  beta = float(name.removeprefix("hf"))
  if not named & known:
    return 1.0
  precision, recall = len(named & known) / len(named), len(named & known) / len(known)
  return 1 - (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("stop_at", ["bottom", "leaf", "node", "some"])
def test_the_expected_cost_of_every_answer_is_a_product_with_the_table(stop_at, name):
  tree, arrays, places, ends, node_prob = setting(stop_at)
  answers = range(-1, tree.num_nodes)
  table = np.array([[cost(tree, name, answer, label) for label in [*places, None]] for answer in answers])
  expected = np.concatenate([ends, 1 - ends.sum(axis=1, keepdims=True)], axis=1) @ table.T
  found = jax.jit(COSTS[name])(node_prob.astype(np.float32), arrays)
  np.testing.assert_allclose(found, expected, atol=2e-5)

  options = DecodeOptions(rule=name, beam=3)
  best = decoded(node_prob, arrays, options)
  for row, paths, scores in zip(expected, best.paths, best.log_prob, strict=True):
    chosen = [max(nodes_of(path), default=-1) for path in paths]
    np.testing.assert_allclose(row[np.add(chosen, 1)], np.sort(row)[:3], atol=2e-5)
    assert len(set(chosen)) == 3
    assert all(
      nodes_of(path) == (tree.path(node) if node >= 0 else ()) for path, node in zip(paths, chosen, strict=True)
    )
    assert [np.isneginf(score) for score in scores] == [node == -1 for node in chosen]


def test_the_fewest_edges_lead_to_the_deepest_node_above_one_half():
  tree, arrays, _, _, node_prob = setting("leaf")
  found = decoded(node_prob, arrays, DecodeOptions(rule="edges"))
  deepest = [np.flatnonzero(row > 0.5).max(initial=-1) for row in node_prob]
  assert [max(nodes_of(path), default=-1) for path in found.paths[:, 0]] == deepest
  assert len({tree.depth if node < 0 else len(tree.path(node)) for node in deepest}) > 1


@pytest.mark.parametrize("stop_at", ["leaf", "some"])
def test_the_best_nodes_of_a_level_are_those_of_labels_cut_off_there(stop_at):
  tree, arrays, places, ends, node_prob = setting(stop_at)
  for level in (1, 2, tree.depth):
    mass = {}
    for place, prob in zip(places, ends.T, strict=True):
      path = tree.path(place)[:level]
      mass[path] = mass.get(path, 0) + prob
    options = DecodeOptions(rule="level", level=level, beam=2)
    found = decoded(node_prob, arrays, options)
    for b in range(BATCH):
      ranking = sorted((path for path in mass if mass[path][b] > 1e-4), key=lambda path, b=b: -mass[path][b])[:2]
      assert [nodes_of(path) for path in found.paths[b]][: len(ranking)] == ranking
      np.testing.assert_allclose(np.exp(found.log_prob[b])[: len(ranking)], [mass[p][b] for p in ranking], rtol=1e-3)
  whole = decoded(node_prob, arrays, DecodeOptions(rule="level", beam=2))
  np.testing.assert_array_equal(whole.paths, found.paths)
  with pytest.raises(UserError, match=r"config\.decode\.level = 9: the tree has 4 levels"):
    decoded(node_prob, arrays, DecodeOptions(rule="level", level=9))


def test_the_best_node_of_a_level_need_not_be_above_the_best_leaf():
  tree = LabelTree.from_children(["a", "b", "c", "d", "e"], [2, 1, 2, 0, 0, 0])
  node_prob = np.array([[0.45, 0.55, 0.45, 0.3, 0.25]])
  arrays = tree_arrays(tree)
  assert decoded(node_prob, arrays, DecodeOptions()).paths[0, 0].tolist() == [0, 2]
  options = DecodeOptions(rule="level", level=1, beam=3)
  assert decoded(node_prob, arrays, options).paths[0].tolist() == [[1, PAD], [0, PAD], [PAD, PAD]]


def test_rules_leave_the_raw_argmaxes_alone():
  _, arrays, _, _, node_prob = setting("leaf")
  expected = decoded(node_prob, arrays, DecodeOptions()).paths[:, 0]
  for rule in ("edges", "level"):
    found = decoded(node_prob, arrays, DecodeOptions(rule=rule, level=1))
    np.testing.assert_array_equal(found.raw_nodes, expected)
    assert (found.paths[:, 0] != expected).any()


def test_twenty_thousand_nodes_need_no_table():
  """A table of this tree would have 300 million entries; heights and costs of a known label are read off."""
  sizes, counts, rng = [100, 1500, 5000, 13400], [100], np.random.default_rng(0)
  for above, here in zip(sizes, [*sizes[1:], 0], strict=True):
    counts += rng.multinomial(here, np.full(above, 1 / above)).tolist()
  tree = LabelTree.from_children([f"{i}" for i in range(sum(sizes))], counts)
  arrays = tree_arrays(tree)
  leaf = int(tree.leaves[-1])
  node_prob = np.zeros((1, tree.num_nodes), np.float32)
  node_prob[0, list(tree.path(leaf))] = 1
  answers = [-1, 0, *tree.path(leaf), int(tree.leaves[0])]
  every = jax.jit(lambda prob, arrays: {name: COSTS[name](prob, arrays) for name in ("edges", "hf1")})
  for name, (found,) in jax.device_get(every(node_prob, arrays)).items():
    assert found.argmin() == leaf + 1
    expected = [cost(tree, name, answer, leaf) for answer in answers]
    np.testing.assert_allclose(found[np.add(answers, 1)], expected, atol=1e-5, err_msg=name)
  far = jax.device_get(jax.jit(heights)(arrays))
  assert [far[node + 1] for node in (-1, 0, leaf)] == [height(tree, node) for node in (-1, 0, leaf)]
