"""The facts about predictions that several metrics share, and samples of the images; numpy."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from hierjax.evaluation.calibration import BINS, bins_of
from hierjax.evaluation.metrics.scored import Scored
from hierjax.evaluation.metrics.tree_table import TreeTable, last_common
from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.scores import distances, known_part
from hierjax.tree.label_tree import UNKNOWN

Sparse = Any  # a `scipy.sparse.csr_matrix`; scipy is imported where one is made, since that takes a fifth of a second


class Events(NamedTuple):
  """What changes as the confidence threshold falls: a node more in the answer for an image, i in all, in that order.

  Attributes:
    image: `i64[i]`, the row among the images that count.
    deltas: `f64[4 i]`, the change of its number of answers, of wrong answers, of the information of its answer, and of
      the share of the label's information that the answer has.
    last: `i64[g]`, the last event of each threshold.
  """

  image: Int[np.ndarray, "i"]
  deltas: Float[np.ndarray, "4 i"]
  last: Int[np.ndarray, "g"]


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
  """The facts about predictions for n images.

  Attributes:
    scored: a row an image.
    table: of the tree.
    count_root: whether hierarchical precision and recall count the root as a node of every path.
  """

  scored: Scored
  table: TreeTable
  count_root: bool = False

  @property
  def predictions(self) -> Predictions:
    """The best paths beside the labels."""
    return self.scored.predictions

  @functools.cached_property
  def known(self) -> Bool[np.ndarray, "n l"]:
    """Which levels of the labels are known."""
    found: np.ndarray = self.predictions.labels >= 0
    return found

  @functools.cached_property
  def answered(self) -> Int[np.ndarray, "n l"]:
    """The predicted nodes, at the levels that the labels know."""
    return known_part(self.predictions)

  @functools.cached_property
  def label_ends(self) -> Int[np.ndarray, "n"]:
    """The node at which each label ends; -1 for unknown labels."""
    return np.maximum(self.predictions.labels.max(axis=1, initial=-1), -1)

  @functools.cached_property
  def has_leaf(self) -> Bool[np.ndarray, "n"]:
    """Whether each label ends at a leaf."""
    return (self.label_ends >= 0) & (self.table.height[self.label_ends + 1] == 0)

  @functools.cached_property
  def mistaken(self) -> Bool[np.ndarray, "n"]:
    """Which images count and have a wrong path."""
    return self.predictions.counted & ~self.predictions.right

  @functools.cached_property
  def edges(self) -> Float[np.ndarray, "n"]:
    """The edges of the tree between the ends of path and label."""
    return distances(self.predictions).astype(np.float64)

  @functools.cached_property
  def lca_height(self) -> Float[np.ndarray, "n"]:
    """The height of the lowest common ancestor of these ends; 0 for right paths."""
    common = last_common(self.predictions.labels, self.answered)
    return np.where(self.predictions.right, 0.0, self.table.height[common + 1])

  @functools.cached_property
  def set_sizes(self) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """The nodes that path and label share, those of the path and those of the label, the root among them by flag."""
    shared = self.known & (self.answered == self.predictions.labels)
    counts = [nodes.sum(axis=1) + float(self.count_root) for nodes in (shared, self.answered >= 0, self.known)]
    return counts[0], counts[1], counts[2]

  @functools.cached_property
  def by_confidence(self) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "g"]]:
    """The images that count by falling confidence in their path, and where each group of equal confidence begins."""
    rows = np.flatnonzero(self.predictions.counted)
    falling = -self.predictions.end_probability[rows]
    order = np.argsort(falling, kind="stable")
    return rows[order], np.flatnonzero(np.diff(falling[order], prepend=-np.inf) > 0)

  @functools.cached_property
  def node_members(self) -> list[tuple[Sparse, Sparse]]:
    """For each level, the images whose path has the node of their label there, and all its images: `f64[nodes n]`."""
    from scipy.sparse import csr_matrix

    found, (labels, paths) = [], (self.predictions.labels, self.predictions.paths)
    for t in range(labels.shape[1]):
      rows = np.flatnonzero(labels[:, t] >= 0)
      nodes, of = np.unique(labels[rows, t], return_inverse=True)
      shape, right = (len(nodes), len(labels)), (labels[rows, t] == paths[rows, t]).astype(np.float64)
      found.append((csr_matrix((right, (of, rows)), shape), csr_matrix((np.ones(len(rows)), (of, rows)), shape)))
    return found

  @functools.cached_property
  def errors_by_bin(self) -> tuple[Sparse, Float[np.ndarray, "n l"]]:
    """Each predicted node's [right] - probability in the row of its bin, `f64[l x bins n]`; and which there are."""
    from scipy.sparse import csr_matrix

    predictions = self.predictions
    said = (self.answered >= 0) & predictions.counted[:, None]
    probability = predictions.probability.astype(np.float64)
    off = np.where(said, (self.answered == predictions.labels) - probability, 0.0)
    image, level = np.nonzero(said)
    row = level * BINS + bins_of(probability)[image, level]
    return csr_matrix((off[image, level], (row, image)), (said.shape[1] * BINS, len(said))), said.astype(np.float64)

  @functools.cached_property
  def events(self) -> Events:
    """The events of a falling confidence threshold, for the images that count."""
    rows = np.flatnonzero(self.predictions.counted)
    paths, labels = self.predictions.paths[rows], self.predictions.labels[rows]
    agrees = np.where(labels >= 0, paths == labels, (labels == UNKNOWN) | (paths < 0))
    right = np.logical_and.accumulate(agrees, axis=1)
    first_wrong = ~right & np.concatenate([np.ones_like(right[:, :1]), right[:, :-1]], axis=1)
    own = np.where(paths >= 0, self.table.information[paths + 1], 0.0)
    shared = np.where(right & (labels >= 0), own, 0.0)
    whole = self.table.information[self.label_ends[rows] + 1][:, None]
    gains = [_steps(own), np.divide(_steps(np.maximum.accumulate(shared, axis=1)), whole, where=whole > 0,
                                    out=np.zeros(own.shape))]  # fmt: skip
    changes = np.stack([_steps(np.ones(own.shape)), first_wrong, *gains])
    confidence = np.minimum.accumulate(self.predictions.probability[rows], axis=1)
    image, level = np.nonzero(paths >= 0)
    order = np.argsort(-confidence[image, level], kind="stable")
    image, level = image[order], level[order]
    last = np.flatnonzero(np.diff(-confidence[image, level], append=np.inf) > 0)
    return Events(rows[image], changes[:, image, level], last)


