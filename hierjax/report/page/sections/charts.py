"""Line charts as SVG: the scales, ticks and paths that the template draws; colours come from the page's style."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Series:
  """A line of a chart.

  Attributes:
    name: for the legend.
    style: the class of the page's style: `a` to `d`, or `guide`.
    points: from left to right.
    dots: whether each point is a dot too.
  """

  name: str
  style: str
  points: Sequence[Point]
  dots: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
  """A chart with one scale a side.

  Attributes:
    title: of the chart.
    summary: what it shows, in a sentence, for those who do not see it.
    x: the words at the horizontal axis.
    y: the words at the vertical axis.
    x_range: from and to.
    y_range: from and to.
    series: the lines.
    bars: heights, from 0 to 1 of the chart's, of bars that fill its width.
    shares: whether both scales are shares, written as percentages; of the vertical one alone with `counts`.
    counts: whether the horizontal scale counts.
  """

  title: str
  summary: str
  x: str
  y: str
  x_range: Point
  y_range: Point
  series: Sequence[Series]
  bars: Sequence[float] = ()
  shares: bool = True
  counts: bool = False

  width, height = 340, 230
  left, right, top, bottom = 46, 20, 10, 40

  @property
  def inner_width(self) -> int:
    """The width of the area of the lines."""
    return self.width - self.left - self.right

  @property
  def inner_height(self) -> int:
    """Its height."""
    return self.height - self.top - self.bottom

  def x_at(self, value: float) -> float:
    """Returns where a value lies from left to right."""
    low, high = self.x_range
    return round(self.left + self.inner_width * (value - low) / ((high - low) or 1), 1)

  def y_at(self, value: float) -> float:
    """Returns where a value lies from top to bottom."""
    low, high = self.y_range
    return round(self.top + self.inner_height * (1 - (value - low) / ((high - low) or 1)), 1)

  @functools.cached_property
  def x_ticks(self) -> list[tuple[float, str]]:
    """Places and texts of the horizontal scale."""
    return [(self.x_at(v), f"{v:,.0f}" if self.counts else _text(v, self.shares)) for v in _ticks(self.x_range, 4)]

  @functools.cached_property
  def y_ticks(self) -> list[tuple[float, str]]:
    """Places and texts of the vertical scale."""
    return [(self.y_at(v), _text(v, self.shares)) for v in _ticks(self.y_range, 4)]

  def path(self, series: Series) -> str:
    """Returns the `d` of a line."""
    return "M" + "L".join(f"{self.x_at(x)} {self.y_at(y)}" for x, y in series.points) if series.points else ""

  def dots(self, series: Series) -> list[Point]:
    """Returns the places of a line's points."""
    return [(self.x_at(x), self.y_at(y)) for x, y in series.points]

  def boxes(self) -> list[tuple[float, float, float, float]]:
    """Returns left, top, width and height of each bar."""
    step, floor = self.inner_width / max(len(self.bars), 1), self.top + self.inner_height
    return [
      (round(self.left + i * step + 1, 1), round(floor - tall * self.inner_height, 1), round(step - 2, 1),
       round(tall * self.inner_height, 1))
      for i, tall in enumerate(self.bars)
    ]  # fmt: skip


def _ticks(ends: Point, most: int) -> list[float]:
  low, high = ends
  found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
  return [float(value) for value in found if low - 1e-9 <= value <= high + 1e-9]


def _text(value: float, share: bool) -> str:
  return f"{100 * value:.3g}%" if share else f"{value:.4g}"
