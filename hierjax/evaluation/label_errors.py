"""Labels that are likely wrong, level by level: confident learning (Northcutt, Jiang and Chuang 2021); numpy.

At a level, t(j) is the mean probability of node j over the images with the label j. An image is counted as one of j
where j is the most probable node among those with p(j) >= t(j); the counts by label and j are the paper's confident
joint (equations 1 and 2). The images off its diagonal are those whose label is likely wrong. They are ranked by their
normalised margin, p(label) less the largest probability of another node, the least first (section 3.2 there).

The probabilities must be of images that the model was not trained on.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from hierjax.evaluation.likely_nodes import LikelyNodes
from hierjax.tree.label_tree import LabelTree

NONE = -1  # in place of a node, where the label is not questioned


@dataclasses.dataclass(frozen=True)
class LabelErrors:
  """Which labels of n images are likely wrong at each of l levels.

  Attributes:
    suggested: `i32[n l]`, the node that the image more likely is; NONE where the label is not questioned, or unknown.
    label: `f64[n l]`, the probability of the label's node; 0 where it is unknown.
    margin: `f64[n l]`, that less the largest probability of another node of the level; inf where it is unknown.
  """

  suggested: Int[np.ndarray, "n l"]
  label: Float[np.ndarray, "n l"]
  margin: Float[np.ndarray, "n l"]

  def first_level(self) -> Int[np.ndarray, "n"]:
    """Returns the topmost level at which each label is questioned; -1 where it is at none."""
    doubted = self.suggested != NONE
    return np.where(doubted.any(axis=1), doubted.argmax(axis=1), -1)

  def at(self, level: int) -> Int[np.ndarray, "m"]:
    """Returns the images whose label is questioned at a level and not above it, the smallest margin first."""
    images = np.flatnonzero(self.first_level() == level)
    return images[np.argsort(self.margin[images, level], kind="stable")]


def label_errors(
  labels: Int[np.ndarray, "n l"], own: Float[np.ndarray, "n l"], likely: LikelyNodes, tree: LabelTree
) -> LabelErrors:
  """Returns which labels are likely wrong.

  Args:
    labels: the label paths; negative where a level is not known.
    own: the probability of each node of the label.
    likely: the most probable nodes of each level. A node that is not among them counts as less probable than its t.
    tree: the tree.
  """
  found = [
    _at_level(
      labels[:, t] - first, own[:, t].astype(np.float64), _local(likely.nodes[:, t], first), likely.probability[:, t]
    )
    for t, first in enumerate(tree.level_offsets[:-1])
  ]
  suggested, margin = (np.stack(part, axis=1) for part in zip(*found, strict=True))
  firsts = np.asarray(tree.level_offsets[:-1], np.int32)
  return LabelErrors(
    np.where(suggested == NONE, NONE, suggested + firsts).astype(np.int32),
    np.where(labels >= 0, own, 0.0).astype(np.float64),
    margin,
  )


def _local(nodes: Int[np.ndarray, "n k"], first: int) -> Int[np.ndarray, "n k"]:
  return np.where(nodes >= 0, nodes - first, NONE)


def thresholds(labels: Int[np.ndarray, "n"], own: Float[np.ndarray, "n"], count: int) -> Float[np.ndarray, "i"]:
  """Returns t of each of `count` nodes: its mean probability over the images with this label; inf without images.

  Args:
    labels: the number of each label's node within its level; negative for none.
    own: the probability of that node.
    count: the nodes of the level.
  """
  known = labels >= 0
  sums, images = (np.bincount(labels[known], weights, minlength=count) for weights in (own[known], None))
  return np.divide(sums, images, out=np.full(count, np.inf), where=images > 0)


def _at_level(
  labels: Int[np.ndarray, "n"], own: Float[np.ndarray, "n"], nodes: Int[np.ndarray, "n k"], probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the suggested node within the level, NONE where there is none, and the margin."""
  known, count = labels >= 0, int(max(labels.max(initial=0), nodes.max(initial=0))) + 1
  least = np.append(thresholds(np.where(known, labels, NONE), own, count), np.inf)  # the last one is of NONE
  passes = probability.astype(np.float64) >= least[nodes]
  best = nodes[np.arange(len(nodes)), passes.argmax(axis=1)]
  doubted = known & passes.any(axis=1) & (best != labels)
  others = np.where(nodes == labels[:, None], 0.0, probability).max(axis=1, initial=0.0)
  return np.where(doubted, best, NONE), np.where(known, own - others, np.inf)
