"""The figures of the `shapes` set, as signed distances: negative inside, in units of the figure's radius.

They use sums, products, quotients and square roots only, which IEEE 754 rounds the same everywhere. So the set is the
same, byte for byte, on every machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

Plane = Float32[np.ndarray, "*points"]
Figure = Callable[[Plane, Plane], Plane]
Point = tuple[float, float]


def disc(radius: float, x0: float = 0.0, y0: float = 0.0) -> Figure:
  """Returns a disc around (x0, y0)."""
  return lambda x, y: np.sqrt((x - np.float32(x0)) ** 2 + (y - np.float32(y0)) ** 2) - np.float32(radius)


def polygon(vertices: Sequence[Point]) -> Figure:
  """Returns the polygon with these corners, in order; it need not be convex."""
  corners = np.asarray(vertices, np.float32)

  def distance(x: Plane, y: Plane) -> Plane:
    squared = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
      squared = np.minimum(squared, _squared_to_segment(x, y, a, b))
      (ax, ay), (bx, by) = a, b
      if ay != by:
        inside ^= ((ay > y) != (by > y)) & (x < ax + (bx - ax) * ((y - ay) / (by - ay)))
    return np.where(inside, -np.sqrt(squared), np.sqrt(squared))

  return distance


def strokes(*lines: Sequence[Point], width: float = 0.16) -> Figure:
  """Returns lines from point to point, `width` to either side."""

  def distance(x: Plane, y: Plane) -> Plane:
    squared = np.full_like(x, np.inf)
    for line in lines:
      points = np.asarray(line, np.float32)
      for a, b in itertools.pairwise(points):
        squared = np.minimum(squared, _squared_to_segment(x, y, a, b))
    return np.sqrt(squared) - np.float32(width)

  return distance


def _squared_to_segment(x: Plane, y: Plane, a: Float32[np.ndarray, "2"], b: Float32[np.ndarray, "2"]) -> Plane:
  """Returns the squared distance to the segment from a to b."""
  (ax, ay), (bx, by) = a, b
  dx, dy = bx - ax, by - ay
  along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), np.float32(0), np.float32(1))
  return (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2


def border(figure: Figure, width: float) -> Figure:
  """Returns the part of a figure within `width` of its outline."""

  def distance(x: Plane, y: Plane) -> Plane:
    d = figure(x, y)
    return np.maximum(d, -d - np.float32(width))

  return distance


def without(figure: Figure, *holes: Figure) -> Figure:
  """Returns a figure with others cut out of it."""

  def distance(x: Plane, y: Plane) -> Plane:
    d = figure(x, y)
    for hole in holes:
      d = np.maximum(d, -hole(x, y))
    return d

  return distance


def _round_points(count: int, radius: float, turn: float = 0.0) -> list[Point]:
  angles = [2 * math.pi * (i + turn) / count for i in range(count)]
  return [(round(radius * math.cos(a), 6), round(radius * math.sin(a), 6)) for a in angles]


def _star(points: int, inner: float) -> Figure:
  pairs = zip(_round_points(points, 1.0), _round_points(points, inner, turn=0.5), strict=True)
  return polygon([corner for pair in pairs for corner in pair])


def _holes(count: int) -> Figure:
  centres = _round_points(count, 0.48 if count > 1 else 0.0)
  return without(disc(0.95), *(disc(0.26, x, y) for x, y in centres))


def _striped(gaps: Sequence[float], width: float) -> Figure:
  return without(_SQUARE, *(strokes([(-2.0, y), (2.0, y)], width=width) for y in gaps))


_TRIANGLE = polygon(_round_points(3, 1.05))
_SQUARE = polygon([(-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)])
_HEXAGON = polygon(_round_points(6, 0.98))
_SHAFT = [(-0.95, 0.0), (0.95, 0.0)]
_HEAD = [(0.5, 0.5), (0.95, 0.0), (0.5, -0.5)]
_TAIL = [(-0.5, 0.5), (-0.95, 0.0), (-0.5, -0.5)]

# Label paths of 2 to 4 nodes, and the figure of each leaf.
FIGURES: dict[str, Figure] = {
  "round/crescent": without(disc(0.95), disc(0.8, 0.45)),
  "round/disc/solid disc": disc(0.95),
  "round/disc/pierced disc/disc with one hole": _holes(1),
  "round/disc/pierced disc/disc with two holes": _holes(2),
  "round/disc/pierced disc/disc with three holes": _holes(3),
  "round/ring/broken ring": without(border(disc(0.95), 0.34), strokes([(0.3, 0.0), (2.0, 0.0)], width=0.28)),
  "round/ring/whole ring/thin ring": border(disc(0.95), 0.2),
  "round/ring/whole ring/thick ring": border(disc(0.95), 0.46),
  "polygon/trapezium": polygon([(-0.95, -0.55), (0.95, -0.55), (0.4, 0.55), (-0.4, 0.55)]),
  "polygon/triangle/solid triangle": _TRIANGLE,
  "polygon/triangle/hollow triangle/thin triangle": border(_TRIANGLE, 0.18),
  "polygon/triangle/hollow triangle/thick triangle": border(_TRIANGLE, 0.34),
  "polygon/square/solid square": _SQUARE,
  "polygon/square/hollow square/thin square": border(_SQUARE, 0.2),
  "polygon/square/hollow square/thick square": border(_SQUARE, 0.44),
  "polygon/square/striped square/square of two bars": _striped([0.0], 0.2),
  "polygon/square/striped square/square of three bars": _striped([-0.31, 0.31], 0.15),
  "polygon/hexagon/solid hexagon": _HEXAGON,
  "polygon/hexagon/hollow hexagon": border(_HEXAGON, 0.3),
  "star/four-pointed star": _star(4, 0.4),
  "star/five-pointed star/solid five-pointed star": _star(5, 0.42),
  "star/five-pointed star/hollow five-pointed star": border(_star(5, 0.5), 0.18),
  "star/six-pointed star/solid six-pointed star": _star(6, 0.52),
  "star/six-pointed star/hollow six-pointed star": border(_star(6, 0.58), 0.18),
  "line/cross": strokes([(-0.9, 0.0), (0.9, 0.0)], [(0.0, -0.9), (0.0, 0.9)]),
  "line/tee": strokes([(-0.8, 0.7), (0.8, 0.7)], [(0.0, 0.7), (0.0, -0.9)]),
  "line/corner": strokes([(-0.65, 0.85), (-0.65, -0.65), (0.85, -0.65)]),
  "line/arrow/single-headed arrow": strokes(_SHAFT, _HEAD, width=0.13),
  "line/arrow/double-headed arrow": strokes(_SHAFT, _HEAD, _TAIL, width=0.13),
  "line/zigzag/zigzag of three lines": strokes([(-0.9, -0.5), (-0.3, 0.5), (0.3, -0.5), (0.9, 0.5)], width=0.14),
  "line/zigzag/zigzag of four lines": strokes(
    [(-0.95, -0.5), (-0.48, 0.5), (0.0, -0.5), (0.48, 0.5), (0.95, -0.5)], width=0.14
  ),
}
