"""The picture of the nearest regions, and the table beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from hierjax.data.source import Source
from hierjax.report.plots.canvas import Page, frame, mark_region, seen_images
from hierjax.report.plots.neighbour_search import NEAREST, Neighbours
from hierjax.report.plots.style import ACCENT, BAD, GOOD, GREY
from hierjax.runs.folder import RunFolder, write_table

HEADER = (
  "query", "layer", "rank", "image", "label",
  "row", "column", "top", "left", "bottom", "right", "distance", "same_label",
)  # fmt: skip

_LEGEND = (
  (ACCENT, False, "the query"),
  (GOOD, False, "has the same label"),
  (BAD, True, "has another label"),
)

# The page, in inches.
_MARGIN, _HEAD, _BETWEEN = 0.3, 1.1, 0.2
_SIDE, _STEP, _ROW = 1.9, 2.05, 2.2  # a neighbour's image, and the way to the next one, across and down
_QUERY_SIDE, _FIRST = 2.3, 3.9  # the query's image, and where the neighbours begin


def draw_neighbours(folder: RunFolder, answer: Neighbours, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/neighbours.png and, beside it, neighbours.csv with its contents; returns the picture's path.

  Boxes in the CSV are in pixels of the image as the model sees it; rank 0 is the query itself.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = folder.path / "pictures"
  write_table(pictures / f"neighbours{suffix}.csv", HEADER, _neighbours_rows(answer))
  queries = len(answer.cells)
  page = Page(_FIRST + NEAREST * _STEP + _MARGIN, _top(answer, queries) + _MARGIN / 2)
  _neighbours_heading(page, folder, answer)
  for query in range(queries):
    _draw_query(page, answer, query)
    for row in range(len(answer.found)):
      _draw_layer(page, answer, query, row)
  return page.save(pictures / f"neighbours{suffix}.{kind}")


def _neighbours_heading(page: Page, folder: RunFolder, answer: Neighbours) -> None:
  grid, width = answer.grid, page.width - 2 * _MARGIN
  title = f"Nearest training regions by chi-square distance, {grid.rows} x {grid.columns} regions an image"
  page.text(_MARGIN, 0.25, title, width=width, size=13.0, bold=True)
  about = f"{folder.path.name}: regions of {answer.split} images; searched {len(answer.searched):,} training images"
  page.text(_MARGIN, 0.52, about, width=width, size=9.0, colour=GREY)
  left = _MARGIN
  for colour, dashed, text in _LEGEND:
    page.key(left, 0.75, colour, dashed)
    page.text(left + 0.2, 0.75, text, width=2.0, size=9.0)
    left += 2.3


def _top(answer: Neighbours, query: int) -> float:
  return _HEAD + query * (len(answer.found) * _ROW + _BETWEEN)


def _draw_query(page: Page, answer: Neighbours, query: int) -> None:
  top, crop, rows = _top(answer, query), answer.run.data.crop, len(answer.found)
  middle = top + (rows * _ROW - _QUERY_SIDE - 0.2) / 2 if rows > 1 else top
  side = _QUERY_SIDE if rows > 1 else _SIDE
  axes = page.image(_MARGIN, middle, side, seen_images(answer.queries, [query], crop)[0])
  mark_region(axes, side, answer.grid.box(int(answer.cells[query])), ACCENT)
  page.text(_MARGIN, middle + side + 0.06, _label(answer, answer.queries, query), width=side, bold=True, align="center")


def _draw_layer(page: Page, answer: Neighbours, query: int, row: int) -> None:
  """Draws the nearest regions to a query in a layer, by its number."""
  top, layer = _top(answer, query) + row * _ROW, list(answer.found)[row]
  same, count = answer.hits(layer, query)
  beside, width, middle = _MARGIN + _QUERY_SIDE, _FIRST - _MARGIN - _QUERY_SIDE - 0.1, top + _SIDE / 2
  page.text(beside, middle - 0.15, layer, width=width, align="right")
  page.text(beside, middle + 0.02, f"{same} of {count} with the label", width=width, align="right", colour=GREY)
  answers = answer.answers(layer, query)
  images = seen_images(answer.searched, [image for image, _, _ in answers], answer.run.data.crop)
  for rank, ((image, cell, _), pixels) in enumerate(zip(answers, images, strict=True)):
    same = answer.same_label(query, image)
    colour, left = (GOOD if same else BAD), _FIRST + rank * _STEP
    axes = page.image(left, top, _SIDE, pixels)
    frame(axes, _SIDE, colour)
    mark_region(axes, _SIDE, answer.grid.box(cell), colour, dashed=not same)
    page.text(left, top + _SIDE + 0.04, _label(answer, answer.searched, image), width=_SIDE, align="center")


def _label(answer: Neighbours, source: Source, image: int) -> str:
  return ", ".join(answer.names(node) for node in source.nodes[image].tolist() if node >= 0)


def _neighbours_rows(answer: Neighbours) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  for query in range(len(answer.cells)):
    yield query + 1, "", 0, *_region(answer, answer.queries, query, int(answer.cells[query])), "", ""
    for layer in answer.found:
      for rank, (image, cell, distance) in enumerate(answer.answers(layer, query), 1):
        region = _region(answer, answer.searched, image, cell)
        yield query + 1, layer, rank, *region, f"{distance:.6g}", int(answer.same_label(query, image))


def _region(answer: Neighbours, source: Source, image: int, cell: int) -> tuple[object, ...]:
  labels = " | ".join(answer.run.tree.path_text(node) for node in source.nodes[image].tolist() if node >= 0)
  pixels = [f"{answer.run.data.crop * edge:g}" for edge in dataclasses.astuple(answer.grid.box(cell))]
  return source.name_of(image), labels, *divmod(cell, answer.grid.columns), *pixels
