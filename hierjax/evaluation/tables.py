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
  rows = [("accuracy", "nodes", "value")]
  for i, (size, value) in enumerate(zip(metrics["level_sizes"], metrics["level_accuracy"], strict=True)):
    rows.append((f"level {i + 1}", str(size), percent(value)))
  rows += [(label, "", percent(metrics[name])) for label, name in _ROWS.items()]
  if "raw_leave_rate" in metrics:
    rows.append(("levels that are no path", "", percent(metrics["raw_leave_rate"])))
  return table(rows)


_ROWS = {
  "whole path": "path_accuracy",
  "nodes of the path": "node_accuracy",
  "leaf": "leaf_top1",
  "leaf among the best 5": "leaf_top5",
}
