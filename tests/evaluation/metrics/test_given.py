"""Anybody's predictions: `hj.Prediction.from_...` and `hj.metrics`."""

import jax
import numpy as np
import pytest

import hierjax as hj
from hierjax.errors import UserError
from hierjax.evaluation.metrics.measure import label_paths
from hierjax.functional.decoding import decode
from hierjax.functional.distributions import by_leaves
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.types import DecodeOptions, Distribution
from random_trees import random_tree


@pytest.fixture
def leaf_probs(rng):
  tree = random_tree(rng, depth=3, most_children=4)
  probs = rng.random((20, len(tree.leaves))).astype(np.float32) ** 4
  return tree, probs / probs.sum(axis=1, keepdims=True)


def test_leaf_probabilities_are_those_of_a_flat_head(leaf_probs):
  tree, probs = leaf_probs
  arrays = tree_arrays(tree)

  @jax.jit
  def decoded(probs):
    return decode(Distribution(by_leaves(probs, arrays)), arrays, DecodeOptions())

  expected = jax.device_get(decoded(probs))
  node_prob = expected.node_prob
  found = hj.Prediction.from_leaf_probs(probs, tree)
  for name in ("paths", "raw_nodes"):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
  for name in ("node_prob", "log_prob", "stop_prob"):
    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5, err_msg=name)
  of_nodes = hj.Prediction.from_node_probs(node_prob, tree)
  np.testing.assert_array_equal(of_nodes.paths, found.paths)
  for row, t in np.ndindex(of_nodes.raw_nodes.shape):
    node = of_nodes.raw_nodes[row, t]
    block = node_prob[row, tree.level_offsets[t] : tree.level_offsets[t + 1]]
    early = [leaf for leaf in tree.leaves if tree.level[leaf] < t]
    largest = max([0.0, *(float(node_prob[row, leaf]) for leaf in early)])
    assert node == (tree.level_offsets[t] + int(block.argmax()) if block.max() >= largest else hj.PAD)


def test_columns_may_come_in_any_order_by_name(leaf_probs):
  tree, probs = leaf_probs
  order = np.random.default_rng(1).permutation(probs.shape[1])
  names = [tree.path_text(node) for node in tree.leaves[order]]
  found = hj.Prediction.from_leaf_probs(probs[:, order], tree, names=names)
  same = hj.Prediction.from_leaf_probs(probs, tree)
  np.testing.assert_array_equal(found.node_prob, same.node_prob)
  every = np.random.default_rng(2).permutation(tree.num_nodes)
  by_node = hj.Prediction.from_node_probs(same.node_prob[:, every], tree, names=[tree.path_text(v) for v in every])
  np.testing.assert_array_equal(by_node.node_prob, same.node_prob)


def test_nodes_have_paths_and_no_probabilities(toy_tree):
  found = hj.Prediction.from_nodes(["animal/dog/basenji", "cat", None, ""], toy_tree)
  assert found.paths[:, 0].tolist() == [[0, 2, 5], [0, 3, -2], [-2] * 3, [-2] * 3] and found.node_prob is None
  same = hj.Prediction.from_nodes([5, 3, -1, -1], toy_tree)
  np.testing.assert_array_equal(found.paths, same.paths)
  metrics = hj.metrics(found, ["basenji", "leonberg", "cup", None], toy_tree)
  assert metrics["path_accuracy"] == pytest.approx(1 / 3) and "leaf_nll" not in metrics
  assert metrics["mistake_severity_edges"] == (3 + 2) / 2 and metrics["num_examples"] == 4
  low, high = metrics["intervals"]["path_accuracy"]
  assert 0 < low < 1 / 3 < high < 1
  with_root = hj.metrics(found, ["basenji", "leonberg", "cup", None], toy_tree, count_root=True)
  assert metrics["hierarchical_recall"] == (3 + 1 + 0) / (3 + 3 + 2)
  assert with_root["hierarchical_recall"] == (4 + 2 + 1) / (4 + 4 + 3)


def test_labels_are_nodes_names_or_label_paths(toy_tree):
  nodes = np.array([5, 6, 4], np.int32)
  paths = toy_tree.encode(nodes)
  for labels in (nodes, ["basenji", "animal/dog/leonberg", "cup"], paths, paths.tolist()):
    np.testing.assert_array_equal(label_paths(labels, toy_tree), paths)
  with pytest.raises(UserError, match="label paths of 2 levels; the tree has 3"):
    label_paths(paths[:, :2], toy_tree)


