"""The charts of calibration, and of learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hierjax.evaluation.calibration import Calibration
from hierjax.evaluation.tables import percent
from hierjax.report.page.findings.findings import Findings
from hierjax.report.page.sections.charts import Chart, Series


def calibration(found: Findings) -> dict[str, Any] | None:
  """Returns the calibration as a table, a row a level and one of all, and a chart each; None without probabilities."""
  counts = Calibration.of(found.predictions)
  if found.likely is None or not counts.nodes.sum():
    return None
  names = found.tree.named_levels
  levels = {"all levels": slice(None)} | {name: slice(i, i + 1) for i, name in enumerate(names)}
  if len(names) == 1:
    del levels["all levels"]
  rows = [(name, *counts.row(which)) for name, which in levels.items()]
  return {
    "rows": [(name, f"{nodes:,}", *map(percent, shares)) for name, nodes, *shares in rows if nodes],
    "charts": [_reliability(name, counts, which) for name, which in levels.items() if counts.nodes[which].sum()],
  }


def _reliability(name: str, counts: Calibration, levels: slice) -> Chart:
  nodes, sums, right = (part[levels].sum(axis=0) for part in (counts.nodes, counts.probability, counts.right))
  some = nodes > 0
  points = list(zip((sums[some] / nodes[some]).tolist(), (right[some] / nodes[some]).tolist(), strict=True))
  error = counts.row(levels)[3]
  return Chart(
    title=name,
    summary=f"Reliability diagram, {name}: {int(nodes.sum()):,} predicted nodes, ECE {percent(error)}",
    x="probability of the predicted node",
    y="share that is right",
    x_range=(0.0, 1.0),
    y_range=(0.0, 1.0),
    series=(Series("calibrated", "guide", [(0.0, 0.0), (1.0, 1.0)]), Series("these", "a", points, dots=True)),
    bars=np.round(nodes / nodes.sum(), 4).tolist(),
  )


def learning(curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
  """Returns the charts of the loss and of path accuracy by step; those of which nothing was logged are left out."""
  charts = []
  for name, title in (("loss", "loss"), ("path_accuracy", "path accuracy")):
    lines = {split: _points(curves, split, name) for split in ("train", "validation")}
    lines = {split: points for split, points in lines.items() if points}
    if lines:
      charts.append(_learning(title, lines, name == "path_accuracy"))
  return charts


def _points(curves: Sequence[Mapping[str, Any]], split: str, name: str) -> list[tuple[float, float]]:
  rows = [(row["step"], row.get(name)) for row in curves if row.get("split") == split]
  return [(float(step), float(value)) for step, value in rows if isinstance(value, int | float) and np.isfinite(value)]


def _learning(title: str, lines: Mapping[str, list[tuple[float, float]]], share: bool) -> Chart:
  x, y = (np.array([point[axis] for points in lines.values() for point in points]) for axis in (0, 1))
  last = ", ".join(f"{split} {_value(points[-1][1], share)}" for split, points in lines.items())
  return Chart(
    title=title,
    summary=f"{title} by training step, to step {x.max():,.0f}; last: {last}",
    x="training step",
    y=title,
    x_range=(0.0, float(x.max())),
    y_range=(0.0, 1.0) if share else (0.0, float(y.max()) * 1.05),
    series=[
      Series("training" if split == "train" else split, "ab"[split != "train"], points, len(points) < 30)
      for split, points in lines.items()
    ],
    shares=share,
    counts=True,
  )


def _value(value: float, share: bool) -> str:
  return percent(value) if share else f"{value:.3f}"
