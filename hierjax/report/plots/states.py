"""The picture of the states of an LSTM, and the table beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from hierjax.evaluation.tables import percent
from hierjax.report.plots.canvas import Page, grid, name_points
from hierjax.report.plots.state_maps import FEWEST, NONE, States, Step, rates
from hierjax.report.plots.style import GREY, LIGHT, node_colours
from hierjax.runs.folder import RunFolder, write_table

HEADER = ("image", "label", "predicted", "step", "x", "y", "nearest", "same_top_label", "same_whole_label")

_COLUMNS = 2
_MOST_NAMES = 28  # of a step: the most frequent labels

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _GAP = 0.3, 1.05, 0.42, 0.35
_SIDE = 5.6  # a panel


def draw_states(folder: RunFolder, found: States, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/states.png and, beside it, states.csv with its contents; returns the picture's path.

  A panel a step, in which each dot is an image, coloured by its label at the level of that step; the names of the most
  frequent labels stand in the middle of their dots. The CSV has a row for each image of each step.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = folder.path / "pictures"
  write_table(pictures / f"states{suffix}.csv", HEADER, _states_rows(found))
  rows, columns = grid(len(found.steps), _COLUMNS)
  page = Page(2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP, _HEAD + rows * (_CAPTION + _SIDE + _GAP) + _MARGIN / 2)
  _states_heading(page, folder, found)
  colours = node_colours(found.run.tree)
  for number in range(len(found.steps)):
    row, column = divmod(number, columns)
    place = _MARGIN + column * (_SIDE + _GAP), _HEAD + row * (_CAPTION + _SIDE + _GAP)
    _draw_step(page, place, found, number, colours)
  return page.save(pictures / f"states{suffix}.{kind}")


def labels_at(found: States, number: int) -> Int[np.ndarray, "m"]:
  """Returns the node of each image's label at the level of a step, of the images of the step; -1 where it has none."""
  nodes = found.run.tree.encode(found.labels[found.steps[number].images])[:, number]
  return np.maximum(nodes, -1)


def _states_heading(page: Page, folder: RunFolder, found: States) -> None:
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.25, "States of the LSTM after each step, by t-SNE", width=width, size=13.0, bold=True)
  about = (
    f"{folder.path.name}: {len(found.source):,} images of {found.split}, fed the path that is predicted for them",
    "Colour and name: the label at the level of the step, near labels of the tree in near hues; grey: it ends above",
  )
  for line, text in enumerate(about):
    page.text(_MARGIN, 0.52 + 0.19 * line, text, width=width, size=9.0, colour=GREY)


def _draw_step(
  page: Page, place: tuple[float, float], found: States, number: int, colours: Float[np.ndarray, "n 3"]
) -> None:
  """Draws the panel of a step at a place, in inches from the left and from the top."""
  (left, top), step = place, found.steps[number]
  level = found.run.tree.named_levels[number] if number < found.run.tree.depth else ""
  name = f"Step {number + 1}" + (f": {level}" if level and not level.startswith("level ") else "")
  count = len(step.images)
  title = name if count == len(found.source) else f"{name}, that {count:,} of the paths reach"
  page.text(left, top, title, width=_SIDE, size=10.0, bold=True)
  top_rate, whole_rate = map(percent, rates(found, step))
  rates_text = f"Nearest other state: same top label {top_rate}, same whole label {whole_rate}"
  page.text(left, top + 0.19, rates_text, width=_SIDE, colour=GREY)
  axes = page.panel(left, top + _CAPTION, _SIDE)
  if step.places is None:
    few = f"No map: fewer than {FEWEST} different states"
    page.text(left, top + _CAPTION + _SIDE / 2, few, width=_SIDE, size=9.0, colour=GREY, align="center")
    return
  _draw_dots(axes, step, labels_at(found, number), colours)
  _draw_names(axes, step, labels_at(found, number), found)


def _draw_dots(axes: Axes, step: Step, nodes: Int[np.ndarray, "m"], colours: Float[np.ndarray, "n 3"]) -> None:
  size = min(22.0, max(5.0, 14_000 / len(nodes)))  # square points
  shown = np.where(nodes[:, None] >= 0, colours[nodes], to_rgb(LIGHT))
  order = np.argsort(nodes >= 0, kind="stable")  # those without a label below the others
  assert step.places is not None
  axes.scatter(*step.places[order].T, s=size, c=shown[order], linewidths=0, alpha=0.8, rasterized=len(nodes) > 2000)
  axes.set_aspect("equal", adjustable="datalim")


def _draw_names(axes: Axes, step: Step, nodes: Int[np.ndarray, "m"], found: States) -> None:
  """Puts the names of the most frequent labels at the centroids of their dots, as far as they have room."""
  labels, counts = np.unique(nodes[nodes >= 0], return_counts=True)
  frequent = labels[np.argsort(-counts, kind="stable")][:_MOST_NAMES]
  assert step.places is not None
  points = {found.run.tree.names[node]: np.median(step.places[nodes == node], axis=0) for node in frequent.tolist()}
  name_points(axes, points)


def _states_rows(found: States) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  tree = found.run.tree
  ends = tree.ends(found.paths)
  for number, step in enumerate(found.steps, 1):
    top, whole = found.same_label(step, whole=False), found.same_label(step, whole=True)
    for i, (image, nearest) in enumerate(zip(step.images.tolist(), step.nearest.tolist(), strict=True)):
      place = ("", "") if step.places is None else tuple(f"{x:.4f}" for x in step.places[i])
      neighbour = ("", "", "") if nearest == NONE else (found.source.name_of(nearest), int(top[i]), int(whole[i]))
      label, predicted = tree.path_text(int(found.labels[image])), tree.path_text(int(ends[image]))
      yield found.source.name_of(image), label, predicted, number, *place, *neighbour
