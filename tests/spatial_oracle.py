"""Zuo et al. 2016, eqs. 10-24, cell by cell in numpy: recurrences over a grid, their gradients, the layer of scales.

All follows the dtype it is given: float64 is the reference, float32 a plain float32 loop. Numbered equations are the
paper's, numbers with a Z the rows of READINGS that the library cites.
"""

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Gradients(NamedTuple):
  """In the order of the arguments of `recurrence`."""

  x: np.ndarray
  drive: np.ndarray | None
  input_kernel: np.ndarray
  row_kernel: np.ndarray
  column_kernel: np.ndarray
  bias: np.ndarray


class Cell(NamedTuple):
  """What the forward pass leaves at a cell; `c`, `gates` and `before` are the LSTM's only."""

  h: np.ndarray
  c: np.ndarray | None = None
  gates: tuple[np.ndarray, ...] = ()  # i, f, o, g
  before: np.ndarray | None = None  # the sum of both predecessors' memories


def walk(rows, columns, direction):
  """Returns (cell, the cell before it in its column, the cell before it in its row) in a direction's order (Z2)."""
  down, right = {"nw": (1, 1), "ne": (1, -1), "sw": (-1, 1), "se": (-1, -1)}[direction]
  cells = [(r, q) for r in range(rows)[::down] for q in range(columns)[::right]]
  return [((r, q), (r - down, q), (r, q - right)) for r, q in cells]


# A float32 loop has XLA's functions: alone they are further from float64 than the loop's sums.


def sigmoid(x):
  return np.asarray(jax.nn.sigmoid(x)) if x.dtype == np.float32 else 1 / (1 + np.exp(-x))


def tanh(x):
  return np.asarray(jnp.tanh(x)) if x.dtype == np.float32 else np.tanh(x)


def one_direction(x, drive, w_x, w_row, w_column, bias, cell, direction):
  """Returns the `Cell` of every (r, q); states outside the grid are zero."""
  b, rows, columns, _ = x.shape
  outside = Cell(*[np.zeros((b, w_row.shape[0]), x.dtype)] * 2)
  cells = {}
  for here, above, beside in walk(rows, columns, direction):
    above, beside = cells.get(above, outside), cells.get(beside, outside)
    pre = above.h @ w_row + beside.h @ w_column + x[:, *here] @ w_x + bias  # eqs. 10, 15-18
    if drive is not None:
      pre = pre + np.concatenate([drive[:, *here]] * (1 if cell == "srn" else 4), axis=-1)  # s of eqs. 22, 23
    if cell == "srn":
      cells[here] = Cell(np.maximum(pre, 0))
      continue
    i, f, o, g = np.split(pre, 4, axis=-1)
    i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), tanh(g)
    before = above.c + beside.c
    c = f * before + i * g  # eq. 19
    cells[here] = Cell(o * tanh(c), c, (i, f, o, g), before)  # eq. 20
  return cells


def recurrence(x, drive, input_kernel, row_kernel, column_kernel, bias, *, cell, directions):
  """Returns the sum of the directions' states, eq. 14. Shapes as of `spatial.spatial_recurrence`."""
  y = np.zeros((*x.shape[:3], row_kernel.shape[1]), x.dtype)
  for weights, direction in zip(
    zip(input_kernel, row_kernel, column_kernel, bias, strict=True), directions, strict=True
  ):
    for here, state in one_direction(x, drive, *weights, cell, direction).items():
      y[:, *here] += state.h
  return y


def recurrence_gradients(x, drive, input_kernel, row_kernel, column_kernel, bias, *, cell, directions, dy):
  """Returns the gradients of sum(y * dy), by backpropagation from each direction's last cell to its first."""
  d = Gradients(
    *(None if a is None else np.zeros_like(a) for a in (x, drive, input_kernel, row_kernel, column_kernel, bias))
  )
  weights = zip(input_kernel, row_kernel, column_kernel, bias, strict=True)
  for k, ((w_x, w_row, w_column, b), direction) in enumerate(zip(weights, directions, strict=True)):
    cells = one_direction(x, drive, w_x, w_row, w_column, b, cell, direction)
    dh = {here: dy[:, *here].copy() for here in cells}  # a later cell adds its share before its turn comes
    dc = {here: np.zeros_like(dy[:, *here]) for here in cells}
    for here, above, beside in reversed(walk(*x.shape[1:3], direction)):
      if cell == "srn":
        dpre = dh[here] * (cells[here].h > 0)
      else:
        (i, f, o, g), tanh_c = cells[here].gates, tanh(cells[here].c)
        dc_here = dc[here] + dh[here] * o * (1 - tanh_c**2)
        di, df, do, dg = dc_here * g, dc_here * cells[here].before, dh[here] * tanh_c, dc_here * i
        dpre = np.concatenate([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)], axis=-1)
        for there in {above, beside} & set(cells):
          dc[there] += dc_here * f
      for there, w, dw in ((above, w_row, d.row_kernel[k]), (beside, w_column, d.column_kernel[k])):
        if there in cells:
          dw += cells[there].h.T @ dpre
          dh[there] += dpre @ w.T
      d.input_kernel[k] += x[:, *here].T @ dpre
      d.bias[k] += dpre.sum(0)
      d.x[:, *here] += dpre @ w_x.T
      if drive is not None:
        d.drive[:, *here] += sum(np.split(dpre, 1 if cell == "srn" else 4, axis=-1))
  return d