def _steps(values: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "n l"]:
  return np.diff(values, axis=1, prepend=0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
  """Samples of the images: how often each image is in each sample.

  Attributes:
    facts: about all images.
    weights: `f64[k n]`, whole numbers; one row of ones for the images as they are.
  """

  facts: Facts
  weights: Float[np.ndarray, "k n"]

  def mean(self, values: Shaped[np.ndarray, "n *l"], counted: Bool[np.ndarray, "n *l"]) -> Float[np.ndarray, "k *l"]:
    """Returns the mean of the values that count; nan where none does."""
    return self.ratio(np.where(counted, values, 0.0), counted)

  def ratio(self, parts: Shaped[np.ndarray, "n *l"], of: Shaped[np.ndarray, "n *l"]) -> Float[np.ndarray, "k *l"]:
    """Returns the sum of `parts` over the sum of `of`; nan where that is 0."""
    return divided(self.weights @ np.asarray(parts, np.float64), self.weights @ np.asarray(of, np.float64))

  @functools.cached_property
  def counted(self) -> Float[np.ndarray, "k"]:
    """How many images of each sample have a known label."""
    return self.weights @ np.asarray(self.facts.predictions.counted, np.float64)

  @functools.cached_property
  def by_confidence(self) -> tuple[Float[np.ndarray, "k g"], Float[np.ndarray, "k g"]]:
    """How many images that count have each confidence in their path, falling, and how many of them a wrong one."""
    order, starts = self.facts.by_confidence
    weights = np.take(self.weights, order, axis=1)
    wrong = weights * self.facts.mistaken[order]
    if len(starts) < len(order):
      weights, wrong = np.add.reduceat(weights, starts, axis=1), np.add.reduceat(wrong, starts, axis=1)
    return weights, wrong

  @functools.cached_property
  def curve(self) -> Float[np.ndarray, "k 4 g"]:
    """The number of answers, of wrong ones, their information and recall of information, at each threshold."""
    events = self.facts.events
    own, found = np.take(self.weights, events.image, axis=1), np.empty((len(self.weights), 4, len(events.last)))
    sums = np.empty_like(own)
    for row, delta in enumerate(events.deltas):
      np.cumsum(np.multiply(own, delta, out=sums), axis=1, out=sums)
      np.take(sums, events.last, axis=1, out=found[:, row])
    return found


def divided(above: Float[np.ndarray, "*b"], below: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
  """Returns a quotient; nan where the divisor is 0."""
  return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
