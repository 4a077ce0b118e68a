"""The picture of the states of an LSTM, and the table beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hierjax.evaluation.tables import percent
from hierjax.report.plots.canvas import GREY, Page, grid
from hierjax.report.plots.state_maps import FEWEST, NONE, States, rates
from hierjax.runs.folder import RunFolder, write_table

HEADER = ("image", "label", "predicted", "step", "x", "y", "nearest", "same_top_label", "same_whole_label")
COLOURS = (
  "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
MARKERS = ("o", "^")
_OTHER = "#d0d0d0"

_COLUMNS = 3

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _GAP = 0.3, 0.85, 0.42, 0.25
_SIDE, _LEGEND, _LINE = 4.2, 2.3, 0.2  # a panel, the legend, a line of it


@dataclasses.dataclass(frozen=True)
class Kind:
  """How images of some top-level labels are drawn.

  Attributes:
    name: of the label.
    nodes: the labels.
    colour: of their dots.
    marker: of matplotlib.
  """

  name: str
  nodes: tuple[int, ...]
  colour: str
  marker: str


def draw_states(folder: RunFolder, found: States) -> Path:
  """Writes pictures/states.png and, beside it, states.csv with its contents; returns the PNG's path.

  A panel a step, in which each dot is an image, coloured by the top level of its label. The CSV has a row for each
  image of each step.
  """
  pictures = folder.path / "pictures"
  write_table(pictures / "states.csv", HEADER, _states_rows(found))
  kinds = top_kinds(found)
  rows, columns = grid(len(found.steps), _COLUMNS)
  panels = columns * (_SIDE + _GAP)
  height = max(rows * (_CAPTION + _SIDE + _GAP), _CAPTION + len(kinds) * _LINE)
  page = Page(2 * _MARGIN + panels + _LEGEND, _HEAD + height + _MARGIN / 2)
  _states_heading(page, folder, found)
  for number in range(len(found.steps)):
    row, column = divmod(number, columns)
    place = _MARGIN + column * (_SIDE + _GAP), _HEAD + row * (_CAPTION + _SIDE + _GAP)
    _draw_step(page, place, found, number)
  _legend(page, _MARGIN + panels, _HEAD + _CAPTION, kinds)
  page.save(pictures / "states.png")
  return pictures / "states.png"


def top_kinds(found: States) -> list[Kind]:
  """Returns a colour and marker for each top-level label; where there are too many, for the most frequent ones."""
  nodes, counts = np.unique(found.tops, return_counts=True)
  styles = [(colour, marker) for marker in MARKERS for colour in COLOURS]
  if len(nodes) > len(styles):
    frequent = np.argsort(-counts, kind="stable")[: len(styles)]
    others = tuple(np.delete(nodes, frequent).tolist())
    nodes = np.sort(nodes[frequent])
  else:
    others = ()
  kinds = [
    Kind(found.run.tree.names[node], (node,), *style) for node, style in zip(nodes.tolist(), styles, strict=False)
  ]
  return [*kinds, Kind(f"{len(others)} other labels", others, _OTHER, "o")] if others else kinds


def _states_heading(page: Page, folder: RunFolder, found: States) -> None:
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.25, "States of the LSTM after each step, by t-SNE", width=width, size=13.0, bold=True)
  about = f"{folder.path.name}: {len(found.source):,} images of {found.split}, fed the path that is predicted for them"
  page.text(_MARGIN, 0.52, about, width=width, size=9.0, colour=GREY)


def _draw_step(page: Page, place: tuple[float, float], found: States, number: int) -> None:
  """Draws the panel of a step at a place, in inches from the left and from the top."""
  (left, top), step, name = place, found.steps[number], f"Step {number + 1}"
  count = len(step.images)
  title = name if count == len(found.source) else f"{name}, that {count:,} of the paths reach"
  page.text(left, top, title, width=_SIDE, size=10.0, bold=True)
  top_rate, whole_rate = map(percent, rates(found, step))
  rates_text = f"Nearest other state: same top label {top_rate}, same whole label {whole_rate}"
  page.text(left, top + 0.19, rates_text, width=_SIDE, colour=GREY)
  if step.places is None:
    few = f"No map: fewer than {FEWEST} different states"
    page.panel(left, top + _CAPTION, _SIDE)
    page.text(left, top + _CAPTION + _SIDE / 2, few, width=_SIDE, size=9.0, colour=GREY, align="center")
    return
  axes = page.panel(left, top + _CAPTION, _SIDE)
  size = min(20.0, max(4.0, 12_000 / count))  # square points
  for kind in reversed(top_kinds(found)):  # the others first, below the rest
    x, y = step.places[np.isin(found.tops[step.images], kind.nodes)].T
    axes.scatter(x, y, s=size, c=kind.colour, marker=kind.marker, linewidths=0, alpha=0.8)
  axes.set_aspect("equal", adjustable="datalim")


def _legend(page: Page, left: float, top: float, kinds: list[Kind]) -> None:
  page.text(left, top - 0.22, "Top level of the label", width=_LEGEND, bold=True)
  for line, kind in enumerate(kinds):
    page.dot(left + 0.06, top + line * _LINE, kind.colour, kind.marker)
    page.text(left + 0.18, top + line * _LINE, kind.name, width=_LEGEND - 0.18)


def _states_rows(found: States) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  tree = found.run.tree
  ends = tree.ends(found.paths)
  for number, step in enumerate(found.steps, 1):
    top, whole = found.same_label(step, whole=False), found.same_label(step, whole=True)
    for i, (image, nearest) in enumerate(zip(step.images.tolist(), step.nearest.tolist(), strict=True)):
      place = ("", "") if step.places is None else tuple(f"{x:.4f}" for x in step.places[i])
      neighbour = ("", "", "") if nearest == NONE else (found.source.describe(nearest), int(top[i]), int(whole[i]))
      label, predicted = tree.path_text(int(found.labels[image])), tree.path_text(int(ends[image]))
      yield found.source.describe(image), label, predicted, number, *place, *neighbour
