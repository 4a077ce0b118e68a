"""Stacked bidirectional recurrences over a short sequence of vectors (Koo et al., sections 3.1 and 3.2)."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.errors import UserError
from hierjax.nn.layers.recurrence.sequence import GRU, LSTM, STRONG, by_gate

CELLS = {"lstm": LSTM, "gru": GRU}
Start = Literal["usual", "open", "lasting"]
# Of the LSTM: input, forget and output gate, modulation; of the GRU: reset and update gate, candidate.
_BIASES = {
  ("lstm", "usual"): (0.0, 1.0, 0.0, 0.0),
  ("lstm", "open"): (2.0, 1.0, 2.0, 0.0),
  ("lstm", "lasting"): (0.0, 3.0, 2.0, 0.0),
  ("gru", "usual"): (0.0, 0.0, 0.0),
  ("gru", "open"): (0.0, -1.0, 0.0),
  ("gru", "lasting"): (0.0, 3.0, 0.0),
}


class Recurrence(nn.Module):
  """A recurrent layer with its own projection of the inputs, which is made for all steps at once.

  The LSTM's forget gate starts with a bias of 1 (READINGS K15); recurrent matrices start orthogonal, gate by gate.

  Attributes:
    cell: `lstm` or `gru`.
    width: of the state.
    dtype: of the products; state and gates are float32.
    start: initial values: `usual`; `open`, for states dominated by the current input: the LSTM's input and output gates
      start at 0.88; `lasting`, for states that persist: the forget (or update) gate starts at 0.95. With the last two,
      the inputs' matrix has twice the usual standard deviation.
  """

  cell: Literal["lstm", "gru"]
  width: int
  dtype: Any = jnp.float32
  start: Start = "usual"

  def setup(self) -> None:
    """Names the weights."""
    if self.cell not in CELLS:
      raise UserError(f"config.head.cell = {self.cell!r}: choose from {', '.join(CELLS)}")
    biases = _BIASES[self.cell, self.start]
    self.inputs = nn.Dense(
      len(biases) * self.width,
      dtype=self.dtype,
      kernel_init=nn.initializers.lecun_normal() if self.start == "usual" else STRONG,
      bias_init=functools.partial(by_gate, biases),
    )
    self.state = CELLS[self.cell](self.width, self.dtype)

  def step(self, carry: Any, x: Float[Array, "*b d"]) -> tuple[Any, Float[Array, "*b w"]]:
    """Returns the next state, and its h."""
    after: tuple[Any, Array] = self.state.step(carry, self.inputs(x))
    return after

  def run(self, carry: Any, x: Float[Array, "b l d"]) -> tuple[Any, Float[Array, "b l w"]]:
    """Returns the last state, and h after each step."""
    after: tuple[Any, Array] = self.state.run(carry, self.inputs(x))
    return after

  def __call__(self, x: Float[Array, "b l d"]) -> tuple[Any, Float[Array, "b l w"]]:
    """Returns the last state, and h after each step, from a state of zeros."""
    return self.run(self.state.initial_carry(len(x)), x)


class Bidirectional(nn.Module):
  """Layers of two recurrences each, of which one reads the sequence backwards.

  Attributes:
    cell: `lstm` or `gru`.
    width: of one direction's state.
    layers: how many; each reads both directions' h of the one below.
    dtype: of the products.
    start: see `Recurrence`.
  """

  cell: Literal["lstm", "gru"]
  width: int
  layers: int = 1
  dtype: Any = jnp.float32
  start: Start = "usual"

  @nn.compact
  def __call__(self, x: Float[Array, "b l d"]) -> tuple[Any, Float[Array, "b l w2"]]:
    """Returns the last layer's last states, and its h at each step, of both directions side by side: w2 = 2 width."""
    make = functools.partial(Recurrence, self.cell, self.width, self.dtype, self.start)
    last: Any = None
    for i in range(self.layers):
      ahead, forward = make(name=f"forward_{i}")(x)
      back, backward = make(name=f"backward_{i}")(x[:, ::-1])
      x = jnp.concatenate([forward, backward[:, ::-1]], axis=-1)
      last = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), ahead, back)
    return last, x
