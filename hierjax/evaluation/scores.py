"""Errors node by node, pair by pair and image by image; numpy, from the table of predictions."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from hierjax.evaluation.predictions import Predictions
from hierjax.tree.label_tree import UNKNOWN, LabelTree


@dataclasses.dataclass(frozen=True)
class NodeScores:
  """Counts a node, of the images whose label says whether they are of it; n nodes.

  Attributes:
    labelled: `i64[n]`, how many images are of the node, or of one below it.
    predicted: `i64[n]`, how many paths go through it.
    right: `i64[n]`, how many both.
  """

  labelled: Int[np.ndarray, "n"]
  predicted: Int[np.ndarray, "n"]
  right: Int[np.ndarray, "n"]

  @classmethod
  def of(cls, predictions: Predictions, tree: LabelTree) -> NodeScores:
    """Counts what is predicted at the levels that each label knows."""
    labels, paths = predictions.labels[predictions.counted], known_part(predictions)[predictions.counted]
    count = lambda nodes: np.bincount(nodes[nodes >= 0].ravel(), minlength=tree.num_nodes)  # noqa: E731
    return cls(count(labels), count(paths), count(np.where(labels == paths, labels, UNKNOWN)))

  def recall(self, node: int) -> float | None:
    """Returns the share of the images of a node whose path has the node; None where there are none."""
    return float(self.right[node] / self.labelled[node]) if self.labelled[node] else None

  def precision(self, node: int) -> float | None:
    """Returns the share of the paths with a node whose label has it; None where there are none."""
    return float(self.right[node] / self.predicted[node]) if self.predicted[node] else None


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Images of one label with the same wrong prediction.

  Attributes:
    label: the node that their label ends at.
    predicted: the node that their path ends at, at the levels that the label knows; -1 where there is no path.
    images: their numbers.
    share: of the images with this label.
    edges: of the tree between the two, see `distances`.
  """

  label: int
  predicted: int
  images: Int[np.ndarray, "m"]
  share: float
  edges: int


def known_part(predictions: Predictions) -> Int[np.ndarray, "n l"]:
  """Returns the predicted paths without what lies at levels that the label does not know."""
  return np.where(predictions.labels == UNKNOWN, UNKNOWN, predictions.paths)


def wrong(predictions: Predictions) -> Bool[np.ndarray, "n"]:
  """Returns which images count and have a wrong path."""
  return predictions.counted & ~predictions.right


def distances(predictions: Predictions) -> Int[np.ndarray, "n"]:
  """Returns the edges of the tree between each path's end and its label's, as `functional.metrics.distance` does."""
  labels, paths = predictions.labels, known_part(predictions)
  return ((labels != paths) * ((labels >= 0).astype(np.int64) + (paths >= 0))).sum(axis=1)


def mistakes_begin(predictions: Predictions) -> Int[np.ndarray, "l"]:
  """Returns how many wrong paths leave their label at each level."""
  differs = (predictions.labels != known_part(predictions)) & (
    (predictions.labels >= 0) | (known_part(predictions) >= 0)
  )
  first = differs[wrong(predictions)].argmax(axis=1)
  return np.bincount(first, minlength=differs.shape[1])


def confusions(predictions: Predictions) -> list[Confusion]:
  """Returns the pairs of a label and a wrong prediction, the most frequent first; then in the order of the tree."""
  images = np.flatnonzero(wrong(predictions))
  ends = [np.maximum(nodes[images].max(axis=1), -1) for nodes in (predictions.labels, known_part(predictions))]
  pairs, pair_of = np.unique(np.stack(ends, axis=1), axis=0, return_inverse=True)
  labelled, far, found = predictions.labels[predictions.counted].max(axis=1), distances(predictions), []
  for i, (label, end) in enumerate(pairs.tolist()):
    own = images[pair_of.ravel() == i]
    found.append(Confusion(label, end, own, len(own) / int((labelled == label).sum()), int(far[own[0]])))
  return sorted(found, key=lambda pair: -len(pair.images))


def confident_mistakes(predictions: Predictions) -> Int[np.ndarray, "m"]:
  """Returns the images whose path is wrong, by falling probability of the first node that is."""
  images = np.flatnonzero(wrong(predictions))
  differs = predictions.labels[images] != known_part(predictions)[images]
  confidence = np.where(predictions.paths[images] >= 0, predictions.probability[images], 0.0)
  first = confidence[np.arange(len(images)), differs.argmax(axis=1)]
  return images[np.argsort(-first, kind="stable")]
