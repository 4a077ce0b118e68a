"""Multi-label images: which nodes a label implies, which nodes pass, and F1, against loops in numpy.

The functions are jitted: op by op they are hundreds of programs, which take longer to compile.
"""

import functools
import itertools

import jax
import numpy as np
import pytest

from hierjax.functional.multilabel import (
  F1,
  GRID,
  deepest,
  end_nodes,
  label_nodes,
  multilabel_cross_entropy,
  multilabel_distribution,
  multilabel_metrics,
  passing,
  passing_paths,
  smallest_above,
  step_cross_entropy,
)
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, ROOT, UNKNOWN, LabelTree
from hierjax.types import Batch, DecodeOptions
from random_trees import random_tree

TREE = LabelTree.from_children(list("ABabcde"), [2, 2, 1, 2, 0, 0, 0, 0])  # A: a (d, e), b; B: c
ARRAYS = tree_arrays(TREE)
deepest, passing, smallest_above = jax.jit(deepest), jax.jit(passing), jax.jit(smallest_above)
end_nodes, label_nodes = jax.jit(end_nodes), jax.jit(label_nodes)
multilabel_cross_entropy = jax.jit(multilabel_cross_entropy, static_argnums=3)
step_cross_entropy = jax.jit(step_cross_entropy, static_argnums=3)
multilabel_metrics = jax.jit(multilabel_metrics, static_argnums=3)


@functools.partial(jax.jit, static_argnums=(3, 4))
def decoded(scores, known, arrays, thresholds, beam):
  return passing_paths(
    multilabel_distribution(scores, known, arrays), arrays, DecodeOptions(beam=beam, thresholds=thresholds)
  )


def ancestors(tree, node):
  found = []
  while node != ROOT:
    found.append(node)
    node = int(tree.parent[node])
  return found


def paths_of(tree, *rows):
  """Returns the paths to the end nodes of each image."""
  most = max(map(len, rows))
  return tree.encode(np.array([[*row, *[PAD] * (most - len(row))] for row in rows]))


def test_what_a_label_says_of_each_node():
  # An image of e and c; one of A, whose rest is unknown, and B's c; one of b alone; one without a label.
  paths = paths_of(TREE, (6, 4), (0, 4), (3,), ())
  present, counted = label_nodes(paths, ARRAYS)
  assert [np.flatnonzero(row).tolist() for row in present] == [[0, 1, 2, 4, 6], [0, 1, 4], [0, 3], []]
  assert [np.flatnonzero(~row).tolist() for row in counted] == [[], [2, 3, 5, 6], [], list(range(7))]
  assert [np.flatnonzero(row).tolist() for row in end_nodes(paths, ARRAYS)] == [[4, 6], [0, 4], [3], []]


def test_the_loss_is_the_sum_of_what_is_known():
  logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
  paths = paths_of(TREE, (6, 4), (0,), ())
  x = np.asarray(logits, np.float64)
  yes, no = np.log1p(np.exp(-x)), np.log1p(np.exp(x))
  levels = np.array([2, 2, 3, 3, 3, 5, 5])
  first = np.where([1, 1, 1, 0, 1, 0, 1], yes[0], no[0])
  expected = [(first * levels).sum(), 2 * yes[1, 0] + 2 * no[1, 1] + 3 * no[1, 4], 0.0]
  found = multilabel_cross_entropy(logits, paths, ARRAYS, (2.0, 3.0, 5.0))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(multilabel_cross_entropy(logits, paths, ARRAYS)[0], first.sum(), rtol=1e-5)


