"""Recurrent layers whose input projections are hoisted out of the scan."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.nn.layers.cells import BACKWARD, FORWARD, State
from hierjax.nn.layers.grid_recurrence import outer

LSTMCarry = tuple[Float[Array, "*b w"], Float[Array, "*b w"]]

# Of input matrices: twice as large as usual.
STRONG = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")


def by_gate(biases: tuple[float, ...], key: jax.Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
  """Returns the initial biases of gates that lie side by side, one value a gate."""
  return jnp.repeat(jnp.array(biases, dtype), shape[0] // len(biases))


class LSTM(nn.Module):
  """The LSTM of Guo et al. (eqs. 2-7), given at each step all that does not depend on the state.

  That sum, of the projected inputs and the biases, is made for all steps at once by the caller; what is left in the
  scan is one product with the state, adds and gates. The gates lie in the order of eqs. 2-5: input, forget, output,
  modulation.

  Attributes:
    width: of the state.
    dtype: of the product; the state and the gates are float32.
  """

  width: int
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Names the weights."""
    self.hidden = _Kernel(self.width, 4 * self.width)

  def initial_carry(self, *batch: int) -> LSTMCarry:
    """Returns the state (h, c) before the first step: zeros."""
    zeros = jnp.zeros((*batch, self.width), jnp.float32)
    return zeros, zeros

  def step(self, carry: LSTMCarry, inputs: Float[Array, "*b g"]) -> tuple[LSTMCarry, Float[Array, "*b w"]]:
    """Returns the next state and h. `inputs` holds the four gates' W_x x + W_v v + b, side by side."""
    state, _ = _step(self.hidden().astype(self.dtype), State(*carry), inputs)
    return tuple(state), state.h

  def run(self, carry: LSTMCarry, inputs: Float[Array, "b l g"]) -> tuple[LSTMCarry, Float[Array, "b l w"]]:
    """Returns the last state and h after each step from any state."""
    return _run(self, carry, inputs)

  def __call__(self, inputs: Float[Array, "b l g"]) -> Float[Array, "b l w"]:
    """Returns h after each step from the initial state, for one step or more.

    There is a reverse-mode derivative only.
    """
    states = nn.custom_vjp(_states, forward_fn=_forward, backward_fn=functools.partial(_backward, self.dtype))
    return jnp.swapaxes(states(self, jnp.swapaxes(inputs, 0, 1)), 0, 1)


GRUCarry = tuple[Float[Array, "*b w"]]


class GRU(nn.Module):
  """A gated recurrent unit, given at each step all that does not depend on the state; see `LSTM`.

  The three parts of `inputs` are those of the reset gate r, the update gate z and the candidate:
  n = tanh(inputs_n + r (h U_n + b_n)), and the next state is (1 - z) n + z h.

  Attributes:
    width: of the state.
    dtype: of the product; the state and the gates are float32.
  """

  width: int
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Names the weights."""
    self.hidden = _Kernel(self.width, 3 * self.width)
    self.bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)

  def initial_carry(self, *batch: int) -> GRUCarry:
    """Returns the state before the first step: zeros."""
    return (jnp.zeros((*batch, self.width), jnp.float32),)

  def step(self, carry: GRUCarry, inputs: Float[Array, "*b g"]) -> tuple[GRUCarry, Float[Array, "*b w"]]:
    """Returns the next state, twice."""
    (h,) = carry
    reset, update, new = jnp.split(inputs.astype(jnp.float32), 3, axis=-1)
    by_reset, by_update, by_new = jnp.split(_product(h, self.hidden().astype(self.dtype)), 3, axis=-1)
    bias = jnp.asarray(self.bias).reshape((1,) * (h.ndim - 1) + (-1,))
    new = jnp.tanh(new + jax.nn.sigmoid(reset + by_reset) * (by_new + bias))
    z = jax.nn.sigmoid(update + by_update)
    h = (1 - z) * new + z * h
    return (h,), h

  def run(self, carry: GRUCarry, inputs: Float[Array, "b l g"]) -> tuple[GRUCarry, Float[Array, "b l w"]]:
    """Returns the last state and h after each step from any state."""
    return _run(self, carry, inputs)

  def __call__(self, inputs: Float[Array, "b l g"]) -> Float[Array, "b l w"]:
    """Returns h after each step from the initial state."""
    return self.run(self.initial_carry(len(inputs)), inputs)[1]


def _run(cell: Any, carry: Any, inputs: Any) -> Any:
  scan = nn.scan(
    lambda cell, carry, x: cell.step(carry, x),
    variable_broadcast="params",
    split_rngs={"params": False},
    in_axes=1,
    out_axes=1,
  )
  return scan(cell, carry, inputs)


class _Kernel(nn.Module):
  rows: int
  columns: int

  @nn.compact
  def __call__(self) -> Float[Array, "w g"]:
    return jnp.asarray(self.param("kernel", _orthogonal_by_gate, (self.rows, self.columns)))


def _orthogonal_by_gate(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
  keys = jax.random.split(key, shape[1] // shape[0])
  return jnp.concatenate([nn.initializers.orthogonal()(k, (shape[0], shape[0]), dtype) for k in keys], axis=1)


# The scan, over f[l b ...]. The state before the first step is zero, so that step has no product, nor has its gradient.
# The VJP keeps h, c and the gates; the kernel's gradient is one product after the scan.


def _states(lstm: LSTM, inputs: Any) -> Any:
  return _forward(lstm, inputs)[0]


def _forward(lstm: LSTM, inputs: Any) -> Any:
  def kept(lstm: LSTM, state: State, inputs: Any) -> Any:
    after = _step(lstm.hidden().astype(lstm.dtype), state, inputs)
    return after[0], after

  first = _cell(inputs[0].astype(jnp.float32), 0.0)
  scan = nn.scan(kept, variable_broadcast="params", split_rngs={"params": False})
  rest = scan(lstm, first[0], inputs[1:])[1]
  states, gates = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, rest)
  return states.h, (lstm.hidden(), states, gates, jnp.zeros((0,), inputs.dtype))


def _backward(dtype: Any, residuals: Any, dh: Any) -> Any:
  kernel, states, gates, like_inputs = residuals
  memories = jnp.concatenate([jnp.zeros_like(states.c[:1]), states.c[:-1]])
  steps = dh, memories, states, gates
  transposed = kernel.astype(dtype).T

  def step(later: Any, steps: Any) -> Any:
    dpre, dc = later
    dh, memory, after, gates = steps
    later = BACKWARD["lstm"](State(dh + _product(dpre, transposed), dc), memory, after, gates)
    return later, later[0]

  dh, *rest = jax.tree.map(lambda x: x[-1], steps)
  last = BACKWARD["lstm"](State(dh, 0.0), *rest)
  dpre = jax.lax.scan(step, last, jax.tree.map(lambda x: x[:-1], steps), reverse=True)[1]
  dpre = jnp.concatenate([dpre, last[0][None]])
  (dkernel,) = outer(states.h[None, :-1].astype(dtype), dpre[None, 1:])
  return {"params": {"hidden": {"kernel": dkernel.astype(kernel.dtype)}}}, dpre.astype(like_inputs.dtype)


def _step(kernel: Any, state: State, inputs: Any) -> Any:
  """Returns the next state, and the gates; `kernel` has the dtype of the product."""
  return _cell(inputs.astype(jnp.float32) + _product(state.h, kernel), state.c)


def _cell(pre: Any, memory: Any) -> Any:
  return FORWARD["lstm"](pre, memory, jnp.float32)


def _product(x: Any, kernel: Any) -> Any:
  return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
