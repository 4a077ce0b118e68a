"""What metrics read of predictions: a row an image, so that no array of images x nodes is kept; numpy."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from hierjax.evaluation.metrics.tree_table import TreeTable, last_common
from hierjax.evaluation.predictions import Predictions
from hierjax.tree.given import span
from hierjax.tree.label_tree import PAD, STOP
from hierjax.types import Leaf, Prediction

TOP = (1, 5, 20)  # leaves of the hierarchical distances
NOT_FOUND = np.iinfo(np.int64).max  # the rank of a node of probability 0
_AT_ONCE = 2**22  # probabilities that are looked at together


@struct.dataclass
class ProbabilityScores:
  """What the probabilities of all nodes say of n images on l levels.

  Attributes:
    label: `f32[n l]`, the probability of each node of the label; 0 where there is none.
    level_rank: `i64[n l]`, how many nodes of its level come before it; NOT_FOUND where its probability is 0.
    leaf_rank: `i64[n]`, how many leaves come before the leaf at which the label ends; NOT_FOUND as above.
    squares: `f64[n l]`, the sum of the squared probabilities of the nodes of a level and of the leaves above it.
    leaf_squares: `f64[n]`, the same of all leaves.
    heights: `f64[n k]`, the mean height of the lowest common ancestor of the label and the 1, 5, 20 most probable
      leaves (TOP); of all leaves, where there are fewer.
  """

  label: Leaf
  level_rank: Leaf
  leaf_rank: Leaf
  squares: Leaf
  leaf_squares: Leaf
  heights: Leaf


@struct.dataclass
class Scored:
  """The predictions for n images beside their labels, with what their probabilities say.

  Attributes:
    predictions: the best paths.
    raw: `i32[n l]`, `Prediction.raw_nodes`.
    raw_is_path: `bool[n]`, whether they are a path of the tree.
    nodes: from the probabilities of all nodes; None for predictions without probabilities.
    raw_consistent: static; whether `raw` can only be a path.
  """

  predictions: Predictions
  raw: Leaf
  raw_is_path: Leaf
  nodes: ProbabilityScores | None
  raw_consistent: bool = struct.field(pytree_node=False, default=False)


def score(prediction: Prediction, labels: Int[np.ndarray, "n l"], table: TreeTable) -> Scored:
  """Returns the rows of images.

  Args:
    prediction: theirs, as numpy's arrays; `node_prob` may be None.
    labels: the label paths.
    table: of the tree.
  """
  count = len(labels)
  rows = max(1, _AT_ONCE // table.tree.num_nodes) if prediction.node_prob is not None else max(count, 1)
  return joined([_score(prediction, labels, table, slice(i, i + rows)) for i in range(0, max(count, 1), rows)])


def joined(parts: Sequence[Scored]) -> Scored:
  """Returns the rows of several batches, one batch after the other."""
  found: Scored = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
  return found


def _score(prediction: Prediction, labels: Int[np.ndarray, "n l"], table: TreeTable, rows: slice) -> Scored:
  labels, best, raw = labels[rows], prediction.paths[rows, 0], prediction.raw_nodes[rows]
  node_prob = None if prediction.node_prob is None else prediction.node_prob[rows]
  end = np.maximum(labels.max(axis=1, initial=-1), -1)
  zeros = np.zeros(best.shape, np.float32)
  probability = zeros if node_prob is None else _taken(node_prob, best)
  nodes = None if node_prob is None else _node_scores(node_prob, labels, end, table)
  return Scored(
    predictions=Predictions(
      counted=end >= 0,
      right=is_right(best, labels),
      some_right=((labels >= 0) & (best == labels)).any(axis=1),
      labels=labels,
      paths=best,
      probability=probability,
      stop=np.asarray(prediction.stop_prob[rows, 0]),
      label_probability=zeros[:, 0] if node_prob is None else _taken(node_prob, end[:, None])[:, 0],
    ),
    raw=raw,
    raw_is_path=_is_path(raw, table),
    nodes=nodes,
    raw_consistent=prediction.raw_consistent,
  )


def is_right(predicted: Int[np.ndarray, "n l"], labels: Int[np.ndarray, "n l"]) -> Bool[np.ndarray, "n"]:
  """Returns whether all known nodes are right and the path ends where the label says STOP."""
  right: np.ndarray = np.where(labels >= 0, predicted == labels, (labels != STOP) | (predicted < 0)).all(axis=1)
  return right


def _taken(node_prob: Float[np.ndarray, "b n"], nodes: Int[np.ndarray, "b k"]) -> Float[np.ndarray, "b k"]:
  found = np.take_along_axis(node_prob, np.maximum(nodes, 0), axis=1)
  return np.where(nodes >= 0, found, np.float32(0))


def _is_path(nodes: Int[np.ndarray, "b l"], table: TreeTable) -> Bool[np.ndarray, "b"]:
  """Returns whether nodes, up to the first token, lead from the top level down from parent to child."""
  going = np.logical_and.accumulate(nodes >= 0, axis=1)
  above = np.concatenate([np.full_like(nodes[:, :1], -1), nodes[:, :-1]], axis=1)
  steps = table.tree.parent[np.maximum(nodes, 0)] == above
  found: np.ndarray = (steps | ~going).all(axis=1) & going[:, 0]
  return found


def _node_scores(
  node_prob: Float[np.ndarray, "b n"], labels: Int[np.ndarray, "b l"], end: Int[np.ndarray, "b"], table: TreeTable
) -> ProbabilityScores:
  tree, own = table.tree, _taken(node_prob, labels)
  blocks = [node_prob[:, first:last] for first, last in zip(tree.level_offsets, tree.level_offsets[1:], strict=False)]
  level_rank = [
    _rank(block, own[:, t], labels[:, t] - tree.level_offsets[t]) for t, block in enumerate(blocks)
  ]  # fmt: skip
  is_leaf = np.diff(tree.child_offsets)[1:] == 0
  leaf_prob = node_prob[:, span(tree.leaves)]
  at = np.where((end >= 0) & is_leaf[end], np.searchsorted(tree.leaves, end), -1)
  of_leaves = [_squares(block, is_leaf[first:]) for block, first in zip(blocks, tree.level_offsets, strict=False)]
  early = np.cumsum([np.zeros(len(end)), *of_leaves], axis=0)
  return ProbabilityScores(
    label=own,
    level_rank=np.stack(level_rank, axis=1),
    leaf_rank=_rank(leaf_prob, _taken(leaf_prob, at[:, None])[:, 0], at),
    squares=np.stack([_sum_of_squares(block) + early[t] for t, block in enumerate(blocks)], axis=1),
    leaf_squares=early[-1],
    heights=_heights(leaf_prob, end, table),
  )


def _sum_of_squares(block: Float[np.ndarray, "b i"]) -> Float[np.ndarray, "b"]:
  return np.einsum("bi,bi->b", block, block).astype(np.float64)


def _squares(block: Float[np.ndarray, "b i"], is_leaf: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "b"]:
  return _sum_of_squares(block[:, is_leaf[: block.shape[1]]])


def _rank(
  block: Float[np.ndarray, "b i"], own: Float[np.ndarray, "b"], at: Int[np.ndarray, "b"]
) -> Int[np.ndarray, "b"]:
  """Returns how many entries come before entry `at`, by falling probability, equal ones in their order."""
  before = (block > own[:, None]).sum(axis=1)
  equal = (block == own[:, None]) & (np.arange(block.shape[1]) < at[:, None])
  return np.where(own > 0, before + equal.sum(axis=1), NOT_FOUND)


def _heights(
  leaf_prob: Float[np.ndarray, "b m"], end: Int[np.ndarray, "b"], table: TreeTable
) -> Float[np.ndarray, "b k"]:
  best = table.tree.leaves[most_probable(leaf_prob, max(TOP))]
  label = np.where(end[:, None] >= 0, table.paths[np.maximum(end, 0)], PAD)
  common = last_common(np.broadcast_to(label[:, None], (*best.shape, table.depth)), table.paths[best])
  height = np.where(best == end[:, None], 0, table.height[common + 1])
  return np.stack([height[:, :k].mean(axis=1) for k in TOP], axis=1)


def most_probable(prob: Float[np.ndarray, "b m"], count: int) -> Int[np.ndarray, "b k"]:
  """Returns the most probable entries, best first, equal ones in their order; all m, where there are fewer."""
  count = min(count, prob.shape[1])
  if count == prob.shape[1]:
    return np.argsort(-prob, axis=1, kind="stable")
  found = np.sort(np.argpartition(-prob, count - 1, axis=1)[:, :count], axis=1)
  chosen = np.take_along_axis(prob, found, axis=1)
  least = chosen.min(axis=1)
  for row in np.flatnonzero((prob == least[:, None]).sum(axis=1) > (chosen == least[:, None]).sum(axis=1)):
    above = np.flatnonzero(prob[row] > least[row])
    equal = np.flatnonzero(prob[row] == least[row])[: count - len(above)]
    found[row] = np.sort(np.concatenate([above, equal]))
  order = np.argsort(-np.take_along_axis(prob, found, axis=1), axis=1, kind="stable")
  return np.take_along_axis(found, order, axis=1)
