"""Figures 3 and 4 of Dutt et al. (2017): the accuracy of several architectures by alpha, in one picture."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hierjax.errors import UserError
from hierjax.inference.images import distinct_names
from hierjax.report.plots.adaptation import HEADER as SWEEP
from hierjax.report.plots.canvas import Page, grid
from hierjax.report.plots.style import GREY, SERIES
from hierjax.runs.folder import RunFolder, write_table

HEADER = ("architecture", "split", "ensemble", "members", "alpha", "what", "accuracy", "deviation")

_COLUMNS = 4
_MOST_BYTES = 64 * 2**20

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _LEFT, _BOTTOM = 0.3, 0.8, 0.25, 0.62, 0.6
_WIDTH, _HEIGHT, _LEGEND, _LINE = 2.9, 2.5, 2.4, 0.2


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What a sweep of alpha has found for ensembles of one size.

  Attributes:
    name: of the folder with the sweep.
    split: the name of the images' split.
    subsets: the number of ensembles that are averaged, which for a size of 1 are the runs.
    alphas: `f64[a]`.
    accuracy: by level, and `path`, the mean over the ensembles, `f64[a]`.
    deviation: the standard deviation over the ensembles; nan where there is one.
  """

  name: str
  split: str
  subsets: int
  alphas: Float[np.ndarray, "_"]
  accuracy: dict[str, Float[np.ndarray, "_"]]
  deviation: dict[str, Float[np.ndarray, "_"]]


def read_architectures(folders: Sequence[RunFolder], size: int = 1, split: str = "") -> list[Architecture]:
  """Returns what the sweeps in some folders, pictures/adaptation.csv of `evaluate --alpha sweep`, have found.

  Args:
    folders: one an architecture.
    size: of the ensembles, 1 for single runs.
    split: the images; '' for those that each sweep is of.

  Raises:
    UserError: there is no sweep in a folder, or it has no ensembles of that size, or the sweeps are of trees with other
      levels, other splits or other alphas.
  """
  names = distinct_names(folders)
  found = [_read(folder, name, size, split) for folder, name in zip(folders, names, strict=True)]
  first = found[0]
  for folder, other in zip(folders, found, strict=True):
    same = (other.split, tuple(other.accuracy)) == (first.split, tuple(first.accuracy))
    if not same or not np.array_equal(other.alphas, first.alphas):
      raise UserError(
        f"{folders[0].path} and {folder.path} have sweeps of other images, levels or alphas: sweep both with the same "
        "--split, on one label tree"
      )
  return found


def _read(folder: RunFolder, name: str, size: int, split: str) -> Architecture:
  file = folder.path / "pictures" / "adaptation.csv"
  try:
    if file.stat().st_size > _MOST_BYTES:
      raise UserError(f"{file} is too large to be a sweep of alpha")
    header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
  except (OSError, UnicodeDecodeError, ValueError):
    raise UserError(
      f"{file}: there is no sweep; `hierjax evaluate RUN... --alpha sweep --out FOLDER` makes one"
    ) from None
  if tuple(header) != SWEEP:
    raise UserError(f"{file} is no sweep of alpha: its columns are {', '.join(header)}")
  named = [dict(zip(SWEEP, row, strict=False)) for row in rows]
  split = split or (named[0]["split"] if named else "")
  chosen = [row for row in named if row["split"] == split and row["ensemble"] == str(size)]
  if not chosen:
    sizes = sorted({row["ensemble"] for row in named if row["split"] == split}, key=lambda text: (len(text), text))
    raise UserError(f"{file} has no ensembles of {size} on {split!r}; it has those of {', '.join(sizes) or 'none'}")
  try:
    return _architecture(name, split, chosen)
  except (KeyError, ValueError):
    raise UserError(f"{file} is damaged: a row has no number where one belongs") from None


