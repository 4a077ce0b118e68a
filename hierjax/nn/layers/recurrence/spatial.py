"""Two-dimensional recurrences over a feature map: the spatial SRN and LSTM of Zuo et al., eqs. 10-20."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.layers.recurrence.cells import FORWARD, GATES
from hierjax.nn.layers.recurrence.grid_recurrence import Setting, Weights, recurrence

Cell = Literal["srn", "lstm"]
DIRECTIONS = ("nw", "ne", "sw", "se")
Neighbours = Literal["states", "input", "relu"]


def spatial_recurrence(
  x: Float[Array, "b h w c"],
  drive: Float[Array, "b h w d"] | None,
  input_kernel: Float[Array, "k c g"],
  row_kernel: Float[Array, "k d g"],
  column_kernel: Float[Array, "k d g"],
  bias: Float[Array, "k g"],
  *,
  cell: Cell,
  directions: tuple[str, ...],
) -> Float[Array, "b h w d"]:
  """Runs a recurrence over the map from each of k corners, and sums the states (Zuo et al., eqs. 10-20).

  For the direction from the upper left corner (`nw`), with s the drive, the spatial SRN is

      h(r,q) = relu(W^r h(r-1,q) + W^c h(r,q-1) + W_x x(r,q) + s(r,q) + b)                              (10, 22)

  and the spatial LSTM, with the neighbours' terms N_p = W^r_p h(r-1,q) + W^c_p h(r,q-1) of each gate p,

      i(r,q) = sigmoid(N_i + W_xi x(r,q) + s(r,q) + b_i)                                                 (15, 23)
      f(r,q) = sigmoid(N_f + W_xf x(r,q) + s(r,q) + b_f)                                                 (16, 23)
      o(r,q) = sigmoid(N_o + W_xo x(r,q) + s(r,q) + b_o)                                                 (17, 23)
      g(r,q) = tanh(N_g + W_xg x(r,q) + s(r,q) + b_g)                                                    (18, 23)
      c(r,q) = f(r,q) * (c(r-1,q) + c(r,q-1)) + i(r,q) * g(r,q)                                          (19)
      h(r,q) = o(r,q) * tanh(c(r,q))                                                                     (20)

  States outside of the map are zero. The other directions are the same on the mirrored map: r+1 replaces r-1 for `sw`
  and `se`, and q+1 replaces q-1 for `ne` and `se` (eqs. 11-13; READINGS Z2). The result is the sum over the directions,

      y(r,q) = h_nw(r,q) + h_ne(r,q) + h_sw(r,q) + h_se(r,q)                                             (14, 24)

  It is float32 for every dtype of the map and the drive. There is a reverse-mode derivative only.

  Args:
    x: the map. The products have its dtype; their sums are float32.
    drive: s, a term of every gate of every direction, such as the scale links of eqs. 21-23; None for zero.
    input_kernel: W_x of each direction. g = d for the SRN; 4 d for the LSTM, whose gates lie in the order i, f, o, g.
    row_kernel: W^r, of the state of the neighbour in the previous row, in the order of the direction.
    column_kernel: W^c, of the state of the neighbour in the previous column.
    bias: b of each gate.
    cell: `srn` or `lstm` (READINGS Z7, Z8).
    directions: the corners that the recurrences start from: `nw` goes down and right.

  Raises:
    UserError: no such cell or direction, an empty map, or channels that do not match.
  """
  if cell not in GATES:
    raise UserError(f"cell = {cell!r}: choose from {', '.join(GATES)}")
  check_directions(directions)
  if 0 in x.shape[1:3]:
    raise UserError(f"a recurrence needs a map of one cell or more; the map has {x.shape[1]} x {x.shape[2]}")
  gates = GATES[cell]
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
  if x.shape[1] > x.shape[2]:  # `grid_recurrence` takes no more rows than columns
    x, drive = jnp.swapaxes(x, 1, 2), None if drive is None else jnp.swapaxes(drive, 1, 2)
    setting = Setting(cell, tuple({"ne": "sw", "sw": "ne"}.get(d, d) for d in directions))
    return jnp.swapaxes(recurrence(setting, x, drive, Weights(input_kernel, column_kernel, row_kernel, bias)), 1, 2)
  return recurrence(Setting(cell, directions), x, drive, Weights(input_kernel, row_kernel, column_kernel, bias))


def check_directions(directions: tuple[str, ...]) -> None:
  """Raises UserError for no directions, an unknown one, or one that is given twice."""
  wrong = [d for d in directions if d not in DIRECTIONS]
  if not directions or wrong or len(set(directions)) < len(directions):
    raise UserError(f"directions = {directions!r}: one or more of {', '.join(DIRECTIONS)}, each at most once")


@checked
class SpatialRNN(nn.Module):
  """A spatial SRN or LSTM (eqs. 10-20) from several corners; see `spatial_recurrence`.

  Attributes:
    width: of the state; None for as many as the map has channels.
    cell: `srn` or `lstm`.
    directions: the corners that the recurrences start from.
    neighbours: what W^r and W^c multiply: the `states` of the cell's neighbours; or its own `input`, as in the modified
      CNN of section IV-C2, which has the same weights and no context. The sum of three matrices is one, so only a
      third of them count, and a forget gate has nothing to forget. With `relu` all count: each product has a ReLU
      of its own, and the forget gate's memory is the cell's input (READINGS Z14).
    dtype: of the products and of the states h in them; memories, sums, weights and the result are float32.
  """

  width: int | None = None
  cell: Cell = "lstm"
  directions: tuple[str, ...] = DIRECTIONS
  neighbours: Neighbours = "states"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], drive: Float[Array, "b h w d"] | None = None
  ) -> Float[Array, "b h w d"]:
    """Returns the sum of the states over the directions, float32. `drive` is a further term of all gates."""
    check_directions(self.directions)
    k, channels = len(self.directions), x.shape[-1]
    width = channels if self.width is None else self.width
    if self.neighbours != "states" and channels != width:
      raise UserError(
        f"neighbours = {self.neighbours} needs as many channels as the width, {width}; the map has {channels}"
      )
    gates = GATES[self.cell] * width
    input_kernel = self.param("input_kernel", _each(nn.initializers.lecun_normal()), (k, channels, gates))
    row_kernel = self.param("row_kernel", _each(_orthogonal_by_gate), (k, width, gates))
    column_kernel = self.param("column_kernel", _each(_orthogonal_by_gate), (k, width, gates))
    bias = self.param("bias", nn.initializers.zeros_init(), (k, gates), jnp.float32)
    x = x.astype(self.dtype)
    if self.neighbours == "states":
      return spatial_recurrence(
        x, drive, input_kernel, row_kernel, column_kernel, bias, cell=self.cell, directions=self.directions
      )
    memory: Any = 0.0
    if self.neighbours == "relu":
      pre = sum(nn.relu(_product(x, kernel)) for kernel in (input_kernel, row_kernel, column_kernel))
      memory = jnp.broadcast_to(x.astype(jnp.float32), (k, *x.shape))
    else:
      pre = _product(x, input_kernel + row_kernel + column_kernel)
    pre = pre + bias[:, None, None, None]
    if drive is not None:
      pre = pre + jnp.tile(drive.astype(jnp.float32), GATES[self.cell])[None]
    return jnp.sum(FORWARD[self.cell](pre, memory, self.dtype)[0].h.astype(jnp.float32), axis=0)


def _product(x: Float[Array, "b h w c"], kernel: Float[Array, "k c g"]) -> Float[Array, "k b h w g"]:
  return jnp.einsum("bhwi,kij->kbhwj", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def _each(init: Callable[..., Array]) -> Callable[[PRNGKeyArray, tuple[int, ...]], Float[Array, "k i j"]]:
  """Returns an initialiser of f[k i j] that draws each of the k matrices by `init`."""
  return lambda key, shape: jnp.stack([init(draw, shape[1:], jnp.float32) for draw in jax.random.split(key, shape[0])])


def _orthogonal_by_gate(key: PRNGKeyArray, shape: tuple[int, int], dtype: Any) -> Float[Array, "d g"]:
  # A state has two neighbours: with a factor of 1/2, the sum of their terms is as large as each of them.
  width, gates = shape
  draws = jax.random.split(key, gates // width)
  return jnp.concatenate([nn.initializers.orthogonal(0.5)(draw, (width, width), dtype) for draw in draws], axis=1)
