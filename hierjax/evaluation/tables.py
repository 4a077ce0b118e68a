"""Metrics as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def percent(value: float | None) -> str:
  """Returns 0.4567 as '45.67%'; a missing value as a dash."""
  return "-" if value is None else f"{100 * value:.2f}%"


def table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows as aligned text: the first row is the header, the first column is text, the rest numbers."""
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = []
  for row in rows:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    lines.append("  ".join(cells).rstrip())
  lines.insert(1, "  ".join("-" * width for width in widths))
  return "\n".join(lines)


def accuracy_table(metrics: Mapping[str, Any]) -> str:
  """Returns the accuracy by level, and of whole paths, as a table; `metrics` is what eval/SPLIT.json holds."""
  rows = [("accuracy", "nodes", "value")]
  for i, (size, value) in enumerate(zip(metrics["level_sizes"], metrics["level_accuracy"], strict=True)):
    rows.append((f"level {i + 1}", str(size), percent(value)))
  rows += [(label, "", percent(metrics[name])) for label, name in _ROWS.items()]
  return table(rows)


_ROWS = {
  "whole path": "path_accuracy",
  "nodes of the path": "node_accuracy",
  "leaf": "leaf_top1",
  "leaf among the best 5": "leaf_top5",
}
