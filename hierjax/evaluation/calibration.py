"""Calibration: the accuracy of predicted nodes by probability, and the expected calibration error (ECE); numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.scores import known_part

BINS = 15  # of one width, as in Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks"


def bins_of(probability: Float[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
  """Returns the bin of each probability, which is above the lower end of its bin; 0 is in the first one."""
  return np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Of the nodes of predicted paths, at the levels that the label knows: counts and sums by level and by probability.

  Attributes:
    nodes: `i64[l k]`, how many have a probability in each bin.
    probability: `f64[l k]`, the sum of theirs.
    right: `i64[l k]`, how many are of the label's path.
  """

  nodes: Int[np.ndarray, "l k"]
  probability: Float[np.ndarray, "l k"]
  right: Int[np.ndarray, "l k"]

  @classmethod
  def of(cls, predictions: Predictions) -> Calibration:
    """Counts the predicted nodes of the images whose label is known."""
    paths, labels = known_part(predictions)[predictions.counted], predictions.labels[predictions.counted]
    probability = predictions.probability[predictions.counted].astype(np.float64)
    levels = paths.shape[1]
    bins = bins_of(probability) + BINS * np.arange(levels)
    said = paths >= 0

    def per_bin(weights: np.ndarray) -> np.ndarray:
      sums = np.bincount(bins[said], weights[said], minlength=levels * BINS)
      return sums.reshape(levels, BINS).astype(np.float64)  # of nothing, bincount counts in integers

    counts = [per_bin(part).astype(np.int64) for part in (said, said & (paths == labels))]
    return cls(counts[0], per_bin(probability), counts[1])

  def row(self, levels: slice) -> tuple[int, float | None, float | None, float | None]:
    """Returns of some levels: how many nodes, their mean probability, their accuracy, and the error.

    That is the expected calibration error, the mean over the nodes of the difference between the last two within a
    node's bin (equation 3 of the paper), where a level has bins of its own. Each is from 0 to 1, or None where there
    are no nodes.
    """
    nodes = int(self.nodes[levels].sum())
    sums = (part[levels].sum() for part in (self.probability, self.right, np.abs(self.right - self.probability)))
    probability, right, error = (float(total) / nodes if nodes else None for total in sums)
    return nodes, probability, right, error
