"""Figures 3 and 4 of Dutt et al. (2017): errors by the interpolation factor, of ensembles of several sizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hierjax.evaluation.several_runs.ensembles import Errors
from hierjax.evaluation.several_runs.significance import error_names
from hierjax.report.plots.canvas import Page, grid
from hierjax.report.plots.style import GREY, SERIES
from hierjax.runs.folder import RunFolder, write_table

HEADER = ("split", "ensemble", "subsets", "alpha", "what", "error", "deviation")

_COLUMNS = 4
_Z = 1.959964  # of a 95% interval

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _LEFT, _BOTTOM = 0.3, 0.8, 0.25, 0.62, 0.6
_WIDTH, _HEIGHT, _LEGEND, _LINE = 2.9, 2.5, 2.1, 0.2


@dataclasses.dataclass(frozen=True)
class AlphaSweep:
  """The errors of a run or an ensemble by alpha.

  Attributes:
    name: of the run or the ensemble.
    split: the name of the split that is drawn.
    images: their number.
    errors: on them.
    validation: the errors on validation, by which alpha was chosen; None where there is no such split.
    alpha: the chosen one, or None.
  """

  name: str
  split: str
  images: int
  errors: Errors
  validation: Errors | None
  alpha: float | None


def draw_alpha_sweep(out: RunFolder, found: AlphaSweep, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/adaptation.png and, beside it, adaptation.csv, which also has validation's; returns its path.

  A panel for each level and one for the path, all of one scale; a line for each size of ensemble, the mean over its
  subsets. Its band is one standard deviation to both sides; of a single ensemble, the 95% interval over images.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = out.path / "pictures"
  write_table(pictures / f"adaptation{suffix}.csv", HEADER, _adaptation_rows(found))
  names = error_names(found.errors.levels)
  rows, columns = grid(len(names), _COLUMNS)
  across, down = _LEFT + _WIDTH, _CAPTION + _HEIGHT + _BOTTOM
  scale = _scale(found.errors)
  page = Page(2 * _MARGIN + columns * across + _LEGEND, _HEAD + rows * down + _MARGIN / 2)
  _adaptation_heading(page, found)
  for i, name in enumerate(names):
    left, top = _MARGIN + i % columns * across + _LEFT - 0.1, _HEAD + i // columns * down
    page.text(left, top, name.capitalize(), width=_WIDTH, size=10.0, bold=True)
    _draw(page.plot(left, top + _CAPTION, _WIDTH, _HEIGHT), found, i, scale)
    page.text(left, top + _CAPTION + _HEIGHT + 0.27, "alpha", width=_WIDTH, align="center")
  _legend(page, _MARGIN + columns * across + 0.2, _HEAD + _CAPTION, found.errors)
  return page.save(pictures / f"adaptation{suffix}.{kind}")


def _adaptation_heading(page: Page, found: AlphaSweep) -> None:
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.22, "Top-1 error by alpha, the strength of adaptation", width=width, size=13.0, bold=True)
  chosen = f"dashed: alpha = {found.alpha:g}, chosen on validation" if found.alpha is not None else "none is chosen"
  about = f"{found.name}: {found.images:,} images of {found.split}; {chosen}"
  page.text(_MARGIN, 0.48, about, width=width, size=9.0, colour=GREY)


def band(errors: Errors, size: int) -> Float[np.ndarray, "2 a i"]:
  """Returns the lower and upper end of the bands of the errors of ensembles of a size, by alpha; nan without images.

  They are one standard deviation from the mean over the ensembles; of a single one, Wilson's 95% interval over images.
  """
  mean, deviation = errors.mean(size), errors.deviation(size)
  if len(errors.of_size(size)) > 1:
    return np.stack([mean - deviation, mean + deviation])
  with np.errstate(invalid="ignore", divide="ignore"):
    n = np.where(errors.counted > 0, errors.counted, np.nan)
    middle, spread = (
      (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n),
      _Z * np.sqrt(mean * (1 - mean) / n + (_Z / (2 * n)) ** 2),
    )
  return np.stack([middle - spread / (1 + _Z**2 / n), middle + spread / (1 + _Z**2 / n)])


def _scale(errors: Errors) -> tuple[float, float]:
  """Returns the ends of the one scale of all panels."""
  found = np.stack([band(errors, size) for size in errors.sizes])
  if np.isnan(found).all():
    return 0.0, 1.0
  low, high = float(np.nanmin(found)), float(np.nanmax(found))
  room = max(0.05 * (high - low), 0.005)
  return max(0.0, low - room), min(1.0, high + room)


def _draw(axes: Axes, found: AlphaSweep, i: int, scale: tuple[float, float]) -> None:
  errors, alphas = found.errors, np.array(found.errors.alphas)
  for size, colour in zip(errors.sizes, SERIES, strict=False):
    low, high = band(errors, size)[:, :, i]
    axes.fill_between(alphas, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.plot(alphas, errors.mean(size)[:, i], color=colour, linewidth=1.6)
  if found.alpha is not None:
    axes.axvline(found.alpha, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=1)
  axes.set(xlim=(alphas[0], alphas[-1]), ylim=scale)
  axes.xaxis.set_major_locator(MaxNLocator(4))
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))


def _legend(page: Page, left: float, top: float, errors: Errors) -> None:
  for size, colour in zip(errors.sizes, SERIES, strict=False):
    count = len(errors.of_size(size))
    page.dot(left + 0.06, top, colour, "s")
    page.text(left + 0.2, top, f"ensemble-{size}" + (f", {count} of them" if count > 1 else ""), width=_LEGEND - 0.2)
    top += _LINE
  about = ["Band: one standard deviation"] if len(errors.sizes) > 1 else []
  about += ["Band of a single ensemble:", "its 95% interval over images"]
  for line, text in enumerate(about):
    page.text(left, top + _LINE * (line + 0.5), text, width=_LEGEND, colour=GREY)


def _adaptation_rows(found: AlphaSweep) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns; no deviation where there is one ensemble."""
  several = {found.split: found.errors}
  if found.validation is not None:
    several["validation"] = found.validation
  for split, errors in several.items():
    for size in errors.sizes:
      mean, deviation = errors.mean(size), errors.deviation(size)
      for a, alpha in enumerate(errors.alphas):
        for i, name in enumerate(error_names(errors.levels)):
          spread = "" if math.isnan(deviation[a, i]) else f"{deviation[a, i]:.6f}"
          error = "" if math.isnan(mean[a, i]) else f"{mean[a, i]:.6f}"
          yield split, size, len(errors.of_size(size)), f"{alpha:g}", name, error, spread
