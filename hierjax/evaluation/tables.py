"""Metrics as tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hierjax.evaluation.metrics.table import METRICS
from hierjax.tree.label_finder import split_path

# The metrics of several paths an image, which have no intervals, with their titles.
SEVERAL_PATHS = {"path_f1": "path F1", "node_f1": "node F1", "end_f1": "end F1"}


def percent(value: float | None) -> str:
  """Returns 0.4567 as '45.67%'; a missing value as a dash."""
  return "-" if value is None else f"{100 * value:.2f}%"


def table(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
  """Returns rows as aligned text: the first row is the header, the first columns are text, the rest numbers."""
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

  def line(row: Sequence[str]) -> str:
    cells = [
      cell.ljust(w) if i < text_columns else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()

  return "\n".join([line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])])


def accuracy_table(metrics: Mapping[str, Any], every: bool = False) -> str:
  """Returns metrics, the contents of eval/SPLIT.json, as a table; the main ones, or every one."""
  return accuracy_tables({"value": metrics}, every)


def accuracy_tables(columns: Mapping[str, Mapping[str, Any]], every: bool = False) -> str:
  """Returns the same of several metrics side by side, by the headers of their columns."""
  return table(accuracy_rows(columns, every))


def accuracy_rows(columns: Mapping[str, Mapping[str, Any]], every: bool = False) -> list[tuple[str, ...]]:
  """Returns the rows of that table, the header first: a metric of `METRICS` or of the multi-label ones a row.

  A single column is followed by the 95% intervals, where there are any.
  """
  several = list(columns.values())
  intervals = several[0].get("intervals") if len(several) == 1 else None
  header = ("metric", "nodes", *columns)
  rows: list[tuple[str, ...]] = [header if intervals is None else (*header, "95% interval")]
  for name, metric in METRICS.items():
    if name in several[0] and (every or metric.shown):
      rows += _metric_rows(name, several, intervals)
  for name, title in SEVERAL_PATHS.items():
    if name in several[0]:
      rows.append((title, "", *(percent(metrics[name]) for metrics in several)))
  for name in several[0].get("further_metrics", ()):
    rows.append((name, "", *(_number(metrics[name]) for metrics in several)))
  return [(*row, *[""] * (len(rows[0]) - len(row))) for row in rows]


def class_tables(metrics: Mapping[str, Any]) -> str:
  """Returns the classes of the lowest recall, and the most frequent confusions, as two tables."""
  worst, pairs = metrics["lowest_recall"], metrics["confusions"]
  classes = [("lowest recall", "images", "recall", "precision")]
  classes += [
    (with_arrows(c["class"]), f"{c['images']:,}", percent(c["recall"]), percent(c["precision"])) for c in worst
  ]
  confused = [("most frequent confusions", "predicted", "images", "of the label")]
  confused += [
    (with_arrows(p["label"]), with_arrows(p["predicted"]), f"{p['images']:,}", percent(p["share"])) for p in pairs
  ]
  return "\n\n".join(table(rows, columns) for rows, columns in ((classes, 1), (confused, 2)) if len(rows) > 1)


def with_arrows(paths: str) -> str:
  """Returns paths, of `path_text` and between semicolons, with ` > ` between names, and slashes in them as they are."""
  return "; ".join(" > ".join(split_path(path)) for path in paths.split("; "))


def _metric_rows(
  name: str, several: Sequence[Mapping[str, Any]], intervals: Mapping[str, Any] | None
) -> list[tuple[str, ...]]:
  """Returns the row of a metric, or one a level."""
  metric, values = METRICS[name], [metrics[name] for metrics in several]
  own = None if intervals is None else intervals.get(name)
  if not isinstance(values[0], list):
    return [(metric.title, "", *(written(v, metric.unit) for v in values), *_interval(own, metric.unit, intervals))]
  if name == "raw_level_accuracy" and all(m["raw_level_accuracy"] == m.get("level_accuracy") for m in several):
    return []  # the raw argmaxes are the decoded paths
  rows = []
  for i, (level, size) in enumerate(zip(several[0]["level_names"], several[0]["level_sizes"], strict=True)):
    ends = _interval(own[i] if own else None, metric.unit, intervals)
    numbers = [written(value[i], metric.unit) for value in values]
    rows.append((metric.title.replace("level", level, 1), str(size), *numbers, *ends))
  return rows


def _interval(ends: Sequence[float] | None, unit: str, intervals: Mapping[str, Any] | None) -> tuple[str, ...]:
  if intervals is None:
    return ()
  return ("-",) if ends is None else (f"{written(ends[0], unit)} to {written(ends[1], unit)}",)


def written(value: float | None, unit: str, sign: bool = False) -> str:
  """Returns a metric with its unit: a share as a percentage; a missing value, or nan, as a dash."""
  if value is None or math.isnan(value):
    return "-"
  plus = "+" if sign else ""
  if unit == "share":
    return f"{100 * value:{plus}.2f}%"
  return f"{value:{plus}.{2 if unit in ('edges', 'height') else 3}f}"


def _number(value: Any) -> str:
  if isinstance(value, list):  # one a level
    return ", ".join(map(_number, value))
  return "-" if value is None else f"{value:.4g}"
