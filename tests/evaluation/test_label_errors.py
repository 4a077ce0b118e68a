"""Confident learning by level, against the definition on whole matrices; and wrong labels that are found."""

import numpy as np
import pytest

from hierjax.evaluation.label_errors import NONE, label_errors
from hierjax.evaluation.likely_nodes import likely_nodes
from hierjax.tree.given import leaf_probabilities
from hierjax.tree.label_tree import ROOT


def oracle(labels, prob):
  """Northcutt et al. (2021), equations 1 and 2, of one level: the j whose count an image is in, and its margin."""
  nodes = range(prob.shape[1])
  least = {j: prob[labels == j, j].mean(dtype=np.float64) for j in nodes if (labels == j).any()}
  counted, margins = [], []
  for label, own in zip(labels, prob.astype(np.float64), strict=True):
    passing = [j for j in least if own[j] >= least[j]]
    counted.append(max(passing, key=lambda j: (own[j], -j)) if passing and label >= 0 else None)
    margins.append(own[label] - max((own[j] for j in nodes if j != label), default=0.0) if label >= 0 else np.inf)
  return counted, margins


def images(tree, rng, count=200, noise=0.25, signal=3.0):
  """Returns true leaves, given ones with a share that is wrong, and probabilities that favour the true ones."""
  leaves = rng.integers(0, len(tree.leaves), count)
  given = np.where(rng.random(count) < noise, rng.integers(0, len(tree.leaves), count), leaves)
  scores = rng.normal(size=(count, len(tree.leaves))) + signal * np.eye(len(tree.leaves))[leaves]
  prob = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
  return tree.leaves[leaves], tree.leaves[given], leaf_probabilities(prob, tree, None)


def own_probability(labels, node_prob):
  return np.where(labels >= 0, np.take_along_axis(node_prob, np.maximum(labels, 0), axis=1), 0).astype(np.float32)


@pytest.mark.parametrize("kept", [2, 20])
def test_every_level_agrees_with_the_definition(toy_tree, rng, kept):
  _, given, node_prob = images(toy_tree, rng)
  given = np.where(rng.random(len(given)) < 0.1, ROOT, given)  # of some nothing is known
  labels = toy_tree.encode(given)
  found = label_errors(labels, own_probability(labels, node_prob), likely_nodes(node_prob, toy_tree, kept), toy_tree)
  for level in range(toy_tree.depth):
    first, end = toy_tree.level_offsets[level : level + 2]
    local = np.where(labels[:, level] >= 0, labels[:, level] - first, -1)
    counted, margins = oracle(local, node_prob[:, first:end])
    wanted = [NONE if j is None or j == label else j + first for j, label in zip(counted, local, strict=True)]
    assert found.suggested[:, level].tolist() == wanted  # toy levels have 2 or 3 nodes: no passing one lies below 2
    np.testing.assert_allclose(found.margin[:, level], margins, rtol=1e-6)
    assert (found.suggested[:, level] != NONE).any()


def test_wrong_labels_are_found_and_ranked_before_right_ones(toy_tree, rng):
  true, given, node_prob = images(toy_tree, rng, count=2000, noise=0.1, signal=6.0)
  labels = toy_tree.encode(given)
  found = label_errors(labels, own_probability(labels, node_prob), likely_nodes(node_prob, toy_tree), toy_tree)
  doubted = found.first_level() >= 0
  assert doubted[true != given].mean() > 0.8 and doubted[true == given].mean() < 0.1
  at_top = found.at(0)
  assert len(at_top) and (np.diff(found.margin[at_top, 0]) >= 0).all()
  assert set(found.first_level()[found.at(1)].tolist()) == {1}
  assert (found.suggested[at_top, 0] != labels[at_top, 0]).all()


def test_no_label_is_questioned_without_labels_or_by_right_probabilities(toy_tree):
  node_prob = leaf_probabilities(np.eye(len(toy_tree.leaves)), toy_tree, None)
  for ends in (toy_tree.leaves, np.full(len(toy_tree.leaves), ROOT)):
    labels = toy_tree.encode(ends)
    found = label_errors(labels, own_probability(labels, node_prob), likely_nodes(node_prob, toy_tree), toy_tree)
    assert (found.first_level() == -1).all() and not any(len(found.at(level)) for level in range(toy_tree.depth))


def test_likely_nodes_are_the_best_of_each_level(toy_tree, rng):
  node_prob = images(toy_tree, rng, count=7)[2]
  found = likely_nodes(node_prob, toy_tree, 2)
  for image, level in np.ndindex(7, toy_tree.depth):
    first, end = toy_tree.level_offsets[level : level + 2]
    best = np.argsort(-node_prob[image, first:end], kind="stable")[:2]
    assert found.nodes[image, level].tolist() == (first + best).tolist()
    np.testing.assert_array_equal(found.probability[image, level], node_prob[image, first + best])