def own_input_only(x, drive, input_kernel, row_kernel, column_kernel, bias, *, cell, directions):
  """Returns the modified CNN of IV-C2 (Z14): all three matrices read the cell's own input, and a cell has no memory."""
  alone = [None if a is None else a.reshape(-1, 1, 1, a.shape[-1]) for a in (x, drive)]
  zero = np.zeros_like(row_kernel)
  y = recurrence(*alone, input_kernel + row_kernel + column_kernel, zero, zero, bias, cell=cell, directions=directions)
  return y.reshape(*x.shape[:3], -1)


def own_input_with_relu(x, drive, input_kernel, row_kernel, column_kernel, bias, *, cell, directions):
  """Returns `neighbours = relu` (Z14): a ReLU after each matrix, and a forget gate on the cell's own input."""
  y = np.zeros((*x.shape[:3], row_kernel.shape[1]))
  for k in range(len(directions)):
    pre = sum(np.maximum(x @ kernel[k], 0) for kernel in (input_kernel, row_kernel, column_kernel)) + bias[k]
    if drive is not None:
      pre = pre + np.concatenate([drive] * (pre.shape[-1] // drive.shape[-1]), axis=-1)
    if cell == "srn":
      y += np.maximum(pre, 0)
      continue
    i, f, o, g = np.split(pre, 4, axis=-1)
    y += sigmoid(o) * np.tanh(sigmoid(f) * x + sigmoid(i) * np.tanh(g))
  return y


def max_pool(x, rows, columns):
  """Returns the largest value of each cell: i of n covers floor(i A / n) to ceil((i + 1) A / n) of a side A (Z10)."""
  _, h, w, _ = x.shape
  y = np.full((len(x), rows, columns, x.shape[-1]), np.nan, x.dtype)
  for r in range(rows):
    for q in range(columns):
      window = x[:, r * h // rows : -(-(r + 1) * h // rows), q * w // columns : -(-(q + 1) * w // columns)]
      y[:, r, q] = window.max(axis=(1, 2))
  return y


def overlap(i, n, j, m):
  """Returns which share of cell i of n on a line lies in cell j of m."""
  return max(Fraction(0), min(Fraction(i + 1, n), Fraction(j + 1, m)) - max(Fraction(i, n), Fraction(j, m))) * n


def rescale(h, rows, columns, mapping="overlap"):
  """Returns a coarser scale's map as a finer one's cells see it: an average by overlap, or one cell: `floor` (Z5)."""
  _, coarse_rows, coarse_columns, _ = h.shape
  y = np.zeros((len(h), rows, columns, h.shape[-1]), h.dtype)
  for r in range(rows):
    for q in range(columns):
      if mapping == "floor":
        y[:, r, q] = h[:, r * coarse_rows // rows, q * coarse_columns // columns]
        continue
      for a in range(coarse_rows):
        for b in range(coarse_columns):
          y[:, r, q] += float(overlap(r, rows, a, coarse_rows) * overlap(q, columns, b, coarse_columns)) * h[:, a, b]
  return y


def layer_of_scales(x, scales, weights, links, cell, directions, mapping="overlap", neighbours="states"):
  """Returns the map of every scale, eqs. 21-24.

  Args:
    x: the map below, `[b h w c]`.
    scales: (rows, columns) of each, coarse to fine (Z4); 1x1 is passed through and has no weights (Z1).
    weights: for each other scale's number, (input_kernel, row_kernel, column_kernel, bias).
    links: W_jl `[d d]` by (j, level); the pairs that are missing are not linked.
    cell: `none` for the pooled maps alone.
    directions: of every scale.
    mapping: of `rescale`.
    neighbours: `input` for `own_input_only`, `relu` for `own_input_with_relu`, and links that read the scale's own
      pooled map (Z14).
  """
  run, maps = {"states": recurrence, "input": own_input_only, "relu": own_input_with_relu}[neighbours], []
  for level, (rows, columns) in enumerate(scales):
    pooled, drive = max_pool(x, rows, columns), None
    for j, coarser in enumerate(maps):  # already the sum over the directions (Z9)
      if (j, level) in links:
        read = rescale(coarser, rows, columns, mapping) if neighbours == "states" else pooled
        driven = read @ links[j, level]
        driven = np.maximum(driven, 0) if neighbours == "relu" else driven
        drive = driven if drive is None else drive + driven  # eq. 21
    passed = cell == "none" or (rows, columns) == (1, 1)
    maps.append(pooled if passed else run(pooled, drive, *weights[level], cell=cell, directions=directions))
  return maps
