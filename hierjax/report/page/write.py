"""The page and its CSV files, written from findings."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import json
from pathlib import Path
from typing import Any

import jinja2

from hierjax.evaluation.metrics.measure import measured
from hierjax.evaluation.scores import confusions
from hierjax.evaluation.tables import percent
from hierjax.report.page import curves, summary
from hierjax.report.page.comparison import Pair, comparison
from hierjax.report.page.findings import Findings, Place, arrows
from hierjax.report.page.gallery import chosen, image_data
from hierjax.report.page.labels import LikelyWrong
from hierjax.report.page.nodes import tree_data
from hierjax.report.page.pictures import SMALL, encoded
from hierjax.report.page.tables import write_tables
from hierjax.report.page.thresholds import changing, threshold_data, trade_off_chart
from hierjax.runs.folder import write_whole

_SCRIPTS = ("page", "tree", "gallery", "thresholds", "confusions", "classes")
_KINDS = (("good", "✓"), ("part", "◐"), ("bad", "✗"))  # of right, partly right and wholly wrong: style and sign
_PAIRS = 20  # confusions in the table; the CSV file has all


def write_report(place: Place, found: Findings, other: Pair | None = None) -> Path:
  """Writes the page and, in eval/, four CSV files, SPLIT-nodes.csv and so on; returns the path of the page.

  Args:
    place: where.
    found: the findings.
    other: the same ones beside those that they are compared with.
  """
  write_tables(place, found)
  page = place.folder / place.page
  write_whole(page, render(found, place.tables, other))
  return page


def render(found: Findings, tables: str = "predictions", other: Pair | None = None) -> str:
  """Returns the page."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("hierjax.report.page", "assets"), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
  )  # fmt: skip
  script = _script()
  return environment.get_template("page.html.j2").render(
    **_content(found, other),
    tables=tables,
    style=_asset("page.css"),
    script=script,
    script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
  )


def as_json(data: Any) -> str:
  """Returns data as JSON that no HTML parser takes for markup, whatever names are in it."""
  text = json.dumps(data, separators=(",", ":"), allow_nan=False)
  return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@functools.cache
def _asset(name: str) -> str:
  return importlib.resources.files("hierjax.report.page").joinpath("assets", name).read_text(encoding="utf-8")


@functools.cache
def _script() -> str:
  return '"use strict";\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)


def _content(found: Findings, other: Pair | None) -> dict[str, Any]:
  found = found if other is None else other.first
  metrics, doubts = measured(found.facts), LikelyWrong(found)
  counts = summary.group_counts(found)
  rows, examples = chosen(found), changing(found)
  trade_off = threshold_data(found)
  first = [row for level in doubts.shown for row in level] + (other.shown() if other else [])
  pairs = confusions(found.predictions)
  uris = encoded(found, [*first, *examples, *rows])
  rows = [row for row in dict.fromkeys([*rows, *examples]) if not uris or row in uris]
  number = {row: i for i, row in enumerate(uris)}
  shown = {row: i for i, row in enumerate(rows)}
  return {
    "about": found.about,
    "images": f"{len(found.numbers):,}",
    "sentences": summary.sentences(found, metrics),
    "cards": summary.cards_of_two(found, metrics, measured(other.second.facts))
    if other
    else summary.cards(found, metrics),
    "hundred": dict(zip(counts, summary.of_hundred(list(counts.values())), strict=True)),
    "kinds": _KINDS,
    "squares": _squares(counts),
    "sections": _sections(found, other),
    "trade_off": trade_off and trade_off_chart(trade_off),
    "counts": {name: f"{count:,}" for name, count in counts.items()},
    "metrics": summary.metric_rows(found, metrics),
    "confusions": [_confusion_row(found, pair) for pair in pairs[:_PAIRS]],
    "pairs": f"{len(pairs):,}",
    "calibration": curves.calibration(found),
    "learning": curves.learning(found.curves),
    "doubts": doubts.sections(),
    "comparison": comparison(other) if other else None,
    "has_probabilities": found.likely is not None,
    "has_pictures": found.pictures is not None,
    "number": number,
    "pixelated": 0 < found.side <= SMALL,
    "data": as_json(
      {
        "name": found.about.name,
        "things": found.about.things,
        "tree": tree_data(found),
        "groups": list(counts),
        "groupCounts": list(counts.values()),
        "images": image_data(found, rows, [number.get(row, -1) for row in rows]),
        "pictures": list(uris.values()),
        "pixelated": 0 < found.side <= SMALL,
        "thresholds": trade_off,
        "examples": [shown[row] for row in examples if row in shown],
      }
    ),
  }


def _squares(counts: dict[str, int]) -> list[tuple[str, str]]:
  """Returns the kinds of 100 images."""
  shares = summary.of_hundred(list(counts.values()))
  return [kind for kind, number in zip(_KINDS, shares, strict=True) for _ in range(number)]


def _sections(found: Findings, other: Pair | None) -> list[tuple[str, str]]:
  """Returns the sections that there are, by their anchors."""
  sections = {
    "summary": "Summary", "comparison": "Side by side", "tree": "Tree", "gallery": "Predictions", "threshold":
    "Threshold", "confusions": "Confusions", "calibration": "Calibration", "learning": "Learning", "classes": "Classes",
    "labels": "Labels in doubt", "provenance": "Provenance",
  }  # fmt: skip
  absent = ({"comparison"} if other is None else set()) | (set() if curves.learning(found.curves) else {"learning"})
  return [(anchor, name) for anchor, name in sections.items() if anchor not in absent]


def _confusion_row(found: Findings, pair: Any) -> dict[str, Any]:
  return {
    "label": arrows(found.tree, pair.label),
    "predicted": arrows(found.tree, pair.predicted),
    "count": f"{len(pair.images):,}",
    "share": percent(pair.share),
    "edges": pair.edges,
  }
