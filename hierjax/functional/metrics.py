"""Metrics: a value an example, and a mean that is divided once, at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hierjax.config import lookup_or_import
from hierjax.functional.paths import are_walks, ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import STOP, UNKNOWN
from hierjax.types import Batch, Leaf, Prediction


@struct.dataclass
class Mean:
  """A sum and a count, or one of each a level; they add up over batches and devices.

  Attributes:
    total: `f32[]` or `f32[l]`.
    count: the same.
  """

  total: Leaf
  count: Leaf

  @classmethod
  def of(cls, values: Float[Array, "b *l"], mask: Float[Array, "b *l"]) -> Mean:
    """Returns the mean of `values` weighted by `mask`, over the examples."""
    return cls(total=jnp.where(mask > 0, values * mask, 0.0).sum(axis=0), count=mask.sum(axis=0))

  def __add__(self, other: Mean) -> Mean:
    return Mean(self.total + other.total, self.count + other.count)

  def value(self) -> float | list[float]:
    """Returns the mean, or a list of one a level; nan where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
      return (np.asarray(self.total) / np.asarray(self.count)).tolist()


def path_is_right(predicted: Int[Array, "b l"], paths: Int[Array, "b l"]) -> Bool[Array, "b"]:
  """Returns whether all known nodes are right, and the path ends where the label says STOP.

  Where the rest of a label is unknown, nodes predicted there do not count.
  """
  right = jnp.where(paths >= 0, predicted == paths, (paths != STOP) | (predicted < 0))
  return right.all(axis=-1)


def share_of_right_nodes(predicted: Int[Array, "b l"], paths: Int[Array, "b l"]) -> Float[Array, "b"]:
  """Returns right nodes / known nodes of the label, the root excluded (READINGS K16)."""
  known = paths >= 0
  right = (known & (predicted == paths)).sum(axis=-1)
  return right.astype(jnp.float32) / jnp.maximum(known.sum(axis=-1), 1).astype(jnp.float32)


def distance(predicted: Int[Array, "b l"], paths: Int[Array, "b l"]) -> Float[Array, "b"]:
  """Returns the edges of the tree between the end of a predicted path and the label's end.

  They are as many as the nodes of either path that the other does not have. Where the rest of a label is unknown, nodes
  predicted there do not count.
  """
  differs = (predicted != paths).astype(jnp.float32)
  missed, added = paths >= 0, (predicted >= 0) & (paths != UNKNOWN)
  return (differs * (missed.astype(jnp.float32) + added.astype(jnp.float32))).sum(axis=-1)


def level_and_path_counts(paths: Int[Array, "b l"]) -> Bool[Array, "b l+1"]:
  """Returns which labels count: level by level, where the level is known, and last where any level is."""
  known = paths >= 0
  return jnp.concatenate([known, known.any(axis=1, keepdims=True)], axis=1)


def level_and_path_errors(
  prediction: Prediction, paths: Int[Array, "b l"]
) -> tuple[Bool[Array, "b l+1"], Bool[Array, "b l+1"]]:
  """Returns the errors of `raw_nodes` level by level, and last of the best path; and which of them count.

  They count where `raw_level_accuracy` and `path_accuracy` do; see `level_and_path_counts`.
  """
  right = jnp.concatenate(
    [prediction.raw_nodes == paths, path_is_right(prediction.paths[:, 0], paths)[:, None]], axis=1
  )
  counted = level_and_path_counts(paths)
  return counted & ~right, counted


def leaf_rank(node_prob: Float[Array, "b n"], nodes: Int[Array, "b"], tree: TreeArrays) -> Int[Array, "b"]:
  """Returns how many leaves come before the leaf `nodes`, by falling probability, equal ones by rising number.

  A leaf of probability 0 has a rank that is larger than any: where probabilities are lower bounds, no path to it was
  found.
  """
  leaves = jnp.asarray(tree.leaves)[None]
  own = jnp.take_along_axis(node_prob, jnp.maximum(nodes, 0)[:, None], axis=1)
  prob = node_prob[:, leaves[0]]
  before = (prob > own) | ((prob == own) & (leaves < nodes[:, None]))
  return jnp.where(own[:, 0] > 0, before.sum(axis=1), jnp.iinfo(jnp.int32).max)


