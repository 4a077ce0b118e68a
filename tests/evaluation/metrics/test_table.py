"""Each entry of the table of metrics, against plain Python on random trees, and the laws that hold between them."""

import numpy as np
import pytest
from metric_oracle import made, metrics, random_predictions

from hierjax.evaluation.metrics import scored
from hierjax.evaluation.metrics.facts import Facts, Sample
from hierjax.evaluation.metrics.intervals import values_of
from hierjax.evaluation.metrics.scored import most_probable, score
from hierjax.evaluation.metrics.table import METRICS
from hierjax.evaluation.metrics.tree_table import TreeTable
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Prediction
from random_trees import random_tree

CASES = [("unknown", 0), ("stop", 1), ("unknown", 2)]


@pytest.mark.parametrize(("short_labels", "seed"), CASES)
@pytest.mark.parametrize("root", [False, True])
def test_every_metric_is_that_of_plain_python(short_labels, seed, root, monkeypatch):
  monkeypatch.setattr(scored, "_AT_ONCE", 200)  # several blocks of rows
  facts, images = made(short_labels, seed, root=root)
  found, expected = values_of(facts), metrics(images, np.random.default_rng(0), root)
  assert set(found) == set(expected) == set(METRICS)
  for name, value in expected.items():
    tolerance = 5e-3 if "aurc" in name else 1e-5  # the oracle draws the orders of equal confidences
    np.testing.assert_allclose(found[name], np.array(value, np.float64), atol=tolerance, err_msg=name)


def test_a_sample_is_as_good_as_its_images():
  """Weights say how often an image is in a sample: the same as repeating its row."""
  facts, _ = made("unknown", 0)
  weights = np.random.default_rng(1).integers(0, 3, (1, 50)).astype(np.float64)
  rows = np.repeat(np.arange(50), weights[0].astype(int))
  tree = facts.table
  prediction, labels = random_predictions(*_again("unknown", 0))
  repeated = prediction.replace(**{name: getattr(prediction, name)[rows] for name in
                                   ("paths", "log_prob", "stop_prob", "node_prob", "raw_nodes")})  # fmt: skip
  other = values_of(Facts(score(repeated, labels[rows], tree), tree))
  for name, metric in METRICS.items():
    np.testing.assert_allclose(metric.of(Sample(facts, weights))[0], other[name], atol=1e-6, err_msg=name)


def _again(short_labels, seed):
  rng = np.random.default_rng(seed)
  return rng, random_tree(rng, depth=3, most_children=4), short_labels, 50


@pytest.mark.parametrize(("short_labels", "seed"), CASES)
def test_distances_over_all_images_are_errors_times_severities(short_labels, seed):
  found = values_of(made(short_labels, seed)[0])
  error = 1 - found["path_accuracy"]
  for unit in ("edges", "height"):
    np.testing.assert_allclose(found[f"tree_distance_{unit}"], error * found[f"mistake_severity_{unit}"])
  np.testing.assert_allclose(
    found["hierarchical_distance_1"], (1 - found["leaf_top1"]) * found["leaf_mistake_severity"]
  )
  np.testing.assert_allclose(found["macro_hierarchical_recall"], found["node_accuracy"])


def test_a_leaf_of_probability_0_is_not_found_where_the_tree_has_fewer_than_5(toy_tree):
  labels = toy_tree.encode([5, 6])
  node_prob = np.zeros((2, 7), np.float32)
  node_prob[:, [0, 2, 6]] = 1  # all on leonberg, one of 4 leaves
  paths = np.where(labels[[1, 1]] >= 0, labels[[1, 1]], PAD)
  ones = np.ones((2, 1), np.float32)
  prediction = Prediction(paths[:, None], ones, ones, node_prob, paths)
  found = values_of(Facts(score(prediction, labels, TreeTable.of(toy_tree)), TreeTable.of(toy_tree)))
  assert found["leaf_top5"] == 0.5 and found["level_top5"].tolist() == [1, 1, 0.5]


def test_entries_have_titles_of_their_own_and_right_answers_are_best(toy_tree):
  titles = [metric.title for metric in METRICS.values()]
  assert len(set(titles)) == len(titles) and all(metric.formula and metric.reference for metric in METRICS.values())
  labels, table = toy_tree.encode(toy_tree.leaves), TreeTable.of(toy_tree)
  ones = np.ones((4, 1), np.float32)
  own = np.where(labels >= 0, labels, PAD)
  sure = np.zeros((4, 7), np.float32)
  sure[np.arange(4)[:, None], np.maximum(own, own[:, :1])] = 1
  values = {}
  for name, rows in (("right", [0, 1, 2, 3]), ("wrong", [1, 0, 3, 2])):
    prediction = Prediction(own[rows][:, None], ones, ones, sure[rows], own[rows])
    if name == "wrong":
      prediction = prediction.replace(raw_nodes=np.full_like(own, 6))
    values[name] = values_of(Facts(score(prediction, labels, table), table))
  for name, metric in METRICS.items():
    right, wrong = (float(np.atleast_1d(values[which][name])[0]) for which in ("right", "wrong"))
    if name == "excess_aurc" or "severity" in name:
      assert np.isnan(right) or right == wrong == 0, name
    elif metric.higher_is_better:
      assert right > wrong, name
    else:
      assert right < wrong or name.startswith(("hierarchical_distance_5", "hierarchical_distance_20")), name


def test_without_probabilities_the_other_metrics_are_the_same():
  facts, _ = made("stop", 1)
  prediction, labels = random_predictions(*_again("stop", 1))
  some = values_of(Facts(score(prediction.replace(node_prob=None), labels, facts.table), facts.table))
  assert set(some) == {name for name, metric in METRICS.items() if metric.needs == "nodes"}
  every = values_of(facts)
  for name, value in some.items():
    np.testing.assert_array_equal(value, every[name], err_msg=name)


def test_nothing_counts_without_labels(toy_tree):
  labels, table = np.full((3, 3), UNKNOWN, np.int32), TreeTable.of(toy_tree)
  ones, paths = np.ones((3, 1), np.float32), np.array([[0, 2, 5]] * 3, np.int32)
  prediction = Prediction(paths[:, None], ones, ones, np.ones((3, 7), np.float32), paths)
  found = values_of(Facts(score(prediction, labels, table), table))
  assert found.pop("inconsistent_predictions") == 0
  assert all(np.isnan(value).all() for value in found.values())


def test_the_most_probable_entries_are_those_of_a_stable_sort():
  rng = np.random.default_rng(0)
  prob = rng.integers(0, 4, (50, 30)).astype(np.float32)
  for count in (1, 5, 20, 40):
    expected = np.argsort(-prob, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(most_probable(prob, count), expected)


def test_labels_that_end_at_a_node_are_read_as_such(toy_tree):
  """With STOP, a path that goes on below the label's end is wrong, and its common ancestor is that end."""
  labels, table = toy_tree.encode([2, 2], "stop"), TreeTable.of(toy_tree)
  assert labels[0].tolist() == [0, 2, STOP]
  paths = np.array([[0, 2, 5], [0, 2, PAD]], np.int32)
  ones = np.ones((2, 1), np.float32)
  found = values_of(Facts(score(Prediction(paths[:, None], ones, ones, None, paths), labels, table), table))
  assert found["path_accuracy"] == 0.5 and found["mistake_severity_height"] == found["mistake_severity_edges"] == 1
