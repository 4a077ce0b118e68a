"""The cells of a grid on its anti-diagonals, and the runs of diagonals that a recurrence takes; numpy only.

Cell (r, q) lies on diagonal t = r + q. A diagonal is kept as a window of rows, so that on the diagonal before, the cell
above a cell lies a row higher and the cell to its left in the same row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

# Up to this many diagonals are steps of their own, of exactly their length. More steps would compile for minutes, so
# diagonals of nearly equal length share a loop, and a window.
_UNROLLED = 25
# How many more rows than its shortest diagonal a window may have: a share of the grid's rows, for each of the images
# that lie side by side in it, and at most so much.
_SLACK, _MOST_SLACK = 1 / 7, 1 / 3
# No run of a grid of several images has more than this share of its diagonals, so that the products of its inputs and
# of its states run in parallel with another run's steps.
_LONGEST = 1 / 3
# How many images may lie side by side, and how many rows the products of a step keep at least, in each direction.
_MOST_IMAGES, _FEWEST_ROWS = 8, 64


class Run(NamedTuple):
  """Consecutive diagonals that share a window of rows, which also holds the diagonal before where they are several.

  Attributes:
    first: the first diagonal.
    steps: how many there are.
    top: the window's first row.
    bottom: the row after its last.
  """

  first: int
  steps: int
  top: int
  bottom: int


def images_abreast(rows: int, columns: int, batch: int) -> int:
  """Returns how many images of a batch lie side by side in one grid: a divisor of the batch.

  In a grid much wider than high, nearly all diagonals are equally long, so that one loop takes them, and a step's rows
  stay in the cache. It has more steps with fewer rows each, so this is for CPUs.
  """
  if rows + columns - 1 <= _UNROLLED:
    return 1
  return max(n for n in range(1, _MOST_IMAGES + 1) if batch % n == 0 and (n == 1 or rows * batch // n >= _FEWEST_ROWS))


def schedule(rows: int, columns: int, images: int = 1) -> tuple[Run, ...]:
  """Returns the diagonals of a grid that has no more rows than columns, in order, as runs.

  Args:
    rows: of the grid.
    columns: of the grid, all images' together.
    images: how many lie side by side.
  """
  count = rows + columns - 1
  slack = 0 if count <= _UNROLLED else max(1, int(rows * min(images * _SLACK, _MOST_SLACK)))
  longest = math.ceil(count * _LONGEST) if images > 1 else count
  runs: list[Run] = []
  for t in range(count):
    top, bottom = _span(t, rows, columns)
    if slack and runs and runs[-1].steps < longest:
      first = runs[-1].first
      window = _span(first - 1, rows, columns)[0], max(runs[-1].bottom, bottom)
      shortest = min(end - start for start, end in (_span(d, rows, columns) for d in (first, t)))
      if window[1] - window[0] - shortest <= slack:
        runs[-1] = Run(first, t - first + 1, *window)
        continue
    runs.append(Run(t, 1, top, bottom))
  return tuple(runs)


def _span(t: int, rows: int, columns: int) -> tuple[int, int]:
  """Returns the rows of diagonal t; of the one before the first, none."""
  return max(0, t - columns + 1), min(t + 1, rows)


def run_cells(run: Run, rows: int, columns: int) -> Int[np.ndarray, "steps window"]:
  """Returns the number r * columns + q of each cell of a run's windows; -1 where a window leaves the grid."""
  r = np.arange(run.top, run.bottom)
  q = run.first + np.arange(run.steps)[:, None] - r
  return np.where((q >= 0) & (q < columns), r * columns + q, -1)


def frames(rows: int, columns: int, directions: Sequence[str]) -> Int[np.ndarray, "k cells"]:
  """Returns, for each direction, the grid's cell at each cell of a frame flipped to start in the upper left corner."""
  grid = np.arange(rows * columns).reshape(rows, columns)
  return np.stack([grid[:: -1 if d[0] == "s" else 1, :: -1 if d[1] == "e" else 1].ravel() for d in directions])


class Layout(NamedTuple):
  """Where the cells of a map lie in the diagonals of all directions, one after the other: p places."""

  runs: tuple[Run, ...]
  starts: tuple[int, ...]  # the first place of each run, and the number of places
  inside: tuple[Any, ...]  # whether a place of a run is a cell of the grid, bool[steps r]; None where all are
  # Whether a cell of the step before and the cell to its right are of one image, bool[steps r]; None where all are.
  joined: tuple[Any, ...]
  order: Any  # the cell at each place, i[k p]; any where there is none
  place: Any  # the place of each cell, i[k cells]
  # `starts` and `place` among the states that are kept, of which a run of several diagonals has those before it too.
  state_starts: tuple[int, ...]
  state_place: Any


@functools.lru_cache(maxsize=64)
def layout_of(rows: int, columns: int, directions: tuple[str, ...], images: int = 1) -> Layout:
  """Returns the layout of a grid that has no more rows than columns, in which several images may lie side by side."""
  runs = schedule(rows, columns, images)
  cells = [run_cells(run, rows, columns) for run in runs]
  in_frame = np.concatenate([c.ravel() for c in cells])
  order = frames(rows, columns, directions)[:, np.maximum(in_frame, 0)].astype(np.int32)
  place = np.empty((len(directions), rows * columns), np.int32)
  for i in range(len(directions)):
    place[i, order[i, in_frame >= 0]] = np.flatnonzero(in_frame >= 0)
  starts = np.cumsum([0] + [c.size for c in cells]).tolist()
  inside = tuple(_unless_all(c >= 0) for c in cells)
  joined = []
  for run, before in zip(runs, [Run(0, 0, 0, 0), *runs], strict=False):
    left = rows_before(run, before)
    column = run.first + np.arange(run.steps)[:, None] - np.arange(*left)
    joined.append(_unless_all(column % (columns // images) != 0) if images > 1 else None)
  extra = np.cumsum([run.bottom - run.top if run.steps > 1 else 0 for run in runs])
  state_starts = [0, *(np.asarray(starts[1:]) + extra).tolist()]
  state_place = place + extra[np.searchsorted(starts, place, side="right") - 1].astype(np.int32)
  return Layout(runs, tuple(starts), inside, tuple(joined), order, place, tuple(state_starts), state_place)


def rows_before(run: Run, before: Run) -> tuple[int, int]:
  """Returns the rows that the step before a run's step has, from the first to before the last."""
  return (run.top, run.bottom) if run.steps > 1 else (before.top, before.bottom)


def _unless_all(where: np.ndarray) -> np.ndarray | None:
  return None if where.all() else where
