"""Figure 5 of Zuo et al. (2016): images that one run has right and another wrong, with the largest gains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hierjax.evaluation.several_runs.compare import Comparison, mcnemar
from hierjax.report.plots.canvas import NodeNames, Page, frame, seen_images
from hierjax.report.plots.style import GREY, INK
from hierjax.runs.folder import RunFolder, write_table

COLUMNS = 6
_LEAST = 1e-300  # the smallest p-value that is shown
HEADER = (
  "only_right", "place", "image", "label", "gain",
  "first_predicted", "first_probability", "first_label_probability",
  "second_predicted", "second_probability", "second_label_probability",
)  # fmt: skip

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _GAP = 0.3, 2.35, 0.32, 0.2
_TABLE, _CELL = 1.1, 2.3  # where the 2 x 2 table begins, and the width of its columns
_SIDE, _STEP, _ROW, _LINE = 1.6, 1.8, 2.1, 0.15  # an image, the way to the next one, across and down; a line under it


def draw_comparison(folder: RunFolder, found: Comparison, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/compare.png and, beside it, compare.csv with its contents; returns the picture's path.

  At the top stand the 2 x 2 table of right and wrong paths, and McNemar's p-value.

  Above a dashed line are two rows of images that only the first run has right, below it one of those that only the
  second has right: those with the largest gain in the probability of the true end node. Under each image are
  the prediction of the first run and that of the second; right ones are in bold.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = folder.path / "pictures"
  shown = _shown_images(found)
  write_table(pictures / f"compare{suffix}.csv", HEADER, _comparison_rows(found, shown))
  heights = [_CAPTION + -(-len(images) // COLUMNS) * _ROW for images in shown]
  page = Page(2 * _MARGIN + COLUMNS * _STEP - _GAP, _HEAD + sum(heights) + _GAP + _MARGIN / 2)
  width = page.width - 2 * _MARGIN
  _comparison_heading(page, found, width)
  below = _HEAD + heights[0]
  _section(page, _HEAD, found, 0)
  page.rule(_MARGIN, below, width)
  _section(page, below + _GAP, found, 1)
  return page.save(pictures / f"compare{suffix}.{kind}")


def _shown_images(found: Comparison) -> tuple[np.ndarray, np.ndarray]:
  """Returns the images that only the first run and only the second run has right, as many as there is room for."""
  return found.won(0)[: 2 * COLUMNS], found.won(1)[:COLUMNS]


def _comparison_heading(page: Page, found: Comparison, width: float) -> None:
  first, second = found.names
  page.text(_MARGIN, 0.25, f"{first} against {second}", width=width, size=13.0, bold=True)
  about = (
    f"{found.split.capitalize()} images with the largest gain in the probability of the label",
    f"Under each, the predictions of {first} and then of {second}, with their probabilities; right ones in bold",
  )
  for line, text in enumerate(about):
    page.text(_MARGIN, 0.54 + 0.19 * line, text, width=width, size=9.0, colour=GREY)
  _counts(page, found)


def _counts(page: Page, found: Comparison) -> None:
  """Puts the 2 x 2 table, and McNemar's test of the two numbers off its diagonal."""
  first, second = found.names
  counts = found.counts()
  rows = [("", f"{second} right ✓", f"{second} wrong ✗")]
  rows += [
    (name, *(f"{n:,}" for n in row))
    for name, row in zip((f"{first} right ✓", f"{first} wrong ✗"), counts.tolist(), strict=True)
  ]
  for line, cells in enumerate(rows):
    for column, text in enumerate(cells):
      bold = line > 0 and column == 3 - line  # those that differ
      align, colour = ("right" if column else "left"), (GREY if line == 0 or column == 0 else INK)
      page.text(
        _MARGIN + column * _CELL, _TABLE + 0.24 * line, text, width=_CELL - 0.2, size=10.0, bold=bold, align=align,
        colour=colour,
      )  # fmt: skip
  p = mcnemar(int(counts[0, 1]), int(counts[1, 0]))
  shown = f"p = {p:.3g}" if p >= _LEAST else f"p < {_LEAST:g}"
  test = f"McNemar's exact test, {counts[0, 1]:,} against {counts[1, 0]:,}: {shown}"
  page.text(_MARGIN, _TABLE + 0.82, test, width=page.width - 2 * _MARGIN, size=10.0)


def _section(page: Page, top: float, found: Comparison, by: int) -> None:
  images, name, count = _shown_images(found)[by], found.names[by], len(found.won(by))
  title = f"Only {name} is right: {len(images)} of {count:,} such images" if count else f"Nowhere is only {name} right"
  page.text(_MARGIN, top, title, width=page.width - 2 * _MARGIN, size=10.0, bold=True)
  names = NodeNames(found.run.tree)
  pixels = seen_images(found.source, images, found.run.data.crop)
  for place, (image, own) in enumerate(zip(images.tolist(), pixels, strict=True)):
    row, column = divmod(place, COLUMNS)
    left, above = _MARGIN + column * _STEP, top + _CAPTION + row * _ROW
    frame(page.image(left, above, _SIDE, own), _SIDE, GREY, line=0.5)
    for line, table in enumerate(found.predictions):
      under, right = above + _SIDE + 0.05 + line * _LINE, bool(table.right[image])
      text, ending = names(int(table.ends[image])), f" ({table.end_probability[image]:.2f})"
      page.text(left, under, text, width=_SIDE, size=7.5, bold=right, align="center", ending=ending)


def _comparison_rows(found: Comparison, shown: Sequence[np.ndarray]) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  tree = found.run.tree
  for by, images in enumerate(shown):
    for place, image in enumerate(images.tolist(), 1):
      label = tree.path_text(int(found.source.nodes[image, 0]))
      answers = [
        (tree.path_text(int(a.ends[image])), f"{a.end_probability[image]:.6f}", f"{a.label_probability[image]:.6f}")
        for a in found.predictions
      ]
      gain = f"{found.gain(by)[image]:.6f}"
      yield found.names[by], place, found.source.name_of(image), label, gain, *answers[0], *answers[1]
