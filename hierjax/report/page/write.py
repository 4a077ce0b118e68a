"""The page and its CSV files, written from findings."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
from pathlib import Path

import jinja2

from hierjax.report.page.content import page_content
from hierjax.report.page.findings.findings import Findings, Place
from hierjax.report.page.sections.comparison import Pair
from hierjax.report.page.sections.tables import write_tables
from hierjax.runs.folder import write_whole

_SCRIPTS = ("page", "tree", "gallery", "thresholds", "confusions", "classes")


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
  """Returns the page; it names its CSV files by `tables`, and allows its own script alone."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("hierjax.report.page", "assets"), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
  )  # fmt: skip
  script = _script()
  return environment.get_template("page.html.j2").render(
    **page_content(found if other is None else other.first, other),
    tables=tables,
    style=_asset("page.css"),
    script=script,
    script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
  )


@functools.cache
def _asset(name: str) -> str:
  return importlib.resources.files("hierjax.report.page").joinpath("assets", name).read_text(encoding="utf-8")


@functools.cache
def _script() -> str:
  return '"use strict";\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
