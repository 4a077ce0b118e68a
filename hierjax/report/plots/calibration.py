"""The reliability diagram: the accuracy of predicted nodes by their probability."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.ticker import PercentFormatter

from hierjax.evaluation.calibration import BINS, Calibration
from hierjax.report.plots.canvas import BLUE, GREY, Page


def draw_calibration(found: Calibration) -> bytes:
  """Returns a PNG: accuracy by probability, and the share of the nodes in each bin; all levels together."""
  nodes, probability, right = (part.sum(axis=0) for part in dataclasses.astuple(found))
  some = nodes > 0
  page = Page(9.6, 2.9)
  titles = ("Accuracy of the predicted nodes", "Share of the predicted nodes")
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
