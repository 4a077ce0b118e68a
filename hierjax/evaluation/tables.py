"""Metrics as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hierjax.functional.metrics import METRICS


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
  """Returns metrics, the contents of eval/SPLIT.json, as a table."""
  return accuracy_tables({"value": metrics})


def accuracy_tables(columns: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the same of several metrics side by side, by the headers of their columns."""
  return table(accuracy_rows(columns))


def accuracy_rows(columns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
  """Returns the rows of that table, the header first: a metric of `METRICS` or of the multi-label ones a row."""
  several = list(columns.values())
  rows: list[tuple[str, ...]] = [("metric", "nodes", *columns)]
  for name, metric in METRICS.items():
    if name not in several[0]:
      continue
    values = [metrics[name] for metrics in several]
    write = percent if metric.unit == "share" else _edges
    if isinstance(values[0], list):
      if name == "raw_level_accuracy" and all(m["raw_level_accuracy"] == m.get("level_accuracy") for m in several):
        continue  # the raw argmaxes are the decoded paths
      for i, (level, size) in enumerate(zip(several[0]["level_names"], several[0]["level_sizes"], strict=True)):
        title = f"{metric.title.replace('level', level)} accuracy"
        rows.append((title, str(size), *(write(value[i]) for value in values)))
    else:
      rows.append((metric.title, "", *map(write, values)))
  for name, title in (("path_f1", "path F1"), ("node_f1", "node F1")):
    if name in several[0]:
      rows.append((title, "", *(percent(metrics[name]) for metrics in several)))
  for name in several[0].get("further_metrics", ()):
    rows.append((name, "", *(_number(metrics[name]) for metrics in several)))
  return rows


def _number(value: Any) -> str:
  return "-" if value is None else f"{value:.4g}"


def _edges(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"