@struct.dataclass
class Judged:
  """The facts about a batch of single-path predictions from which all metrics are computed.

  Attributes:
    labels: `i32[b l]`, the label paths.
    best: `i32[b l]`, the best decoded paths.
    raw: `i32[b l]`, `Prediction.raw_nodes`.
    known: `bool[b]`, whether any node of the label is known.
    right: `bool[b]`, whether the best path is right; see `path_is_right`.
    has_leaf: `bool[b]`, whether the label ends at a leaf.
    leaf_rank: `i32[b]`, the rank of that leaf by node probability, from 0; see `leaf_rank`.
    raw_is_path: `bool[b]`, whether the raw nodes are a path of the tree.
  """

  labels: Leaf
  best: Leaf
  raw: Leaf
  known: Leaf
  right: Leaf
  has_leaf: Leaf
  leaf_rank: Leaf
  raw_is_path: Leaf


class Metric(NamedTuple):
  """One metric: an entry of `BATCH_METRICS`.

  Attributes:
    values: `Judged -> [b]`, or `[b l]` for a metric by level: the value of each example.
    counted: the same: whether the example counts.
  """

  values: Callable[[Judged], Array]
  counted: Callable[[Judged], Array]


BATCH_METRICS: dict[str, Metric] = {
  "path_accuracy": Metric(lambda j: j.right, lambda j: j.known),
  "node_accuracy": Metric(lambda j: share_of_right_nodes(j.best, j.labels), lambda j: j.known),
  "mistake_severity_edges": Metric(lambda j: distance(j.best, j.labels), lambda j: j.known & ~j.right),
  "level_accuracy": Metric(lambda j: j.best == j.labels, lambda j: j.labels >= 0),
  "raw_level_accuracy": Metric(lambda j: j.raw == j.labels, lambda j: j.labels >= 0),
  "leaf_top1": Metric(lambda j: j.leaf_rank < 1, lambda j: j.has_leaf),
  "leaf_top5": Metric(lambda j: j.leaf_rank < 5, lambda j: j.has_leaf),
  "inconsistent_predictions": Metric(lambda j: ~j.raw_is_path, lambda j: jnp.ones_like(j.known)),
}
"""Those of validation during training; `hierjax.evaluation.metrics.table` defines these and all others."""


def metrics_with(names: Sequence[str]) -> dict[str, Metric]:
  """Returns `BATCH_METRICS` and further metrics, given as `package.module:thing`; their names are `thing`.

  Raises:
    UserError: there is no such module or thing.
  """
  return BATCH_METRICS | {name.rpartition(":")[2]: lookup_or_import(BATCH_METRICS, name, "metrics") for name in names}


def judge(prediction: Prediction, labels: Int[Array, "b l"], tree: TreeArrays) -> Judged:
  """Returns the facts about the predictions for images with these label paths."""
  best, end, offsets = prediction.paths[:, 0], ends(labels), jnp.asarray(tree.child_offsets)
  return Judged(
    labels=labels,
    best=best,
    raw=prediction.raw_nodes,
    known=end >= 0,
    right=path_is_right(best, labels),
    has_leaf=(end >= 0) & (offsets[end + 1] == offsets[end + 2]),
    leaf_rank=leaf_rank(prediction.node_prob, end, tree),
    raw_is_path=are_walks(prediction.raw_nodes, tree),
  )


def evaluate_batch(
  prediction: Prediction, batch: Batch, tree: TreeArrays, metrics: Mapping[str, Metric] = BATCH_METRICS
) -> dict[str, Mean]:
  """Returns the metrics of a batch by name, each the mean over the examples that count.

  Raises:
    UserError: images may have several paths.
  """
  judged = judge(prediction, single_path(batch.paths), tree)

  def mean(metric: Metric) -> Mean:
    values, counted = metric.values(judged), metric.counted(judged)
    mask = batch.mask.reshape(-1, *(1,) * (values.ndim - 1))
    return Mean.of(values.astype(jnp.float32), mask * counted.astype(jnp.float32))

  return {name: mean(metric) for name, metric in metrics.items()}
