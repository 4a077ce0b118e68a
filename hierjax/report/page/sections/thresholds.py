"""Answers by the confidence threshold: coverage, selective accuracy and levels, and images whose answers change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hierjax.evaluation.choosing.selective import GRID, Confidences
from hierjax.report.page.findings.findings import Findings
from hierjax.report.page.sections.charts import Chart, Series

_EXAMPLES = 12


def threshold_data(found: Findings) -> dict[str, Any] | None:
  """Returns the metrics of the answers at each threshold; None without probabilities, or without known labels."""
  if found.likely is None or not found.shortened.counted.any():
    return None
  grid = (0.0, *GRID)
  curve = Confidences.of(found.shortened).curve(grid)
  share = lambda value: None if value is None else round(value, 5)  # noqa: E731
  return {
    "grid": grid,
    "coverage": [share(at["coverage"]) for at in curve],
    "accuracy": [share(at["selective_accuracy"]) for at in curve],
    "levels": [list(map(share, at["level_coverage"])) for at in curve],
    "marks": list(found.thresholds.items()),
    "counted": int(found.shortened.counted.sum()),
  }


def trade_off_chart(data: Mapping[str, Any]) -> Chart:
  """Returns the chart of selective accuracy by coverage, of the result of `threshold_data`."""
  pairs = zip(data["coverage"], data["accuracy"], strict=True)
  points = sorted({(coverage, accuracy) for coverage, accuracy in pairs if accuracy is not None})
  least = min((accuracy for _, accuracy in points), default=0.0)
  return Chart(
    title="selective accuracy by coverage",
    summary=f"Selective accuracy by coverage, at {len(points)} thresholds; the numbers beside it are those of the dot",
    x="coverage: share with an answer",
    y="share of the answers that is right",
    x_range=(0.0, 1.0),
    y_range=(max(0.0, math.floor(10 * least) / 10 - 0.1 * (least == 1)), 1.0),
    series=[Series("these", "a", points)],
  )


def changing(found: Findings) -> list[int]:
  """Returns rows of images whose answers change at thresholds that are spread from 0 to 1."""
  if found.likely is None:
    return []
  rows = np.flatnonzero(found.shortened.counted & (found.shortened.paths >= 0).any(axis=1))
  confidence = found.shortened.end_probability[rows].astype(np.float64)
  chosen: list[int] = []
  for wanted in np.linspace(0.15, 0.99, min(_EXAMPLES, len(rows))):
    nearest = int(np.argmin(np.abs(confidence - wanted)))
    chosen.append(int(rows[nearest]))
    confidence[nearest] = np.inf
  return chosen
