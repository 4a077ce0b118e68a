"""Figure 7 of Guo et al. (2018): predicted paths beside their images, right and wrong, and the table beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from hierjax.report.plots.canvas import Page, frame, grid, seen_images, wrap
from hierjax.report.plots.path_sheet import PathLine, PathSheet, path_lines
from hierjax.report.plots.style import BAD, GOOD, GREY, INK
from hierjax.runs.folder import RunFolder, write_table
from hierjax.tree.label_tree import UNKNOWN

HEADER = ("group", "in_group", "place", "image", "label", "level", "predicted", "probability", "right")
TITLES = {
  "a": "Right",
  "b": "Partly right",
  "c": "Right, of the same categories as (d)",
  "d": "Wholly wrong, of the same categories as (c)",
}
_MARKS = {True: ("✓", GOOD), False: ("✗", BAD), None: ("?", GREY)}

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _GAP = 0.3, 1.0, 0.3, 0.25
_SIDE, _BESIDE, _TEXT, _LINE = 1.35, 0.12, 2.1, 0.15  # an image, the way to the text beside it, that, a line of it
_MARK, _PROBABILITY, _INDENT = 0.15, 0.33, 0.09  # columns of the text; how much a level is indented
_COLUMNS = 4
_MOST_INDENTS, _MOST_LINES = 6, 40


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of text beside an image.

  Attributes:
    text: its words.
    left: where it begins, in inches from the left edge of the text.
    right: how it ends short of the right edge.
    bold: whether in bold.
    part: the part of the path that begins here, whose mark and probability stand in this line; None where none does.
  """

  text: str
  left: float = 0.0
  right: float = 0.0
  bold: bool = False
  colour: str = INK
  part: PathLine | None = None


def draw_paths(folder: RunFolder, found: PathSheet, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/paths.png and, beside it, paths.csv with its contents; returns the picture's path.

  The CSV has a row for each node of a path, and one more where it ends above a leaf.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = folder.path / "pictures"
  write_table(pictures / f"paths{suffix}.csv", HEADER, _predictions_rows(found))
  columns = max(2, grid(max(map(len, found.chosen.values())), _COLUMNS)[1])  # the title wants the width of 2
  groups = [_Group.of(found, name, columns) for name in found.chosen]
  height = sum(group.height for group in groups)
  page = Page(2 * _MARGIN + columns * (_SIDE + _BESIDE + _TEXT + _GAP) - _GAP, _HEAD + height + _MARGIN / 2)
  _predictions_heading(page, folder, found)
  top = _HEAD
  for group in groups:
    _draw_group(page, top, found, group)
    top += group.height
  return page.save(pictures / f"paths{suffix}.{kind}")


def lines(found: PathSheet, image: int) -> list[Line]:
  """Returns the text beside an image: its label, and under it the predicted path, a node a line."""
  names = found.run.tree.path_names(int(found.source.nodes[image, 0]))
  shown = [Line(text, bold=True) for text in wrap(" > ".join(names), width=_TEXT, bold=True, most=6)]
  for level, part in enumerate(path_lines(found, image)):
    left = _MARK + min(level, _MOST_INDENTS) * _INDENT
    bold, colour = part.right is False, BAD if part.right is False else INK
    pieces = wrap(part.name, width=_TEXT - left - _PROBABILITY, bold=bold, most=2)
    shown += [Line(piece, left, _PROBABILITY, bold, colour, None if i else part) for i, piece in enumerate(pieces)]
  return shown[:_MOST_LINES]


@dataclasses.dataclass(frozen=True)
class _Group:
  """A group of images with the text beside each.

  Attributes:
    name: of the group.
    texts: the lines beside each image.
    columns: images in a row.
  """

  name: str
  texts: Sequence[list[Line]]
  columns: int

  @classmethod
  def of(cls, found: PathSheet, name: str, columns: int) -> _Group:
    return cls(name, [lines(found, image) for image in found.chosen[name].tolist()], columns)

  @property
  def rows(self) -> list[slice]:
    """The images of each row."""
    return [slice(i, i + self.columns) for i in range(0, len(self.texts), self.columns)]

  def row_height(self, row: slice) -> float:
    return max(_SIDE, *(len(text) * _LINE for text in self.texts[row])) + _GAP

  @property
  def height(self) -> float:
    return _CAPTION + sum(map(self.row_height, self.rows))


def _predictions_heading(page: Page, folder: RunFolder, found: PathSheet) -> None:
  width = page.width - 2 * _MARGIN
  page.text(_MARGIN, 0.25, "Predicted paths, right and wrong", width=width, size=13.0, bold=True)
  counts = ", ".join(f"{mask.sum():,} {name}" for name, mask in found.predictions.groups.items())
  marks = "✓ right, ✗ wrong" + (", ? where the label is unknown" if (found.predictions.labels == UNKNOWN).any() else "")
  about = (
    f"{folder.path.name}: {found.predictions.counted.sum():,} images of {found.split}: {counts}",
    f"Bold: the label. Below it: the predicted path, with the probability of each node; {marks}",
  )
  for line, text in enumerate(about):
    page.text(_MARGIN, 0.52 + 0.19 * line, text, width=width, size=9.0, colour=GREY)


def _draw_group(page: Page, top: float, found: PathSheet, group: _Group) -> None:
  count, images = found.sizes()[group.name], found.chosen[group.name]
  shown = f"{len(images)} of {count:,} images" if count else "no image"
  page.text(
    _MARGIN, top, f"({group.name}) {TITLES[group.name]}: {shown}", width=page.width - 2 * _MARGIN, size=10.0, bold=True
  )
  pixels = seen_images(found.source, images, min(found.source.shape[:2]))
  top += _CAPTION
  for row in group.rows:
    for column, (own, text) in enumerate(zip(pixels[row], group.texts[row], strict=True)):
      left = _MARGIN + column * (_SIDE + _BESIDE + _TEXT + _GAP)
      frame(page.image(left, top, _SIDE, own), _SIDE, GREY, line=0.5)
      _draw_lines(page, left + _SIDE + _BESIDE, top, text)
    top += group.row_height(row)


def _draw_lines(page: Page, left: float, top: float, text: list[Line]) -> None:
  for number, line in enumerate(text):
    above, width = top + number * _LINE, _TEXT - line.left - line.right
    page.text(left + line.left, above, line.text, width=width, bold=line.bold, colour=line.colour)
    if line.part is not None:
      mark, colour = _MARKS[line.part.right]
      page.text(left, above, mark, width=_MARK, bold=True, colour=colour)
      page.text(left, above, f"{line.part.probability:.2f}", width=_TEXT, colour=line.colour, align="right")


def _predictions_rows(found: PathSheet) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  sizes = found.sizes()
  for group, images in found.chosen.items():
    for place, image in enumerate(images.tolist(), 1):
      label = found.run.tree.path_text(int(found.source.nodes[image, 0]))
      for level, part in enumerate(path_lines(found, image), 1):
        right = "" if part.right is None else int(part.right)
        row = found.source.name_of(image), label, level, part.name, f"{part.probability:.6f}", right
        yield group, sizes[group], place, *row
