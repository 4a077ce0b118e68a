"""Two sets of predictions for the same images: side by side, in pairs, and the images on which they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hierjax.errors import UserError
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.intervals import differences_of, values_of
from hierjax.evaluation.metrics.table import METRICS
from hierjax.evaluation.several_runs.compare import mcnemar
from hierjax.evaluation.tables import percent, written
from hierjax.report.page.findings.findings import Findings, arrows, rows_of

MOST = 24  # images of each kind
_LEAST = 1e-300  # the smallest p-value that is shown


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two findings of the same images, row by row.

  Attributes:
    names: of both, which differ.
    first: one.
    second: the other.
  """

  names: tuple[str, str]
  first: Findings
  second: Findings

  @classmethod
  def of(cls, names: tuple[str, str], first: Findings, second: Findings) -> Pair:
    """Returns the findings for the images that both could read.

    Raises:
      UserError: the trees or the labels differ.
    """
    if first.tree != second.tree:
      raise UserError(f"{names[0]} and {names[1]} have different label trees, so their answers cannot be compared")
    _, ours, theirs = np.intersect1d(first.numbers, second.numbers, return_indices=True)
    pair = cls(names, taken(first, ours), taken(second, theirs))
    if not np.array_equal(pair.first.facts.label_ends, pair.second.facts.label_ends):
      raise UserError(f"{names[0]} and {names[1]} have different labels, so their answers cannot be compared")
    return pair

  @property
  def counted(self) -> np.ndarray:
    """`bool[n]`, the images that count."""
    found: np.ndarray = self.first.predictions.counted & self.second.predictions.counted
    return found

  def won(self, by: int) -> np.ndarray:
    """Returns the rows that one has right and the other wrong, the largest gain in the label's probability first."""
    own, other = (self.first, self.second)[:: 1 - 2 * by]
    rows = np.flatnonzero(self.counted & own.predictions.right & ~other.predictions.right)
    gain = own.predictions.label_probability - other.predictions.label_probability
    return rows[np.argsort(-gain[rows], kind="stable")]

  def shown(self) -> list[int]:
    """Returns the rows of the images that are shown."""
    return [int(row) for by in (0, 1) for row in self.won(by)[:MOST]]

  def counts(self) -> list[list[int]]:
    """Returns how many images the first has right or wrong (rows), and the second right or wrong (columns)."""
    first, second = (one.predictions.right[self.counted] for one in (self.first, self.second))
    return [[int((x & y).sum()) for y in (second, ~second)] for x in (first, ~first)]


def taken(found: Findings, rows: np.ndarray) -> Findings:
  """Returns the findings of some of the images."""
  if np.array_equal(rows, np.arange(len(found.numbers))):
    return found
  chosen, names, pictures = rows.tolist(), found.name_of, found.pictures
  return dataclasses.replace(
    found,
    facts=Facts(rows_of(found.facts.scored, rows), found.facts.table, found.facts.count_root),
    shortened=rows_of(found.shortened, rows),
    likely=None if found.likely is None else rows_of(found.likely, rows),
    numbers=found.numbers[rows],
    name_of=lambda row: names(chosen[row]),
    pictures=None if pictures is None else lambda some: pictures([chosen[row] for row in some]),
  )


def comparison(pair: Pair) -> dict[str, Any]:
  """Returns the section of the page: metrics side by side, the 2 x 2 counts, McNemar's test, and the images."""
  counts = pair.counts()
  p = mcnemar(counts[0][1], counts[1][0])
  return {
    "names": pair.names,
    "rows": _metric_rows(pair),
    "counts": [[f"{count:,}" for count in row] for row in counts],
    "images": f"{int(pair.counted.sum()):,}",
    "p": f"{p:.3g}" if p >= _LEAST else f"less than {_LEAST:g}",
    "verdict": _verdict(pair.names, counts, p),
    "won": [{"name": pair.names[by], "count": f"{len(pair.won(by)):,}", "images": _images(pair, by)} for by in (0, 1)],
  }


def _verdict(names: Sequence[str], counts: Sequence[Sequence[int]], p: float) -> str:
  first, second = counts[0][1], counts[1][0]
  if p >= 0.05:
    return (
      "Such a difference often comes about by chance: of whole paths, these images do not tell which one is better."
    )
  better = names[0] if first > second else names[1]
  return f"Chance alone seldom makes such a difference: of whole paths, {better} is better on images of this kind."


def _metric_rows(pair: Pair) -> list[dict[str, str]]:
  """Returns the main metrics of both, and the 95% interval of their difference over images, in pairs."""
  ones, others = values_of(pair.first.facts), values_of(pair.second.facts)
  names, rows = pair.first.tree.named_levels, []
  for name, (difference, ends) in differences_of(pair.first.facts, pair.second.facts).items():
    metric = METRICS[name]
    for i in range(ones[name].size) if metric.shown else ():
      low, high = (float(end) for end in ends.reshape(-1, 2)[i])
      apart = float(difference.ravel()[i])
      rows.append(
        {
          "title": metric.title.replace("level", names[i], 1) if ends.ndim > 1 else metric.title,
          "first": written(float(ones[name].ravel()[i]), metric.unit),
          "second": written(float(others[name].ravel()[i]), metric.unit),
          "difference": _signed(apart, metric.unit),
          "interval": f"{_signed(low, metric.unit)} to {_signed(high, metric.unit)}",
          "better": _better(pair.names, (low, high), metric.higher_is_better),
        }
      )
  return rows


def _signed(value: float, unit: str) -> str:
  return written(value, unit, sign=True).replace("-", "\N{MINUS SIGN}") if not np.isnan(value) else "–"


def _better(names: Sequence[str], ends: tuple[float, float], higher: bool) -> str:
  """Returns the name of the better one; '' where the interval of the difference contains 0."""
  if not (ends[0] > 0 or ends[1] < 0):
    return ""
  return names[0] if (ends[0] > 0) == higher else names[1]


def _images(pair: Pair, by: int) -> list[dict[str, Any]]:
  tree, shown = pair.first.tree, []
  for row in pair.won(by)[:MOST].tolist():
    answers = [
      {
        "name": name,
        "path": arrows(tree, int(found.predictions.ends[row])),
        "right": bool(found.predictions.right[row]),
        "probability": "" if found.likely is None else percent(float(found.predictions.end_probability[row])),
      }
      for name, found in zip(pair.names, (pair.first, pair.second), strict=True)
    ]
    label = arrows(tree, int(pair.first.facts.label_ends[row]))
    shown.append({"row": row, "name": pair.first.name_of(row), "label": label, "answers": answers})
  return shown
