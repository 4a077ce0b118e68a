"""Metrics: a value an example, and a mean that is divided once, at the end."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

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

  Where a label stops above a leaf and the rest is unknown, what is predicted there does not count.
  """
  right = jnp.where(paths >= 0, predicted == paths, (paths != STOP) | (predicted < 0))
  return right.all(axis=-1)


def share_of_right_nodes(predicted: Int[Array, "b l"], paths: Int[Array, "b l"]) -> Float[Array, "b"]:
  """Returns right nodes / known nodes of the label, the root excluded (READINGS K16)."""
  known = paths >= 0
  right = (known & (predicted == paths)).sum(axis=-1)
  return right.astype(jnp.float32) / jnp.maximum(known.sum(axis=-1), 1).astype(jnp.float32)


def distance(predicted: Int[Array, "b l"], paths: Int[Array, "b l"]) -> Float[Array, "b"]:
  """Returns how many edges of the tree lie between the ends of a predicted path and of the label's.

  These are the nodes of either path that the other has not. Where the rest of a label is not known, what is predicted
  there does not count.
  """
  differs = (predicted != paths).astype(jnp.float32)
  missed, added = paths >= 0, (predicted >= 0) & (paths != UNKNOWN)
  return (differs * (missed.astype(jnp.float32) + added.astype(jnp.float32))).sum(axis=-1)


def level_and_path_errors(
  prediction: Prediction, paths: Int[Array, "b l"]
) -> tuple[Bool[Array, "b l+1"], Bool[Array, "b l+1"]]:
  """Returns what is wrong, and what counts: `level_nodes` level by level, and last the best path.

  They count where `evaluate_batch` counts `level_accuracy` and `path_accuracy`.
  """
  known = paths >= 0
  right = jnp.concatenate(
    [prediction.level_nodes == paths, path_is_right(prediction.paths[:, 0], paths)[:, None]], axis=1
  )
  counted = jnp.concatenate([known, known.any(axis=1, keepdims=True)], axis=1)
  return counted & ~right, counted


def leaf_rank(node_prob: Float[Array, "b n"], nodes: Int[Array, "b"], tree: TreeArrays) -> Int[Array, "b"]:
  """Returns how many leaves come before the leaf `nodes`, by falling probability, equal ones by rising number.

  A leaf of probability 0 has not been predicted (a lower bound may say so) and comes last.
  """
  leaves = jnp.asarray(tree.leaves)[None]
  own = jnp.take_along_axis(node_prob, jnp.maximum(nodes, 0)[:, None], axis=1)
  prob = node_prob[:, leaves[0]]
  before = (prob > own) | ((prob == own) & (leaves < nodes[:, None]))
  return jnp.where(own[:, 0] > 0, before.sum(axis=1), tree.num_leaves)


def evaluate_batch(prediction: Prediction, batch: Batch, tree: TreeArrays) -> dict[str, Mean]:
  """Returns all metrics of a batch by name.

  - `path_accuracy`, `node_accuracy`: of the best decoded path, over examples of which any node is known; see
    `path_is_right` and `share_of_right_nodes`.
  - `mistake_distance`: how bad mistakes are: the mean of `distance` over the examples whose best path is wrong.
  - `level_accuracy`: of `level_nodes`, level by level, over the examples whose label has that level (READINGS A3).
  - `leaf_top1`, `leaf_top5`: whether the label's leaf is among the 1 or 5 leaves of highest node probability, over
    examples whose label ends at a leaf; see `leaf_rank`.
  - `raw_leave_rate`: how often `level_nodes`, up to where they end, are no path of the tree (READINGS G3), over all
    examples.

  Raises:
    ValueError: images may have several paths.
  """
  paths = single_path(batch.paths)
  best = prediction.paths[:, 0]
  end = ends(paths)
  offsets = jnp.asarray(tree.child_offsets)
  has_leaf = (end >= 0) & (offsets[end + 1] == offsets[end + 2])
  right = path_is_right(best, paths)
  rank = leaf_rank(prediction.node_prob, end, tree)

  def mean(values: Array, counted: Array | None = None) -> Mean:
    mask = batch.mask.reshape(-1, *(1,) * (values.ndim - 1))
    mask = jnp.broadcast_to(mask, values.shape) if counted is None else mask * counted.astype(jnp.float32)
    return Mean.of(values.astype(jnp.float32), mask)

  return {
    "path_accuracy": mean(right, end >= 0),
    "node_accuracy": mean(share_of_right_nodes(best, paths), end >= 0),
    "mistake_distance": mean(distance(best, paths), (end >= 0) & ~right),
    "level_accuracy": mean(prediction.level_nodes == paths, paths >= 0),
    "leaf_top1": mean(rank < 1, has_leaf),
    "leaf_top5": mean(rank < 5, has_leaf),
    "raw_leave_rate": mean(~are_walks(prediction.level_nodes, tree)),
  }
