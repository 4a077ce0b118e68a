"""What the answers are, by the probability below which paths end: how many are right, and how far down they go."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import PercentFormatter

from hierjax.evaluation.selective import GRID, Answers
from hierjax.report.plots.canvas import BLUE, GREY, Page
from hierjax.runs.folder import RunFolder, write_table

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _LEFT, _BOTTOM = 0.3, 0.8, 0.25, 0.62, 0.6
_WIDTH, _HEIGHT, _LEGEND, _LINE = 3.6, 2.7, 1.5, 0.2
_LIGHT = "#cccccc"


@dataclasses.dataclass(frozen=True)
class Stops:
  """What a sweep of --stop-below has found.

  Attributes:
    name: of what was measured.
    split: what the images that it is drawn for are called.
    answers: on them.
    validation: on validation, where `below` was chosen.
    wanted: the share of answers that should be right.
    below: what was chosen.
  """

  name: str
  split: str
  answers: Answers
  validation: Answers
  wanted: float
  below: float


def draw_stops(out: RunFolder, found: Stops) -> Path:
  """Writes pictures/stopping.png and, beside it, stopping.csv, which also has validation's; returns the PNG's path."""
  pictures = out.path / "pictures"
  curves = {"validation": found.validation.curve(GRID), found.split: found.answers.curve(GRID)}
  levels = [f"level {i + 1}" for i in range(found.answers.sure.shape[1])]
  header = ("split", "stop_below", "answered", "right", *(f"ends at {level}" for level in levels))
  write_table(pictures / "stopping.csv", header, _rows(curves))

  page = Page(2 * _MARGIN + 2 * (_LEFT + _WIDTH) + _LEGEND, _HEAD + _CAPTION + _HEIGHT + _BOTTOM + _MARGIN / 2)
  _head(page, found)
  left, top = _MARGIN + _LEFT - 0.1, _HEAD + _CAPTION
  lines = dict(zip(curves, (GREY, BLUE), strict=False))
  page.text(left, _HEAD, "How many of the answers are right", width=_WIDTH, size=10.0, bold=True)
  axes = page.plot(left, top, _WIDTH, _HEIGHT)
  for split, colour in lines.items():
    axes.plot(GRID, [np.nan if at["right"] is None else at["right"] for at in curves[split]], color=colour)
  axes.axhline(found.wanted, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=1)
  _finish(page, left, axes, found.below)

  left += _LEFT + _WIDTH
  page.text(left, _HEAD, f"Where the answers end: images of {found.split}", width=_WIDTH, size=10.0, bold=True)
  shares = np.array([[*at["ends_at_level"][::-1], 1 - at["answered"]] for at in curves[found.split]])
  areas = [*map(to_hex, colormaps["viridis"](np.linspace(0.15, 0.95, len(levels)))), _LIGHT]
  axes = page.plot(left, top, _WIDTH, _HEIGHT)
  axes.stackplot(GRID, shares.T, colors=areas, linewidth=0)
  axes.set_ylim(0, 1)
  _finish(page, left, axes, found.below)

  names = dict(zip(["no answer", *levels], reversed(areas), strict=True))
  names |= {f"right, {split}": colour for split, colour in lines.items()}
  for number, (name, colour) in enumerate(names.items()):
    page.dot(left + _WIDTH + 0.3, top + 0.1 + number * _LINE, colour, "s")
    page.text(left + _WIDTH + 0.45, top + 0.1 + number * _LINE, name, width=_LEGEND - 0.2)
  page.save(pictures / "stopping.png")
  return pictures / "stopping.png"


def _head(page: Page, found: Stops) -> None:
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.22, "Answers that end where the model is not sure", width=width, size=13.0, bold=True)
  about = (
    f"{found.name}: {len(found.answers.sure):,} images of {found.split}; dashed: below {found.below:g}, "
    f"{100 * found.wanted:g}% of the answers on validation are right"
  )
  page.text(_MARGIN, 0.48, about, width=width, size=9.0, colour=GREY)


def _finish(page: Page, left: float, axes: Axes, below: float) -> None:
  axes.axvline(below, color=GREY, linewidth=0.8, dashes=(4, 3))
  axes.set_xlim(0, 1)
  axes.grid(color="#e6e6e6", linewidth=0.6)
  axes.set_axisbelow(True)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  text = "a path ends above nodes less probable than this"
  page.text(left, _HEAD + _CAPTION + _HEIGHT + 0.27, text, width=_WIDTH, align="center")


def _rows(curves: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[object, ...]]:
  for split, values in curves.items():
    for below, value in zip(GRID, values, strict=True):
      right = "" if value["right"] is None else f"{value['right']:.6f}"
      yield split, f"{below:g}", f"{value['answered']:.6f}", right, *(f"{s:.6f}" for s in value["ends_at_level"])