def _architecture(name: str, split: str, rows: Sequence[dict[str, str]]) -> Architecture:
  whats = dict.fromkeys(row["what"] for row in rows)
  of = {what: [row for row in rows if row["what"] == what] for what in whats}
  numbers = {
    key: {what: np.array([float(row[key] or "nan") for row in part]) for what, part in of.items()}
    for key in ("alpha", "error", "deviation")
  }
  accuracy = {what: 1 - error for what, error in numbers["error"].items()}
  return Architecture(
    name, split, int(rows[0]["subsets"]), next(iter(numbers["alpha"].values())), accuracy, numbers["deviation"]
  )


def draw_architectures(out: RunFolder, found: Sequence[Architecture], size: int = 1) -> Path:
  """Writes pictures/architectures.png and, beside it, architectures.csv; returns the PNG's path.

  A panel for each level and one for the path; a line for each architecture, in a band of one standard deviation.
  """
  pictures = out.path / "pictures"
  write_table(pictures / "architectures.csv", HEADER, _csv_rows(found, size))
  panels = list(found[0].accuracy)
  rows, columns = grid(len(panels), _COLUMNS)
  across, down = _LEFT + _WIDTH, _CAPTION + _HEIGHT + _BOTTOM
  page = Page(2 * _MARGIN + columns * across + _LEGEND, _HEAD + rows * down + _MARGIN / 2)
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.22, "Top-1 accuracy by alpha, the strength of adaptation", width=width, size=13.0, bold=True)
  kind = "single runs" if size == 1 else f"ensembles of {size}"
  page.text(_MARGIN, 0.48, f"{kind} on {found[0].split}", width=width, size=9.0, colour=GREY)
  for i, what in enumerate(panels):
    left, top = _MARGIN + i % columns * across + _LEFT - 0.1, _HEAD + i // columns * down
    page.text(left, top, what.capitalize(), width=_WIDTH, size=10.0, bold=True)
    _draw(page.plot(left, top + _CAPTION, _WIDTH, _HEIGHT), found, what)
    page.text(left, top + _CAPTION + _HEIGHT + 0.27, "alpha", width=_WIDTH, align="center")
  _legend(page, _MARGIN + columns * across + 0.2, _HEAD + _CAPTION, found)
  page.save(pictures / "architectures.png")
  return pictures / "architectures.png"


def _draw(axes: Axes, found: Sequence[Architecture], what: str) -> None:
  for number, architecture in enumerate(found):
    mean, colour = architecture.accuracy[what], SERIES[number % len(SERIES)]
    band = np.nan_to_num(architecture.deviation[what])
    axes.fill_between(architecture.alphas, mean - band, mean + band, color=colour, alpha=0.15, linewidth=0)
    style = "-" if number < len(SERIES) else "--"
    axes.plot(architecture.alphas, mean, color=colour, linewidth=1.4, linestyle=style)
  axes.set(xlim=(found[0].alphas[0], found[0].alphas[-1]))
  axes.grid(color="#e6e6e6", linewidth=0.6)
  axes.set_axisbelow(True)
  axes.xaxis.set_major_locator(MaxNLocator(4))
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))


def _legend(page: Page, left: float, top: float, found: Sequence[Architecture]) -> None:
  for number, architecture in enumerate(found):
    page.dot(left + 0.06, top, SERIES[number % len(SERIES)], "s")
    page.text(left + 0.2, top, f"{architecture.name}, {architecture.subsets}", width=_LEGEND - 0.2)
    top += _LINE
  page.text(left, top + _LINE / 2, "Band: one standard deviation", width=_LEGEND, colour=GREY)
  page.text(left, top + 3 * _LINE / 2, "over so many of them", width=_LEGEND, colour=GREY)


def _csv_rows(found: Sequence[Architecture], size: int) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  for one in found:
    for what in one.accuracy:
      for alpha, mean, spread in zip(one.alphas, one.accuracy[what], one.deviation[what], strict=True):
        numbers = ("" if math.isnan(number) else f"{number:.6f}" for number in (mean, spread))
        yield one.name, one.split, size, one.subsets, f"{alpha:g}", what, *numbers
