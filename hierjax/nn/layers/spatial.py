"""Two-dimensional recurrences over a feature map: the spatial SRN and LSTM of Zuo et al., eqs. 10-20."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.errors import UserError
from hierjax.nn.layers import grid_recurrence

CELLS = tuple(grid_recurrence.GATES)
DIRECTIONS = ("nw", "ne", "sw", "se")


def spatial_recurrence(
  x: Float[Array, "b h w c"],
  drive: Float[Array, "b h w d"] | None,
  input_kernel: Float[Array, "k c g"],
  row_kernel: Float[Array, "k d g"],
  column_kernel: Float[Array, "k d g"],
  bias: Float[Array, "k g"],
  *,
  cell: str,
  directions: tuple[str, ...],
) -> Float[Array, "b h w d"]:
  """Runs a recurrence over the map from each of k corners, and sums the states (eqs. 10-14 or 15-20).

  The result is float32, whatever the dtypes of the map and the drive. There is a reverse-mode derivative only.

  Args:
    x: the map. Its dtype is that of the products; states add up in float32.
    drive: what every gate of every direction is given besides, such as the scale links of eqs. 21-23; None for nothing.
    input_kernel: W_x of each direction. g = d for the SRN; 4 d for the LSTM, whose gates lie in the order input,
      forget, output, modulation.
    row_kernel: W^r, applied to the state of the neighbour in the previous row, as the direction goes.
    column_kernel: W^c, to that of the neighbour in the previous column.
    bias: of each gate.
    cell: `srn`, with ReLU, or `lstm`, with one forget gate on the sum of both neighbours' memories (READINGS Z7, Z8).
    directions: the corners that the recurrences start from: `nw` goes down and right (READINGS Z2).

  Raises:
    UserError: no such cell or direction, an empty map, or channels that do not match.
  """
  check_cell(cell)
  check_directions(directions)
  if 0 in x.shape[1:3]:
    raise UserError(f"a recurrence needs a map of one cell or more; this has {x.shape[1]} x {x.shape[2]}")
  gates = grid_recurrence.GATES[cell]
  k, channels, width = len(directions), x.shape[-1], row_kernel.shape[1]
  expected = {
    "input_kernel": (input_kernel.shape, (k, channels, gates * width)),
    "row_kernel": (row_kernel.shape, (k, width, gates * width)),
    "column_kernel": (column_kernel.shape, (k, width, gates * width)),
    "bias": (bias.shape, (k, gates * width)),
  }
  if drive is not None:
    expected["drive"] = (drive.shape, (*x.shape[:-1], width))
  for name, (has, wants) in expected.items():
    if has != wants:
      raise UserError(f"{name} has shape {has}; for {channels} channels and a {cell} of width {width} it is {wants}")
  run = functools.partial(grid_recurrence.recurrence, cell)
  if x.shape[1] > x.shape[2]:  # it wants no more rows than columns
    x, drive = jnp.swapaxes(x, 1, 2), None if drive is None else jnp.swapaxes(drive, 1, 2)
    flipped = tuple({"ne": "sw", "sw": "ne"}.get(d, d) for d in directions)
    return jnp.swapaxes(run(flipped, x, drive, input_kernel, column_kernel, row_kernel, bias), 1, 2)
  return run(directions, x, drive, input_kernel, row_kernel, column_kernel, bias)


def check_cell(cell: str) -> None:
  """Raises UserError for a cell that there is not."""
  if cell not in CELLS:
    raise UserError(f"cell = {cell!r}: choose from {', '.join(CELLS)}")


def check_directions(directions: tuple[str, ...]) -> None:
  """Raises UserError unless there is a direction, and each is known and there once."""
  wrong = [d for d in directions if d not in DIRECTIONS]
  if not directions or wrong or len(set(directions)) < len(directions):
    raise UserError(f"directions = {directions!r}: one or more of {', '.join(DIRECTIONS)}, each at most once")


class SpatialRNN(nn.Module):
  """A spatial SRN or LSTM (eqs. 10-20) from several corners; see `spatial_recurrence`.

  Attributes:
    width: of the state; None for as many as the map has channels.
    cell: `srn` or `lstm`.
    directions: the corners that the recurrences start from.
    neighbours: whether W^r and W^c read the neighbours' states. If not, they read the cell's own input instead, as in
      the modified CNN of section IV-C2 that has the same weights and no context (READINGS Z14).
    dtype: of the products and of the states h that they read; memories, sums, weights and the result are float32.
  """

  width: int | None = None
  cell: str = "lstm"
  directions: tuple[str, ...] = DIRECTIONS
  neighbours: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], drive: Float[Array, "b h w d"] | None = None
  ) -> Float[Array, "b h w d"]:
    """Returns the sum of the states over the directions, float32. `drive` is what all gates are given besides."""
    check_cell(self.cell)
    check_directions(self.directions)
    k, channels = len(self.directions), x.shape[-1]
    width = channels if self.width is None else self.width
    if not self.neighbours and channels != width:
      raise UserError(f"neighbours = False needs as many channels as the width, {width}; the map has {channels}")
    gates = grid_recurrence.GATES[self.cell] * width
    input_kernel = self.param("input_kernel", _each(nn.initializers.lecun_normal()), (k, channels, gates))
    row_kernel = self.param("row_kernel", _each(_orthogonal_by_gate), (k, width, gates))
    column_kernel = self.param("column_kernel", _each(_orthogonal_by_gate), (k, width, gates))
    bias = self.param("bias", nn.initializers.zeros_init(), (k, gates), jnp.float32)
    x = x.astype(self.dtype)
    if self.neighbours:
      return spatial_recurrence(
        x, drive, input_kernel, row_kernel, column_kernel, bias, cell=self.cell, directions=self.directions
      )
    kernel = (input_kernel + row_kernel + column_kernel).astype(self.dtype)
    pre = jnp.einsum("bhwi,kij->kbhwj", x, kernel, preferred_element_type=jnp.float32) + bias[:, None, None, None]
    if drive is not None:
      pre = pre + jnp.tile(drive.astype(jnp.float32), grid_recurrence.GATES[self.cell])[None]
    return jnp.sum(grid_recurrence.FORWARD[self.cell](pre, 0.0, self.dtype)[0].h.astype(jnp.float32), axis=0)


def _each(init: Any) -> Any:
  """Returns an initialiser of f[k i j] that draws each of the k matrices by `init`."""
  return lambda key, shape: jnp.stack([init(draw, shape[1:], jnp.float32) for draw in jax.random.split(key, shape[0])])


def _orthogonal_by_gate(key: Any, shape: tuple[int, int], dtype: Any) -> Array:
  # Two neighbours add up in a state: with 1/2 each, their sum is as large as they are.
  width, gates = shape
  draws = jax.random.split(key, gates // width)
  return jnp.concatenate([nn.initializers.orthogonal(0.5)(draw, (width, width), dtype) for draw in draws], axis=1)
