"""Coverage and selective accuracy by the confidence threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from hierjax.evaluation.choosing.selective import GRID, Confidences
from hierjax.report.plots.canvas import Page
from hierjax.report.plots.style import ACCENT, GREY, LIGHT, levels_of_accent
from hierjax.runs.folder import RunFolder, write_table

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _LEFT, _BOTTOM = 0.3, 0.8, 0.25, 0.62, 0.6
_WIDTH, _HEIGHT, _LEGEND, _LINE = 3.1, 2.7, 1.6, 0.2


@dataclasses.dataclass(frozen=True)
class ThresholdSweep:
  """The answers of a run or an ensemble by the confidence threshold.

  Attributes:
    name: of the run or the ensemble.
    split: the name of the split that is drawn.
    found: the confidences on it.
    validation: the confidences on validation, where the threshold was chosen.
    accuracy: the selective accuracy that is wanted.
    threshold: the chosen one.
    levels: the names of the levels.
  """

  name: str
  split: str
  found: Confidences
  validation: Confidences
  accuracy: float
  threshold: float
  levels: tuple[str, ...]


def draw_threshold_sweep(out: RunFolder, found: ThresholdSweep, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/selective.png and, beside it, selective.csv with both splits; returns the picture's path.

  Three panels: selective accuracy by coverage, with the chosen threshold as a dot; and selective accuracy, and the
  levels at which answers end, by the threshold.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = out.path / "pictures"
  curves = {"validation": found.validation.curve(GRID), found.split: found.found.curve(GRID)}
  levels = found.levels
  header = ("split", "threshold", "coverage", "selective_accuracy", *(f"ends at {level}" for level in levels))
  write_table(pictures / f"selective{suffix}.csv", header, _selective_rows(curves))

  page = Page(2 * _MARGIN + 3 * (_LEFT + _WIDTH) + _LEGEND, _HEAD + _CAPTION + _HEIGHT + _BOTTOM + _MARGIN / 2)
  _selective_heading(page, found)
  left, top = _MARGIN + _LEFT - 0.1, _HEAD + _CAPTION
  lines = dict(zip(curves, (GREY, ACCENT), strict=False))
  page.text(left, _HEAD, "Selective accuracy by coverage", width=_WIDTH, size=10.0, bold=True)
  _trade_off(page, left, found, {split: (curves[split], colour) for split, colour in lines.items()})

  left += _LEFT + _WIDTH
  page.text(left, _HEAD, "Selective accuracy", width=_WIDTH, size=10.0, bold=True)
  axes = page.plot(left, top, _WIDTH, _HEIGHT)
  for split, colour in lines.items():
    axes.plot(
      GRID,
      [np.nan if at["selective_accuracy"] is None else at["selective_accuracy"] for at in curves[split]],
      color=colour,
    )
  axes.axhline(found.accuracy, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=1)
  _finish(page, left, axes, found.threshold)

  left += _LEFT + _WIDTH
  page.text(left, _HEAD, f"Coverage by level: images of {found.split}", width=_WIDTH, size=10.0, bold=True)
  shares = np.array([[*at["level_coverage"][::-1], 1 - at["coverage"]] for at in curves[found.split]])
  areas = [*reversed(levels_of_accent(len(levels))), LIGHT]
  axes = page.plot(left, top, _WIDTH, _HEIGHT)
  axes.stackplot(GRID, shares.T, colors=areas, linewidth=0)
  axes.set_ylim(0, 1)
  _finish(page, left, axes, found.threshold)

  names = dict(zip(["abstained", *levels], reversed(areas), strict=True))
  names |= {f"accuracy, {split}": colour for split, colour in lines.items()}
  for number, (name, colour) in enumerate(names.items()):
    page.dot(left + _WIDTH + 0.3, top + 0.1 + number * _LINE, colour, "s")
    page.text(left + _WIDTH + 0.45, top + 0.1 + number * _LINE, name, width=_LEGEND - 0.2)
  return page.save(pictures / f"selective{suffix}.{kind}")


def _trade_off(
  page: Page, left: float, found: ThresholdSweep, lines: Mapping[str, tuple[list[dict[str, Any]], str]]
) -> None:
  axes = page.plot(left, _HEAD + _CAPTION, _WIDTH, _HEIGHT)
  for curve, colour in lines.values():
    points = [(at["coverage"], at["selective_accuracy"]) for at in curve if at["selective_accuracy"] is not None]
    if points:
      axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6)
  chosen = found.found.at(found.threshold)
  if chosen["selective_accuracy"] is not None:
    axes.plot(
      chosen["coverage"], chosen["selective_accuracy"], "o", color=ACCENT, markersize=6, clip_on=False, zorder=3
    )
  axes.axhline(found.accuracy, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=1)
  axes.set_xlim(0, 1)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  page.text(left, _HEAD + _CAPTION + _HEIGHT + 0.27, "coverage", width=_WIDTH, align="center")


def _selective_heading(page: Page, found: ThresholdSweep) -> None:
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.22, "Answers by the confidence threshold", width=width, size=13.0, bold=True)
  about = (
    f"{found.name}: {len(found.found.length):,} images of {found.split}; dashed: the threshold {found.threshold:g}, "
    f"chosen for a selective accuracy of {100 * found.accuracy:g}% on validation"
  )
  page.text(_MARGIN, 0.48, about, width=width, size=9.0, colour=GREY)


def _finish(page: Page, left: float, axes: Axes, threshold: float) -> None:
  axes.axvline(threshold, color=GREY, linewidth=0.8, dashes=(4, 3))
  axes.set_xlim(0, 1)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  text = "confidence threshold"
  page.text(left, _HEAD + _CAPTION + _HEIGHT + 0.27, text, width=_WIDTH, align="center")


def _selective_rows(curves: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[object, ...]]:
  for split, values in curves.items():
    for threshold, value in zip(GRID, values, strict=True):
      right = "" if value["selective_accuracy"] is None else f"{value['selective_accuracy']:.6f}"
      yield split, f"{threshold:g}", f"{value['coverage']:.6f}", right, *(f"{s:.6f}" for s in value["level_coverage"])