@pytest.mark.parametrize("outputs", [7, 8])  # without and with STOP
def test_the_loss_of_a_step_is_of_all_its_outputs(outputs):  # READINGS K7
  logits = np.random.default_rng(1).normal(size=(5, 3, outputs)).astype(np.float32)
  # A > a > e and B > c; A > b alone; A, whose rest is unknown, and A > b; A, whose rest is unknown; none.
  paths = paths_of(TREE, (6, 4), (3,), (0, 3), (0,), ())
  present = [[{0, 1}, {2, 4}, {6}], [{0}, {3}, {"stop"}], [{0}, {3}, set()], [{0}, set(), set()], [set()] * 3]
  unsaid = [[set()] * 3, [set()] * 3, [set(), {2}, {5, 6, "stop"}], [set(), {2, 3, "stop"}, {5, 6, "stop"}]]
  unsaid.append([{*range(7), "stop"}] * 3)
  names, weights = [*range(7), "stop"][:outputs], (2.0, 3.0, 5.0)
  expected, plain = np.zeros(5), np.zeros(5)
  for image, step, output in itertools.product(range(5), range(3), range(outputs)):
    if names[output] in unsaid[image][step]:
      continue
    sign = 1 if names[output] in present[image][step] else -1
    loss = np.log1p(np.exp(-sign * float(logits[image, step, output])))
    expected[image] += weights[step] * loss
    plain[image] += loss
  np.testing.assert_allclose(step_cross_entropy(logits, paths, ARRAYS, weights), expected, rtol=1e-5)
  np.testing.assert_allclose(step_cross_entropy(logits, paths, ARRAYS), plain, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_path_passes_where_all_its_nodes_do(seed):  # READINGS K11
  rng = np.random.default_rng(seed)
  tree = random_tree(rng, 4, 3)
  arrays = tree_arrays(tree)
  scores = rng.random((5, tree.num_nodes)).astype(np.float32)
  depth = np.array([len(ancestors(tree, node)) - 1 for node in range(tree.num_nodes)])
  for thresholds in ([0.4], np.linspace(0.3, 0.5, tree.depth).tolist()):
    own = np.broadcast_to(np.float32(thresholds), tree.depth)[depth]
    passes = np.array([[all(row[a] > own[a] for a in ancestors(tree, j)) for j in range(len(row))] for row in scores])
    np.testing.assert_array_equal(passing(scores, np.float32(thresholds), arrays), passes)
    ends = np.array([[row[j] and not any(row[c] for c in tree.children(j)) for j in range(len(row))] for row in passes])
    np.testing.assert_array_equal(deepest(passes, arrays), ends)

    found = jax.device_get(decoded(scores, None, arrays, tuple(thresholds), 4))
    smallest = np.array([[min(row[a] for a in ancestors(tree, j)) for j in range(len(row))] for row in scores])
    np.testing.assert_array_equal(smallest_above(scores, arrays), smallest)
    np.testing.assert_array_equal(found.node_prob, smallest)
    for row, paths in enumerate(found.paths.tolist()):
      best = sorted(np.flatnonzero(ends[row]).tolist(), key=lambda node, row=row: -smallest[row, node])[:4]
      expected = [ancestors(tree, node)[::-1] for node in best]
      assert [[node for node in path if node >= 0] for path in paths if path[0] >= 0] == expected
      np.testing.assert_allclose(np.exp(found.log_prob[row, : len(best)]), smallest[row, best], rtol=1e-5)
      assert np.isneginf(found.log_prob[row, len(best) :]).all()


def test_what_is_known_is_certain():
  scores = np.full((1, 7), 0.1, np.float32)
  found = jax.device_get(decoded(scores, np.array([[UNKNOWN, 2, UNKNOWN]], np.int32), ARRAYS, (), 2))
  np.testing.assert_allclose(found.node_prob[0, [0, 2]], 1.0)
  assert found.paths[0].tolist() == [[0, 2, PAD], [PAD, PAD, PAD]]
  assert found.raw_nodes.tolist() == [[0, 2, PAD]]
  np.testing.assert_allclose(found.stop_prob[0, 0], 0.9, rtol=1e-6)


def numpy_f1(predicted, true):
  """Returns the mean F1 of the classes, weighted by how often they occur."""
  total, support = 0.0, true.sum(axis=0)
  for c in np.flatnonzero(support):
    right = (predicted[:, c] & true[:, c]).sum()
    precision = right / max(predicted[:, c].sum(), 1)
    recall = right / support[c]
    total += support[c] * (2 * precision * recall / (precision + recall) if right else 0.0)
  return total / support.sum()


def maximal(nodes):
  """Returns the nodes without those above another of them."""
  return {node for node in nodes if not any(node in ancestors(TREE, other)[1:] for other in nodes)}


def table(sets):
  return np.array([[node in nodes for node in range(7)] for nodes in sets])


def test_f1_is_weighted_by_support_and_adds_up():  # READINGS K16
  rng = np.random.default_rng(0)
  predicted, true = rng.random((2, 40, 6)) < 0.4
  true[:, 5] = False  # a class that never occurs
  everything = np.ones_like(true)
  of = jax.jit(F1.of)
  one, other = jax.device_get([of(predicted[i], true[i], everything[i]) for i in (slice(15), slice(15, 40))])
  np.testing.assert_allclose((one + other).value(), numpy_f1(predicted, true), rtol=1e-6)
  assert np.isnan(of(predicted[:0], true[:0], everything[:0]).value())


def test_metrics_of_a_batch():
  rng = np.random.default_rng(1)
  rows = [(6, 4), (3,), (5,), (4,), (6,), (3, 4)]
  paths = paths_of(TREE, *rows)
  scores = rng.random((6, 7)).astype(np.float32)
  batch = Batch(inputs=None, paths=paths, mask=np.float32([1, 1, 1, 1, 1, 0]))
  prediction = decoded(scores, None, ARRAYS, (0.3,), 3)
  labels = [{a for node in row for a in ancestors(TREE, node)} for row in rows[:5]]

  def at(threshold):
    nodes = [{j for j in range(7) if row[j] > np.float32(threshold)} for row in scores[:5]]
    paths = [{j for j in own if set(ancestors(TREE, j)) <= own} for own in nodes]
    return tuple(
      numpy_f1(table(found), table(true))
      for found, true in [(paths, labels), (nodes, labels), (map(maximal, paths), map(maximal, labels))]
    )

  names = ("path_f1", "node_f1", "end_f1")
  found = multilabel_metrics(prediction, batch, ARRAYS, (0.3,))
  assert set(found) == set(names) and len(set(at(0.3))) == 3
  np.testing.assert_allclose([found[name].value() for name in names], at(0.3), rtol=1e-6)
  best = multilabel_metrics(prediction, batch, ARRAYS, ())
  expected = np.max([at(threshold) for threshold in GRID], axis=0)
  np.testing.assert_allclose([best[name].value() for name in names], expected, rtol=1e-6)


def test_of_nested_labels_each_is_a_path():  # READINGS K11
  paths = paths_of(TREE, (0, 2))  # A, and A > a
  batch = Batch(inputs=None, paths=paths, mask=np.float32([1]))
  scores = np.float32([[0.9, 0.1, 0.8, 0.1, 0.1, 0.1, 0.1]])
  found = multilabel_metrics(decoded(scores, None, ARRAYS, (0.5,), 3), batch, ARRAYS, (0.5,))
  assert [one.value() for one in found.values()] == [1.0, 1.0, 1.0]
  assert np.flatnonzero(end_nodes(paths, ARRAYS)).tolist() == [2]


def test_what_is_below_an_unknown_rest_is_neither_right_nor_wrong():
  paths = paths_of(TREE, (0,))  # A, and nobody knows which
  batch = Batch(inputs=None, paths=paths, mask=np.float32([1]))
  scores = np.float32([[0.9, 0.1, 0.8, 0.1, 0.1, 0.7, 0.1]])
  prediction = decoded(scores, None, ARRAYS, (0.5,), 3)
  found = multilabel_metrics(prediction, batch, ARRAYS, (0.5,))
  assert found["path_f1"].value() == found["node_f1"].value() == 1.0
