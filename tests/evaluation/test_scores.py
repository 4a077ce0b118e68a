"""Scores of nodes, pairs and images, against loops over images and sets of nodes."""

import collections
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.evaluation.calibration import BINS, Calibration
from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.scores import NodeScores, confident_mistakes, confusions, distances, mistakes_begin
from hierjax.functional.metrics import distance, path_is_right, share_of_right_nodes
from hierjax.tree.label_tree import PAD, UNKNOWN
from random_trees import random_tree

COUNT = 200


@pytest.fixture(params=["unknown", "stop"])
def predicted_tree(rng, request):
  tree = random_tree(rng, depth=3, most_children=3)
  labels = tree.encode(rng.integers(-1, tree.num_nodes, COUNT), request.param)
  paths = tree.encode(np.where(rng.random(COUNT) < 0.4, tree.ends(labels), rng.integers(-1, tree.num_nodes, COUNT)))
  paths = np.where(paths >= 0, paths, PAD)
  predictions = Predictions(
    counted=(labels.max(axis=1) >= 0) & (rng.random(COUNT) < 0.9),
    right=np.asarray(path_is_right(jnp.asarray(paths), jnp.asarray(labels))),
    some_right=np.asarray(share_of_right_nodes(jnp.asarray(paths), jnp.asarray(labels)) > 0),
    labels=labels,
    paths=paths,
    probability=rng.random(paths.shape).astype(np.float32),
    stop=np.ones(COUNT, np.float32),
    label_probability=np.ones(COUNT, np.float32),
  )
  return predictions, tree


def seen(predictions, image):
  """Returns the nodes of an image's label, and those of its path at the levels that the label knows."""
  label, path = predictions.labels[image].tolist(), predictions.paths[image].tolist()
  return [y for y in label if y >= 0], [z for y, z in zip(label, path, strict=True) if y != UNKNOWN and z >= 0]


def test_every_node_has_its_images_and_its_predictions(predicted_tree):
  predictions, tree = predicted_tree
  found = NodeScores.of(predictions, tree)
  labelled, predicted, right = np.zeros((3, tree.num_nodes), int)
  for image in np.flatnonzero(predictions.counted):
    label, path = seen(predictions, image)
    labelled[label] += 1
    predicted[path] += 1
    right[sorted(set(label) & set(path))] += 1
  for counts, expected in ((found.labelled, labelled), (found.predicted, predicted), (found.right, right)):
    assert expected.any()
    np.testing.assert_array_equal(counts, expected)
  some = int(np.flatnonzero(labelled & predicted)[0])
  assert found.recall(some) == right[some] / labelled[some] and found.precision(some) == right[some] / predicted[some]
  none = NodeScores(*np.zeros((3, 1), int))
  assert none.recall(0) is None and none.precision(0) is None


def test_distances_are_those_of_the_metric(predicted_tree):
  predictions, _ = predicted_tree
  found = distances(predictions)
  np.testing.assert_array_equal(found, distance(jnp.asarray(predictions.paths), jnp.asarray(predictions.labels)))
  assert ((found > 0) == ~predictions.right)[predictions.counted].all() and found.max() > 2


def test_mistakes_begin_where_a_path_leaves_its_label(predicted_tree):
  predictions, tree = predicted_tree
  expected = np.zeros(tree.depth, int)
  for image in np.flatnonzero(predictions.counted & ~predictions.right):
    label, path = seen(predictions, image)
    expected[next(i for i in range(tree.depth) if label[i : i + 1] != path[i : i + 1])] += 1
  np.testing.assert_array_equal(mistakes_begin(predictions), expected)
  assert (expected > 0).all()


def test_confusions_are_all_mistakes_by_label_and_answer(predicted_tree):
  predictions, _ = predicted_tree
  expected = collections.defaultdict(list)
  for image in np.flatnonzero(predictions.counted & ~predictions.right).tolist():
    label, path = seen(predictions, image)
    expected[label[-1], path[-1] if path else -1].append(image)
  found = confusions(predictions)
  assert {(pair.label, pair.predicted): pair.images.tolist() for pair in found} == expected
  for pair in found:
    alike = [seen(predictions, image)[0][-1] == pair.label for image in np.flatnonzero(predictions.counted)]
    assert pair.share == pytest.approx(len(pair.images) / sum(alike))
    assert {int(edges) for edges in distances(predictions)[pair.images]} == {pair.edges}
  sizes = [len(pair.images) for pair in found]
  assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1


def test_the_most_confident_mistake_comes_first(predicted_tree):
  predictions, _ = predicted_tree
  images = confident_mistakes(predictions).tolist()
  assert sorted(images) == np.flatnonzero(predictions.counted & ~predictions.right).tolist()

  def confidence(image):
    label, path = predictions.labels[image], predictions.paths[image]
    level = next(
      i for i in range(len(label)) if label[i] != UNKNOWN and (label[i] >= 0 or path[i] >= 0) and label[i] != path[i]
    )
    return predictions.probability[image, level] if path[level] >= 0 else 0.0

  sure = [confidence(image) for image in images]
  assert sure == sorted(sure, reverse=True) and sure[0] > 0.8


def test_a_calibration_compares_probabilities_with_what_is_right(predicted_tree):
  predictions, tree = predicted_tree
  found = Calibration.of(predictions)
  bins = collections.defaultdict(list)
  for image in np.flatnonzero(predictions.counted):
    label, path = seen(predictions, image)
    for node in path:
      level = int(tree.level[node])
      sure = float(predictions.probability[image, level])
      number = next(i for i in range(BINS) if sure <= (i + 1) / BINS)
      bins[level, number].append((sure, node in label))
  by_level = [found.row(slice(level, level + 1)) for level in range(3)]
  for level, (nodes, sure, right, error) in enumerate(by_level):
    own = [pairs for (at, _), pairs in bins.items() if at == level]
    said = np.array([pair for pairs in own for pair in pairs])
    gaps = [len(pairs) * abs(np.mean([p for p, _ in pairs]) - np.mean([r for _, r in pairs])) for pairs in own]
    np.testing.assert_allclose([nodes, sure, right, error], [len(said), *said.mean(axis=0), sum(gaps) / len(said)])
    assert 0.1 < error < 0.6
  whole = found.row(slice(None))
  assert whole[0] == sum(row[0] for row in by_level)
  for number in (1, 2, 3):
    np.testing.assert_allclose(whole[number], sum(row[0] * row[number] for row in by_level) / whole[0])


def test_probabilities_that_are_true_are_not_off(rng):
  sure = rng.random((20_000, 1)).astype(np.float32)
  labels = np.where(rng.random((20_000, 1)) < sure, 0, 1)
  every = np.ones(20_000, bool)
  predictions = Predictions(
    every, labels[:, 0] == 0, labels[:, 0] == 0, labels, np.zeros_like(labels), sure, *np.ones((2, 20_000))
  )
  nodes, _, _, error = Calibration.of(predictions).row(slice(None))
  assert nodes == 20_000 and error < 0.02
  _, _, right, error = Calibration.of(dataclasses.replace(predictions, probability=np.ones_like(sure))).row(slice(None))
  assert error == pytest.approx(1 - right)
  assert Calibration.of(dataclasses.replace(predictions, counted=~every)).row(slice(None)) == (0, None, None, None)
