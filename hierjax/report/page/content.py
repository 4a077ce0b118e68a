"""The contents of a page: what its templates and its script are given."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from hierjax.evaluation.metrics.measure import measured
from hierjax.evaluation.scores import Confusion, confusions
from hierjax.evaluation.tables import percent
from hierjax.report.page.findings.findings import Findings, arrows
from hierjax.report.page.findings.pictures import SMALL, encoded
from hierjax.report.page.sections import curves, summary
from hierjax.report.page.sections.comparison import Pair, comparison
from hierjax.report.page.sections.gallery import chosen, image_data
from hierjax.report.page.sections.labels import LikelyWrong
from hierjax.report.page.sections.nodes import tree_data
from hierjax.report.page.sections.thresholds import changing, threshold_data, trade_off_chart

_KINDS = (("good", "✓"), ("part", "◐"), ("bad", "✗"))  # of right, partly right and wholly wrong: style and sign
_PAIRS = 20  # confusions in the table; the CSV file has all


@dataclasses.dataclass(frozen=True)
class Shown:
  """The images that a page shows.

  Attributes:
    rows: those of the gallery.
    examples: those whose answers change with the threshold, among `rows`.
    uris: the pictures by row, of all sections.
  """

  rows: list[int]
  examples: list[int]
  uris: dict[int, str]

  @classmethod
  def of(cls, found: Findings, first: list[int]) -> Shown:
    """Returns the images of a page; the pictures of `first` have room before all others."""
    rows, examples = chosen(found), changing(found)
    uris = encoded(found, [*first, *examples, *rows])
    kept = [row for row in dict.fromkeys([*rows, *examples]) if not uris or row in uris]
    return cls(kept, [row for row in examples if row in kept], uris)

  @functools.cached_property
  def number(self) -> dict[int, int]:
    """The number of the picture of each row that has one."""
    return {row: i for i, row in enumerate(self.uris)}


def page_content(found: Findings, other: Pair | None) -> dict[str, Any]:
  """Returns all that the templates name.

  Args:
    found: the findings.
    other: the same ones beside those that they are compared with.
  """
  doubts, trade_off = LikelyWrong(found), threshold_data(found)
  shown = Shown.of(found, [row for level in doubts.shown for row in level] + (other.shown() if other else []))
  return {
    **_summary(found, other),
    **_confusions(found),
    "about": found.about,
    "images": f"{len(found.numbers):,}",
    "sections": _sections(found, other),
    "trade_off": None if trade_off is None else trade_off_chart(trade_off),
    "calibration": curves.calibration(found),
    "learning": curves.learning(found.curves),
    "doubts": doubts.sections(),
    "comparison": comparison(other) if other else None,
    "has_probabilities": found.likely is not None,
    "has_pictures": found.pictures is not None,
    "number": shown.number,
    "pixelated": _pixelated(found),
    "data": as_json(_script_data(found, shown) | {"thresholds": trade_off}),
  }


def as_json(data: Any) -> str:
  """Returns data as JSON that no HTML parser takes for markup, whatever names are in it."""
  text = json.dumps(data, separators=(",", ":"), allow_nan=False)
  return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _pixelated(found: Findings) -> bool:
  return 0 < found.side <= SMALL


def _summary(found: Findings, other: Pair | None) -> dict[str, Any]:
  metrics, counts = measured(found.facts), summary.group_counts(found)
  shares = summary.of_hundred(list(counts.values()))
  theirs = None if other is None else measured(other.second.facts)
  return {
    "sentences": summary.sentences(found, metrics),
    "cards": summary.cards(found, metrics) if theirs is None else summary.cards_of_two(found, metrics, theirs),
    "hundred": dict(zip(counts, shares, strict=True)),
    "kinds": _KINDS,
    "squares": [kind for kind, number in zip(_KINDS, shares, strict=True) for _ in range(number)],
    "counts": {name: f"{count:,}" for name, count in counts.items()},
    "metrics": summary.metric_rows(found, metrics),
  }


def _confusions(found: Findings) -> dict[str, Any]:
  pairs = confusions(found.predictions)
  return {"confusions": [_confusion_row(found, pair) for pair in pairs[:_PAIRS]], "pairs": f"{len(pairs):,}"}


def _confusion_row(found: Findings, pair: Confusion) -> dict[str, Any]:
  return {
    "label": arrows(found.tree, pair.label),
    "predicted": arrows(found.tree, pair.predicted),
    "count": f"{len(pair.images):,}",
    "share": percent(pair.share),
    "edges": pair.edges,
  }


def _script_data(found: Findings, shown: Shown) -> dict[str, Any]:
  """Returns the data of the page's script, but for the thresholds."""
  counts, place = summary.group_counts(found), {row: i for i, row in enumerate(shown.rows)}
  return {
    "name": found.about.name,
    "things": found.about.things,
    "tree": tree_data(found),
    "groups": list(counts),
    "groupCounts": list(counts.values()),
    "images": image_data(found, shown.rows, [shown.number.get(row, -1) for row in shown.rows]),
    "pictures": list(shown.uris.values()),
    "pixelated": _pixelated(found),
    "examples": [place[row] for row in shown.examples],
  }


def _sections(found: Findings, other: Pair | None) -> list[tuple[str, str]]:
  """Returns the sections that there are, by their anchors."""
  sections = [
    ("summary", "Summary"),
    ("comparison", "Side by side"),
    ("tree", "Tree"),
    ("gallery", "Predictions"),
    ("threshold", "Threshold"),
    ("confusions", "Confusions"),
    ("calibration", "Calibration"),
    ("learning", "Learning"),
    ("classes", "Classes"),
    ("labels", "Labels in doubt"),
    ("provenance", "Provenance"),
  ]
  absent = ({"comparison"} if other is None else set()) | (set() if curves.learning(found.curves) else {"learning"})
  return [section for section in sections if section[0] not in absent]
