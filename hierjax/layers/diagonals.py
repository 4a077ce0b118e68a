"""Which cells of a grid lie on its anti-diagonals, and in what runs a recurrence takes them; numpy only.

Cell (r, q) lies on diagonal t = r + q. A diagonal is kept as a window of rows, so that on the diagonal before, the cell
above a cell lies a row higher and the cell to its left in the same row.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

# Up to this many diagonals are steps of their own, of exactly their length. More would compile for minutes: there,
# diagonals of nearly equal length share a scan, and a window.
_UNROLLED = 25
# How many more rows than its shortest diagonal a window may have: a share of the grid's rows.
_SLACK = 1 / 7


class Run(NamedTuple):
  """Consecutive diagonals that share a window of rows; several of them also hold the rows of the diagonal before.

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


def schedule(rows: int, columns: int) -> tuple[Run, ...]:
  """Returns the diagonals of a grid that has no more rows than columns, in order, as runs."""
  slack = 0 if rows + columns - 1 <= _UNROLLED else max(1, int(rows * _SLACK))
  runs: list[Run] = []
  for t in range(rows + columns - 1):
    top, bottom = _span(t, rows, columns)
    if slack and runs:
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
  starts: tuple[int, ...]  # the first place of each run
  inside: tuple[Any, ...]  # whether a place of a run is a cell of the grid, f32[steps 1 r 1 1]; None where all are
  order: Any  # the cell at each place, i[k p]; any where there is none
  place: Any  # the place of each cell, i[k cells]


@functools.lru_cache(maxsize=64)
def layout_of(rows: int, columns: int, directions: tuple[str, ...]) -> Layout:
  """Returns the layout of a grid that has no more rows than columns."""
  runs = schedule(rows, columns)
  cells = [run_cells(run, rows, columns) for run in runs]
  in_frame = np.concatenate([c.ravel() for c in cells])
  order = frames(rows, columns, directions)[:, np.maximum(in_frame, 0)].astype(np.int32)
  place = np.empty((len(directions), rows * columns), np.int32)
  for i in range(len(directions)):
    place[i, order[i, in_frame >= 0]] = np.flatnonzero(in_frame >= 0)
  starts = np.cumsum([0] + [c.size for c in cells[:-1]]).tolist()
  inside = tuple(None if (c >= 0).all() else (c >= 0).astype(np.float32)[:, None, :, None, None] for c in cells)
  return Layout(runs, tuple(starts), inside, order, place)
