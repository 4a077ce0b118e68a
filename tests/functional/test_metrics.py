"""Each entry of the table of metrics, against plain Python on random predictions."""

import functools

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.evaluation.metrics.table import METRICS
from hierjax.functional.metrics import BATCH_METRICS, Mean, Metric, evaluate_batch
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Batch, Prediction
from random_trees import random_tree

evaluate = jax.jit(evaluate_batch)


def edges(tree, label, path):
  """Returns the edges between two ends, by the way up; below a label of which no more is known nothing counts."""
  unknown = label.index(UNKNOWN) if UNKNOWN in label else len(label)
  ends = [max([-1, *(node for node in nodes[:unknown] if node >= 0)]) for nodes in (label, path)]
  above = [[end] for end in ends]
  for way in above:
    while way[-1] >= 0:
      way.append(int(tree.parent[way[-1]]))
  common = next(node for node in above[0] if node in above[1])
  return above[0].index(common) + above[1].index(common)


def oracle(tree, label, path, raw_nodes, node_prob):
  """Returns the metrics of one example that count it, in plain Python."""
  known = [(t, y) for t, y in enumerate(label) if y >= 0]
  out = {"inconsistent_predictions": not tree.is_path(raw_nodes)}
  if known:
    right = [path[t] == y for t, y in known]
    ended = all(path[t] < 0 for t, y in enumerate(label) if y == STOP)
    out |= {"path_accuracy": all(right) and ended, "node_accuracy": sum(right) / len(right)}
    if not (all(right) and ended):
      out["mistake_severity_edges"] = edges(tree, label, path)
    out |= {f"level_accuracy/{t}": path[t] == y for t, y in known}
    out |= {f"raw_level_accuracy/{t}": raw_nodes[t] == y for t, y in known}
  if known and tree.is_leaf(known[-1][1]):
    ranking = sorted((leaf for leaf in tree.leaves.tolist() if node_prob[leaf] > 0), key=lambda i: (-node_prob[i], i))
    out |= {f"leaf_top{k}": known[-1][1] in ranking[:k] for k in (1, 5)}
  return out


@functools.cache
def judged(short_labels):
  """Returns a tree, random predictions for it with their batch, and the values of each metric by plain Python."""
  rng = np.random.default_rng(0)
  tree = random_tree(rng, depth=3, most_children=3)
  b = 300
  labels = tree.encode(rng.integers(-1, tree.num_nodes, size=b), short_labels)
  near = np.where(rng.random(b) < 0.5, tree.ends(labels), rng.integers(0, tree.num_nodes, size=b)).astype(np.int32)
  paths = np.maximum(tree.encode(np.maximum(near, 0), "stop"), STOP)
  paths = np.where(paths >= 0, paths, PAD)
  raw_nodes = np.where(rng.random(paths.shape) < 0.2, rng.integers(PAD, tree.num_nodes, size=paths.shape), paths)
  node_prob = rng.integers(0, 4, size=(b, tree.num_nodes)) / 4  # with ties and zeros
  mask = (rng.random(b) < 0.8).astype(np.float32)
  totals: dict[str, list[float]] = {}
  for i in np.flatnonzero(mask):
    arguments = labels[i].tolist(), paths[i].tolist(), raw_nodes[i].tolist(), node_prob[i].tolist()
    for name, value in oracle(tree, *arguments).items():
      totals.setdefault(name, []).append(float(value))
  prediction = Prediction(
    paths=paths[:, None], log_prob=np.zeros((b, 1), np.float32), stop_prob=np.ones((b, 1), np.float32),
    node_prob=node_prob.astype(np.float32), raw_nodes=raw_nodes.astype(np.int32),
  )  # fmt: skip
  batch = Batch(inputs=np.zeros((b, 1), np.float32), paths=labels[:, None], mask=mask)
  return tree, prediction, batch, totals


