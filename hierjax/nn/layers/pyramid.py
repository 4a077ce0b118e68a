"""Maps of one image at several scales: pooling to a grid, and resampling from one grid to another."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierjax.errors import UserError
from hierjax.nn.layers.pooling import largest


def window(cell: int, cells: int, size: int) -> tuple[int, int]:
  """Returns the positions of cell i of n, of A positions: floor(i A / n) to ceil((i + 1) A / n), READINGS Z10."""
  return cell * size // cells, -(-(cell + 1) * size // cells)


def adaptive_max_pool(x: Float[Array, "b h w c"], rows: int, columns: int) -> Float[Array, "b {rows} {columns} c"]:
  """Returns the maximum over the window of each cell of a grid.

  Windows of neighbouring cells overlap where the map does not divide evenly; 6, 3, 2 and 1 cells of 13 are the windows
  of 3, 5, 7 and 13 with strides 2, 4, 6 and 13 of Zuo et al., Table I.

  Raises:
    UserError: the grid has more rows or columns than the map.
  """
  return _adaptive_pool(largest, x, rows, columns)


def adaptive_average_pool(x: Float[Array, "b h w c"], rows: int, columns: int) -> Float[Array, "b {rows} {columns} c"]:
  """Returns the mean over the window of each cell of a grid; windows and errors as in `adaptive_max_pool`."""
  return _adaptive_pool(jnp.mean, x, rows, columns)


def _adaptive_pool(pool: Callable[..., Array], x: Array, rows: int, columns: int) -> Array:
  height, width = x.shape[1:3]
  if rows > height or columns > width:
    raise UserError(
      f"a scale of {rows} x {columns} cells needs a map as large; the map is {height} x {width}: choose smaller scales "
      "(config.neck.scales), or larger images (config.data.resize and crop)"
    )
  for axis, cells in ((1, rows), (2, columns)):
    size = x.shape[axis]
    if size % cells == 0:
      x = pool(x.reshape(*x.shape[:axis], cells, size // cells, *x.shape[axis + 1 :]), axis=axis + 1)
      continue
    pools = [pool(jax.lax.slice_in_dim(x, *window(i, cells, size), axis=axis), axis=axis) for i in range(cells)]
    x = jnp.stack(pools, axis=axis)
  return x


def resample(
  x: Float[Array, "b h w c"], rows: int, columns: int, how: str = "overlap"
) -> Float[Array, "b {rows} {columns} c"]:
  """Returns the values of a coarser grid's map at the cells of a finer grid (Zuo et al., eq. 21).

  Args:
    x: the coarser map.
    rows: of the finer grid.
    columns: of the finer grid.
    how: `overlap`: the mean of the coarse cells under a fine one, weighted by the area they share (READINGS Z5);
      `floor`: the coarse cell under its upper left corner.
  """
  by_rows, by_columns = _weights(x.shape[1], rows, how), _weights(x.shape[2], columns, how)
  return jnp.einsum("ih,jw,bhwc->bijc", by_rows.astype(x.dtype), by_columns.astype(x.dtype), x)


def _weights(coarse: int, fine: int, how: str) -> Float[Array, "fine coarse"]:
  if how == "floor":
    return jax.nn.one_hot(np.arange(fine) * coarse // fine, coarse)
  if how != "overlap":
    raise UserError(f"resample = {how!r}: choose from overlap, floor")
  start, end = np.arange(fine)[:, None] * coarse / fine, (np.arange(fine)[:, None] + 1) * coarse / fine
  cell = np.arange(coarse)
  shared = np.maximum(0, np.minimum(end, cell + 1) - np.maximum(start, cell))
  return jnp.asarray(shared * fine / coarse, jnp.float32)
