"""How far the probabilities of a run can be believed: of the nodes that it gives 90%, are 90% right? In numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from matplotlib.ticker import PercentFormatter

from hierjax.evaluation.predictions import Judged
from hierjax.evaluation.scores import known_part
from hierjax.report.plots.canvas import BLUE, GREY, Page

BINS = 15  # of one width, as in Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks"


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
  def of(cls, judged: Judged) -> Calibration:
    """Counts what a run says of the images whose label is known."""
    paths, labels = known_part(judged)[judged.counted], judged.labels[judged.counted]
    sure = judged.probability[judged.counted].astype(np.float64)
    levels = paths.shape[1]
    bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1) + BINS * np.arange(levels)
    said = paths >= 0

    def per_bin(weights: np.ndarray) -> np.ndarray:
      sums = np.bincount(bins[said], weights[said], minlength=levels * BINS)
      return sums.reshape(levels, BINS).astype(np.float64)  # of nothing, bincount counts in integers

    counts = [per_bin(part).astype(np.int64) for part in (said, said & (paths == labels))]
    return cls(counts[0], per_bin(sure), counts[1])

  def row(self, levels: slice) -> tuple[int, float | None, float | None, float | None]:
    """Returns of some levels: how many nodes, their mean probability, the share that is right, and the error.

    That is the expected calibration error, the mean over the nodes of the difference between the last two within a
    node's bin (equation 3 of the paper), where a level has bins of its own. Each is from 0 to 1, or None where there
    are no nodes.
    """
    nodes = int(self.nodes[levels].sum())
    sums = (part[levels].sum() for part in (self.probability, self.right, np.abs(self.right - self.probability)))
    probability, right, error = (float(total) / nodes if nodes else None for total in sums)
    return nodes, probability, right, error


def draw_calibration(found: Calibration) -> bytes:
  """Returns a PNG: the share that is right by probability, and how many nodes have each; all levels together."""
  nodes, probability, right = (part.sum(axis=0) for part in dataclasses.astuple(found))
  some = nodes > 0
  page = Page(9.6, 2.9)
  titles = ("How many of the nodes are right", "How many nodes are that probable")
  left, other = (page.plot(0.55 + i * 4.4, 0.3, 3.7, 2.1) for i in range(2))
  left.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, dashes=(4, 3))
  left.plot(
    probability[some] / nodes[some],
    right[some] / nodes[some],
    color=BLUE,
    marker="o",
    markersize=3,
    linewidth=1.2,
    clip_on=False,
  )
  left.set_ylim(0, 1)
  other.bar((np.arange(BINS) + 0.5) / BINS, nodes / max(nodes.sum(), 1), 0.9 / BINS, color=BLUE)
  for i, axes in enumerate((left, other)):
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    page.text(0.55 + i * 4.4, 0.05, titles[i], width=3.7, size=10.0, bold=True)
    page.text(0.55 + i * 4.4, 2.65, "probability of the node", width=3.7, align="center")
  return page.png()
