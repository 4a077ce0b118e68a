"""What pictures share: images as they are seen, a page in inches, labels that fit."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from hierjax.data.images.read_image import unstretched
from hierjax.data.source import Source
from hierjax.inference.images import check_images
from hierjax.report.plots.style import DPI, FAMILY, GREY, INK, file_of, tidy
from hierjax.runs.folder import write_whole
from hierjax.tree.label_tree import LabelTree

_POINT = 1 / 72  # inches
_BREAK = re.compile(r"[\s/_-]")


def seen_images(
  source: Source, numbers: Int[np.ndarray, "m"] | Sequence[int], crop: int
) -> UInt8[np.ndarray, "m s s 3"]:
  """Returns images by number as a model sees them in evaluation, but for normalisation: their centres of `crop` pixels.

  Raises:
    UserError: as `check_images`.
  """
  check_images(source)
  height, width, channels = source.shape
  top, left = (height - crop) // 2, (width - crop) // 2
  chosen = np.asarray(numbers, np.int64)
  pixels = unstretched(source.read(chosen), source.extents(chosen))[:, top : top + crop, left : left + crop]
  return np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels


def grid(count: int, most: int) -> tuple[int, int]:
  """Returns rows and columns for `count` things, in as few rows of at most `most` as there can be, evenly filled."""
  rows = max(1, math.ceil(count / most))
  return rows, math.ceil(count / rows)


class NodeNames:
  """Names of nodes for captions: a node's own name and, where another has it too, its ancestors' in brackets."""

  def __init__(self, tree: LabelTree):
    self._tree = tree
    self._count = Counter(tree.names)

  def __call__(self, node: int) -> str:
    """Returns the name of a node; a dash for a token."""
    if node < 0:
      return "-"
    names = self._tree.path_names(node)
    first = max((i for i, name in enumerate(names) if self._count[name] == 1), default=0)
    return names[-1] + (f" ({' > '.join(names[first:-1])})" if first < len(names) - 1 else "")


@dataclasses.dataclass(frozen=True)
class Box:
  """A rectangle in an image, from 0 to 1: `top` and `bottom` of its height, `left` and `right` of its width."""

  top: float
  left: float
  bottom: float
  right: float


class Page:
  """A white page on which things are put by their distance from the top left corner, in inches."""

  def __init__(self, width: float, height: float):
    self.width, self._height = width, height
    self._figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(self._figure)  # which the figure keeps

  def image(self, left: float, top: float, side: float, pixels: UInt8[np.ndarray, "s s 3"]) -> Axes:
    """Puts a square image, and returns its axes: from (0, 0), its top left corner, to (1, 1)."""
    axes = self._figure.add_axes(self._place(left, top, side, side), frameon=False, xticks=[], yticks=[])
    axes.imshow(pixels, extent=(0, 1, 1, 0))
    return axes

  def panel(self, left: float, top: float, side: float) -> Axes:
    """Puts a square panel without ticks, in a grey frame, and returns its axes."""
    axes = self._figure.add_axes(self._place(left, top, side, side), xticks=[], yticks=[])
    for edge in axes.spines.values():
      edge.set(color=GREY, linewidth=0.6)
    return axes

  def plot(self, left: float, top: float, width: float, height: float) -> Axes:
    """Puts a panel with ticks, whose numbers lie outside it, and returns its axes."""
    axes = self._figure.add_axes(self._place(left, top, width, height))
    tidy(axes)
    return axes

  def _place(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    return left / self.width, 1 - (top + height) / self._height, width / self.width, height / self._height

  def text(
    self,
    left: float,
    top: float,
    text: str,
    *,
    width: float,
    size: float = 8.0,
    bold: bool = False,
    colour: str = INK,
    align: str = "left",
    ending: str = "",
  ) -> None:
    """Puts a line of text, cut short to `width` inches; never as mathematics.

    Args:
      left: where the `width` inches begin.
      top: where the line does.
      text: any text; what the font lacks is shown as a replacement character.
      width: of the line, in inches.
      size: in points.
      bold: whether in bold.
      colour: of the text.
      align: left, center or right within the width.
      ending: text that follows and is never cut.
    """
    font = _font(size, bold)
    shown = _cut(printable(text), printable(ending), font, width)
    x = left + {"left": 0.0, "center": width / 2, "right": width}[align]
    self._figure.text(
      x / self.width, 1 - top / self._height, shown, fontproperties=font, color=colour, ha=align, va="top",
      parse_math=False,
    )  # fmt: skip

  def side_text(self, left: float, top: float, text: str, *, height: float, size: float = 8.0) -> None:
    """Puts a line of text that runs upwards, in the middle of `height` inches, cut short to them."""
    font = _font(size, False)
    self._figure.text(
      left / self.width, 1 - (top + height / 2) / self._height, _cut(printable(text), "", font, height),
      fontproperties=font, rotation=90, ha="center", va="center", parse_math=False,
    )  # fmt: skip

  def rule(self, left: float, top: float, width: float) -> None:
    """Puts a dashed horizontal line."""
    y = 1 - top / self._height
    ends = [left / self.width, (left + width) / self.width]
    self._figure.add_artist(Line2D(ends, [y, y], color=GREY, linewidth=1.2, dashes=(6, 4)))

  def key(self, left: float, top: float, colour: str, dashed: bool = False) -> None:
    """Puts a small square outline, as `mark_region` draws it, for a legend."""
    side = 0.13
    outline = Rectangle(
      (left / self.width, 1 - (top + side) / self._height), side / self.width, side / self._height,
      fill=False, edgecolor=colour, linewidth=1.8, linestyle=_style(dashed),
    )  # fmt: skip
    self._figure.add_artist(outline)

  def dot(self, left: float, top: float, colour: str, marker: str) -> None:
    """Puts a marker of `matplotlib.markers` where a line of text of 8 points that begins at `top` has its middle."""
    x, y = left / self.width, 1 - (top + 0.055) / self._height
    self._figure.add_artist(Line2D([x], [y], color=colour, marker=marker, markersize=6, markeredgewidth=0))

  def save(self, path: Path) -> Path:
    """Writes the page as a PNG, SVG or PDF file, by the end of its name, whole or not at all; returns its path."""
    write_whole(path, file_of(self._figure, path.suffix[1:]))
    return path


def wrap(text: str, *, width: float, size: float = 8.0, bold: bool = False, most: int = 3) -> list[str]:
  """Returns text as lines of at most `width` inches, for `Page.text` to put.

  A line breaks after a blank, slash, hyphen or underscore, or within a word that is too long for a line of its own. The
  last of `most` lines is too long where the text is; `Page.text` cuts it short.
  """
  font, rest = _font(size, bold), printable(text).strip()
  lines: list[str] = []
  while len(lines) < most - 1 and not _fits(rest, font, width):
    room = max(1, _largest(len(rest), lambda i, rest=rest: _fits(rest[:i].rstrip(), font, width)))
    breaks = [found.end() for found in _BREAK.finditer(rest) if len(rest[: found.end()].rstrip()) <= room]
    end = breaks[-1] if breaks else room
    lines.append(rest[:end].rstrip())
    rest = rest[end:].lstrip()
  return [*lines, rest]


def _cut(text: str, ending: str, font: font_manager.FontProperties, width: float) -> str:
  """Returns as much of a text as fits before its ending."""

  def shortened(length: int) -> str:
    return f"{text[:length].rstrip()}…{ending}"

  if _fits(text + ending, font, width):
    return text + ending
  return shortened(_largest(len(text), lambda i: _fits(shortened(i), font, width)))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
  """Returns the largest number up to `most` that fits, where all smaller ones do; 0 where none does."""
  return bisect.bisect_left(range(1, most + 1), True, key=lambda i: not fits(i))


def _fits(text: str, font: font_manager.FontProperties, width: float) -> bool:
  return _renderer().get_text_width_height_descent(text, font, False)[0] <= width * DPI


@functools.cache
def _renderer() -> RendererAgg:
  return FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()


def _font(size: float, bold: bool) -> font_manager.FontProperties:
  return font_manager.FontProperties(family=FAMILY, size=size, weight="bold" if bold else "normal")


def mark_region(axes: Axes, side: float, box: Box, colour: str, dashed: bool = False) -> None:
  """Outlines a region of an image that is `side` inches large, with a white rim that shows on any ground."""
  line = 1.8
  inset = (line + 1.2) / 2 * _POINT / side  # the outline lies within the region, so that it shows at the image's edge
  outline = Rectangle(
    (box.left + inset, box.top + inset), box.right - box.left - 2 * inset, box.bottom - box.top - 2 * inset,
    fill=False, edgecolor=colour, linewidth=line, linestyle=_style(dashed),
    path_effects=[withStroke(linewidth=line + 1.2, foreground="white")],
  )  # fmt: skip
  axes.add_patch(outline)


def name_points(axes: Axes, points: Mapping[str, Float[np.ndarray, "2"]], size: float = 8.0) -> list[str]:
  """Puts names at points of a panel, with a white rim; one that would lie on an earlier one is left out.

  Returns:
    The names that have room.
  """
  renderer, font = _renderer(), _font(size, True)
  placed: list[Any] = []
  named = []
  axes.autoscale_view()
  axes.apply_aspect()  # equal scales move the points
  for name, point in points.items():
    rim = [withStroke(linewidth=2.4, foreground="white")]
    x, y = point.tolist()
    text = axes.text(x, y, printable(name), fontproperties=font, color=INK, ha="center", va="center", zorder=5)
    text.set(parse_math=False, path_effects=rim, clip_on=True)
    box = text.get_window_extent(renderer)
    if any(box.overlaps(other) for other in placed):
      text.remove()
      continue
    placed.append(box)
    named.append(name)
  return named


def frame(axes: Axes, side: float, colour: str, line: float = 1.8) -> None:
  """Puts a frame of `line` points around an image that is `side` inches large."""
  out = line / 2 * _POINT / side
  axes.add_patch(
    Rectangle((-out, -out), 1 + 2 * out, 1 + 2 * out, fill=False, edgecolor=colour, linewidth=line, clip_on=False)
  )


def _style(dashed: bool) -> str | tuple[int, tuple[float, float]]:
  return (0, (2.5, 1.5)) if dashed else "solid"


def printable(text: str) -> str:
  """Returns text that the pictures' font can draw: blanks for control characters, U+FFFD for what it lacks."""
  known = _characters()
  return "".join(" " if not c.isprintable() else c if ord(c) in known else "\N{REPLACEMENT CHARACTER}" for c in text)


@functools.cache
def _characters() -> frozenset[int]:
  return frozenset(font_manager.get_font(font_manager.findfont(FAMILY)).get_charmap())
