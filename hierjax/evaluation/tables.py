"""Metrics as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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


def accuracy_table(metrics: Mapping[str, Any]) -> str:
  """Returns the accuracy by level, and of whole paths, as a table; `metrics` is what eval/SPLIT.json holds."""
  return accuracy_tables({"value": metrics})


def accuracy_tables(columns: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the same of several metrics side by side, by the headers of their columns."""
  return table(accuracy_rows(columns))


def accuracy_rows(columns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
  """Returns the rows of that table, the header first."""
  several = list(columns.values())
  rows: list[tuple[str, ...]] = [("accuracy", "nodes", *columns)]
  for i, size in enumerate(several[0]["level_sizes"] if "level_accuracy" in several[0] else ()):
    rows.append((f"level {i + 1}", str(size), *(percent(metrics["level_accuracy"][i]) for metrics in several)))
  for label, name in _ROWS.items():
    if name in several[0]:
      rows.append((label, "", *(percent(metrics[name]) for metrics in several)))
  if "mistake_distance" in several[0]:
    rows.append(("edges from label to mistake", "", *(_edges(metrics["mistake_distance"]) for metrics in several)))
  return rows


def _edges(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"


_ROWS = {
  "whole path": "path_accuracy",
  "nodes of the path": "node_accuracy",
  "leaf": "leaf_top1",
  "leaf among the best 5": "leaf_top5",
  "levels that are no path": "raw_leave_rate",
  "F1 of paths": "path_f1",
  "F1 of nodes": "node_f1",
}
