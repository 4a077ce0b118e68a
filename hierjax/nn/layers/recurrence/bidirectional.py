"""Stacked bidirectional recurrences over a short sequence of vectors (Koo et al., sections 3.1 and 3.2)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from hierjax.config import checked
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


@checked
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
    whole: the length d of the inputs, where the matrices of inputs and state, one above the other, start as one
      orthogonal matrix of d + width rows, as TensorFlow's orthogonal initialiser makes them; of the GRU, one for the
      gates and one for the candidate. 0 for an orthogonal matrix a gate, of the state alone.
  """

  cell: Literal["lstm", "gru"]
  width: int
  dtype: Any = jnp.float32
  start: Start = "usual"
  whole: int = 0

  def setup(self) -> None:
    """Names the weights."""
    biases = _BIASES[self.cell, self.start]
    of_inputs = nn.initializers.lecun_normal() if self.start == "usual" else STRONG
    of_state = None
    if self.whole:
      key = self.make_rng("params") if self.is_initializing() else jax.random.key(0)  # which draws nothing then
      rows, parts = self.whole + self.width, (4,) if self.cell == "lstm" else (2, 1)
      kernel = functools.partial(_orthogonal, key, rows, tuple(part * self.width for part in parts))
      of_inputs, of_state = (
        functools.partial(_rows, kernel, block) for block in (slice(self.whole), slice(self.whole, None))
      )
    self.inputs = nn.Dense(
      len(biases) * self.width,
      dtype=self.dtype,
      kernel_init=of_inputs,
      bias_init=functools.partial(by_gate, biases),
    )
    self.state = CELLS[self.cell](self.width, self.dtype, of_state)

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


def _orthogonal(key: PRNGKeyArray, rows: int, columns: tuple[int, ...]) -> Float[Array, "i j"]:
  """Returns matrices of so many rows side by side, each with orthonormal rows or, where it is taller, columns."""
  keys = jax.random.split(key, len(columns))
  return jnp.concatenate(
    [nn.initializers.orthogonal()(k, (rows, number), jnp.float32) for k, number in zip(keys, columns, strict=True)],
    axis=1,
  )


def _rows(
  kernel: Callable[[], Array], block: slice, key: PRNGKeyArray, shape: tuple[int, int], dtype: Any = jnp.float32
) -> Float[Array, "i j"]:
  """Returns some rows of a matrix, as an initialiser whose key is not used."""
  found = kernel()[block].astype(dtype)
  if found.shape != shape:
    raise ValueError(f"the inputs have {shape[0]} numbers, and not {found.shape[0]} (whole)")
  return found


@checked
class Bidirectional(nn.Module):
  """Layers of two recurrences each, of which one reads the sequence backwards.

  Attributes:
    cell: `lstm` or `gru`.
    width: of one direction's state.
    layers: how many; each reads both directions' h of the one below.
    dtype: of the products.
    start: see `Recurrence`.
    whole: whether the matrices of inputs and state start as one orthogonal matrix; see `Recurrence`.
  """

  cell: Literal["lstm", "gru"]
  width: int
  layers: int = 1
  dtype: Any = jnp.float32
  start: Start = "usual"
  whole: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "b l d"]) -> tuple[Any, Float[Array, "b l w2"]]:
    """Returns the last layer's last states, and its h at each step, of both directions side by side: w2 = 2 width."""
    last: Any = None
    for i in range(self.layers):
      whole = x.shape[-1] if self.whole else 0
      make = functools.partial(Recurrence, self.cell, self.width, self.dtype, self.start, whole)
      ahead, forward = make(name=f"forward_{i}")(x)
      back, backward = make(name=f"backward_{i}")(x[:, ::-1])
      x = jnp.concatenate([forward, backward[:, ::-1]], axis=-1)
      last = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), ahead, back)
    return last, x