def measured(short_labels, evaluate=evaluate):
  """Returns each metric, or each level of one by level, as the sum of those of the two halves of the batch."""
  tree, prediction, batch, _ = judged(short_labels)
  half = [jax.tree.map(lambda x, s=s: x[s], (prediction, batch)) for s in (slice(0, 150), slice(150, None))]
  parts = jax.device_get([evaluate(*h, tree_arrays(tree, short_labels)) for h in half])
  values = {name: mean.value() for name, mean in jax.tree.map(np.add, *parts).items()}
  levels = {name: value for name, value in values.items() if isinstance(value, list)}
  by_level = {f"{name}/{t}": value for name, value in levels.items() for t, value in enumerate(levels[name])}
  return {name: value for name, value in values.items() if name not in levels} | by_level


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_metrics_are_those_of_plain_python(short_labels):
  totals, found = judged(short_labels)[3], measured(short_labels)
  assert set(found) == set(totals) and {name.split("/")[0] for name in found} == set(BATCH_METRICS)
  for name, values in totals.items():
    assert 0 < np.mean(values) < (6 if name == "mistake_severity_edges" else 1), name
    np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-5, err_msg=name)


def test_a_leaf_of_probability_0_is_not_among_the_best_5_of_fewer(toy_tree):
  paths, ones = toy_tree.encode([5, 6]), np.ones((2, 1), np.float32)
  node_prob = np.float32([[1, 0, 1, 0, 0, 0, 1]] * 2)
  prediction = Prediction(paths[:, None], ones, ones, node_prob, paths)
  found = evaluate(prediction, Batch(ones, paths[:, None], ones[:, 0]), tree_arrays(toy_tree))
  assert found["leaf_top5"].value() == 0.5


def test_right_predictions_score_better_than_wrong_ones():
  """In the direction that the table of all metrics says."""
  tree = judged("unknown")[0]
  arrays = tree_arrays(tree)
  leaves = tree.encode(tree.leaves)
  ones = np.ones((len(leaves), 1), np.float32)
  batch = Batch(leaves, leaves[:, None], ones[:, 0])
  right = Prediction(
    np.maximum(leaves, PAD)[:, None], 0 * ones, ones,
    np.eye(tree.num_nodes, dtype=np.float32)[tree.leaves], np.maximum(leaves, PAD),
  )  # fmt: skip
  no_path = np.full_like(leaves, tree.num_nodes - 1)
  wrong = right.replace(paths=np.full_like(leaves, PAD)[:, None], node_prob=1 - right.node_prob, raw_nodes=no_path)
  good, bad = (
    {name: np.mean(mean.value()) for name, mean in evaluate(p, batch, arrays).items()} for p in (right, wrong)
  )
  for name in BATCH_METRICS:
    metric = METRICS[name]
    if name == "mistake_severity_edges":
      assert np.isnan(good[name]) and bad[name] >= 1 and not metric.higher_is_better and metric.unit == "edges"
    else:
      assert metric.unit == "share" and (good[name] > bad[name]) == metric.higher_is_better, name
      assert good[name] == (1 if metric.higher_is_better else 0)


def test_a_metric_from_outside_stands_beside_those_of_the_table():
  mine = Metric(lambda j: j.best[:, 0] == j.labels[:, 0], lambda j: j.labels[:, 0] >= 0)
  both, alone = (
    jax.jit(functools.partial(evaluate_batch, metrics=metrics))
    for metrics in (BATCH_METRICS | {"mine": mine}, {"mine": mine})
  )
  plain = measured("stop")
  assert measured("stop", both) == plain | {"mine": plain["level_accuracy/0"]}
  assert measured("stop", alone) == {"mine": plain["level_accuracy/0"]}


def test_images_of_several_paths_are_refused():
  tree, prediction, batch, _ = judged("unknown")
  two = batch.replace(paths=np.repeat(batch.paths, 2, axis=1))
  with pytest.raises(UserError, match="2 label paths"):
    evaluate(prediction, two, tree_arrays(tree))


def test_a_mean_is_divided_once_and_padding_is_not_counted():
  of = jax.jit(Mean.of)
  a = of(np.float32([1, 0, np.nan]), np.float32([1, 1, 0]))
  b = of(np.float32([1]), np.float32([1]))
  assert (a + b).value() == pytest.approx(2 / 3)
  assert np.isnan(of(np.float32([1]), np.float32([0])).value())