@pytest.mark.parametrize(("given", "message"), [(1, "3 of 4 have no column: [^.]*leonberg$"), (0, r", \.\.\.$")])
def test_columns_that_are_missing_are_named_three_of_them(toy_tree, given, message):
  names = ["cat"][:given]
  with pytest.raises(UserError, match=message):
    hj.Prediction.from_leaf_probs(np.ones((2, 4), np.float32), toy_tree, names=names)


def test_a_path_may_end_at_an_inner_node(toy_tree):
  probs = np.array([[0.9, 0.1, 0.8, 0.1, 0.1, 0.2, 0.1]])
  found = hj.Prediction.from_node_probs(probs, toy_tree)
  assert found.paths[0, 0].tolist() == [0, 2, -2] and float(found.log_prob[0, 0]) == pytest.approx(np.log(0.5))
  assert float(found.stop_prob[0, 0]) == pytest.approx(0.5 / 0.8)


def test_several_paths_have_f1(toy_tree):
  probs = np.zeros((2, 7))
  probs[0, [0, 2, 5, 1, 4]] = 0.9
  probs[1, [0, 3]] = 0.8
  found = hj.metrics(hj.Prediction.from_node_probs(probs, toy_tree, several=True), [["basenji", "cup"], [3]], toy_tree)
  assert found["path_f1"] == found["node_f1"] == found["end_f1"] == 1
  missed = hj.metrics(hj.Prediction.from_node_probs(probs, toy_tree, several=True), [["basenji"], [6]], toy_tree)
  assert 0 < missed["node_f1"] < 1


SUM = "sum to 1.5, not to 1"


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda t: hj.Prediction.from_leaf_probs(np.ones((2, 3)) / 3, t), r"shape \(2, 3\): must be \(images, 4\)"),
    (lambda t: hj.Prediction.from_leaf_probs([["a"]], t), "must be an array of numbers"),
    (lambda t: hj.Prediction.from_leaf_probs([[0.5, 0.5, 0.5, 0]], t), SUM),
    (
      lambda t: hj.Prediction.from_leaf_probs([[1, 0, 0, 0], [np.nan, 1, 0, 0]], t),
      "image 1: the probability in column 0 is nan",
    ),
    (lambda t: hj.Prediction.from_leaf_probs([[1.5, -0.5, 0, 0]], t), "image 0: .* in column 1 is -0.5.*softmax"),
    (lambda t: hj.Prediction.from_leaf_probs([[1, 0, 0, 0]], t, ["cat", "cup", "basenji", "wolf"]), "'wolf' is"),
    (lambda t: hj.Prediction.from_leaf_probs([[1, 0, 0, 0]], t, ["cat", "cup", "basenji", "dog"]), "'dog' is no leaf"),
    (lambda t: hj.Prediction.from_leaf_probs([[1, 0, 0, 0]], t, ["cup", "cat", "basenji", "cat"]), "'cat': .* already"),
    (lambda t: hj.Prediction.from_leaf_probs([[1, 0, 0]], t, ["cat", "cup", "basenji"]), "no column: .*leonberg"),
    (lambda t: hj.Prediction.from_node_probs([[1, 0.5, 0, 1, 0, 0, 0]], t), f"the top level {SUM}"),
    (
      lambda t: hj.Prediction.from_node_probs([[0.5, 0.5, 0.4, 0.3, 0, 0, 0]], t),
      "children of 'animal' have 0.7 .* 0.5",
    ),
    (lambda t: hj.Prediction.from_node_probs([[2, 0, 0, 0, 0, 0, 0]], t, several=True), "'animal' is 2, more than 1"),
    (lambda t: hj.Prediction.from_nodes(["wolf"], t), "'wolf' is"),
    (lambda t: hj.Prediction.from_nodes([7], t), "image 0: node 7; the tree has nodes 0 to 6"),
    (lambda t: hj.Prediction.from_nodes([0.5], t), "must be numbers of nodes, or names"),
    (lambda t: hj.metrics(hj.Prediction.from_nodes([1], t), [1, 2], t), "2 labels for 1 predictions"),
    (lambda t: hj.metrics(hj.Prediction.from_nodes([1], t), [[1, 2]], t), "label paths of 2 levels; the tree has 3"),
  ],
)
def test_what_is_wrong_is_said(toy_tree, make, message):
  with pytest.raises(UserError, match=message):
    make(toy_tree)
