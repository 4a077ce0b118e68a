"""Recurrent layers over sequences: the LSTM and the GRU, with the inputs' projections outside of the scan.

Letters of the shapes:

| letter | dimension |
|---|---|
| b, *b | examples; any leading dimensions |
| l, m | steps; the steps after the first |
| w | width of the state |
| g | pre-activations of all gates side by side: 4 w for the LSTM, 3 w for the GRU |
| i, j | rows and columns of a kernel |
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from hierjax.nn.layers.recurrence.cells import BACKWARD, FORWARD, Memory, State
from hierjax.nn.layers.recurrence.grid_steps import outer

Initializer = Callable[..., Array]

LSTMCarry = tuple[Float[Array, "*b w"], Float[Array, "*b w"]]

# An initialiser of input matrices, with twice the usual standard deviation.
STRONG = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")


def by_gate(
  biases: tuple[float, ...], key: PRNGKeyArray, shape: tuple[int], dtype: Any = jnp.float32
) -> Float[Array, "g"]:
  """Returns the initial biases of gates that lie side by side, one value for each gate."""
  return jnp.repeat(jnp.array(biases, dtype), shape[0] // len(biases))


class LSTM(nn.Module):
  """The LSTM of Guo et al. (eqs. 2-7):

      i_t = sigmoid(W_xi x_t + W_hi h_(t-1) + W_vi v + b_i)      (2)
      f_t = sigmoid(W_xf x_t + W_hf h_(t-1) + W_vf v + b_f)      (3)
      o_t = sigmoid(W_xo x_t + W_ho h_(t-1) + W_vo v + b_o)      (4)
      g_t = tanh(W_xc x_t + W_hc h_(t-1) + W_vc v + b_c)         (5)
      c_t = f_t * c_(t-1) + i_t * g_t                            (6)
      h_t = o_t * tanh(c_t)                                      (7)

  This layer has W_h only. Its inputs are the sums W_x x_t + W_v v + b of the four gates, in the order i, f, o, g, which
  the caller computes for all steps at once. So a step of the scan has one product with the state, sums and gates.

  Attributes:
    width: of the state.
    dtype: of the product; the state and the gates are float32.
    kernel_init: of the state's matrix; None for an orthogonal matrix a gate.
  """

  width: int
  dtype: Any = jnp.float32
  kernel_init: Initializer | None = None

  def setup(self) -> None:
    """Names the weights."""
    self.hidden = _Kernel(self.width, 4 * self.width, self.kernel_init)

  def initial_carry(self, *batch: int) -> LSTMCarry:
    """Returns the state (h, c) before the first step, zeros, for leading dimensions `batch`."""
    zeros = jnp.zeros((*batch, self.width), jnp.float32)
    return zeros, zeros

  def step(self, carry: LSTMCarry, inputs: Float[Array, "*b g"]) -> tuple[LSTMCarry, Float[Array, "*b w"]]:
    """Returns the next state and h. `inputs` holds W_x x + W_v v + b of the four gates, side by side."""
    (h, c), _ = _step(self.hidden().astype(self.dtype), State(*carry), inputs)
    return (h, c), h

  def run(self, carry: LSTMCarry, inputs: Float[Array, "b l g"]) -> tuple[LSTMCarry, Float[Array, "b l w"]]:
    """Returns the last state and h after each step, starting from `carry`."""
    found: tuple[LSTMCarry, Array] = _run(self, carry, inputs)
    return found

  def __call__(self, inputs: Float[Array, "b l g"]) -> Float[Array, "b l w"]:
    """Returns h after each step from the initial state, for one step or more.

    There is a reverse-mode derivative only.
    """
    states = nn.custom_vjp(_states, forward_fn=_forward, backward_fn=functools.partial(_backward, self.dtype))
    return jnp.swapaxes(states(self, jnp.swapaxes(inputs, 0, 1)), 0, 1)


GRUCarry = tuple[Float[Array, "*b w"]]


class GRU(nn.Module):
  """A gated recurrent unit (Cho et al. 2014), with the reset gate behind the product with the state:

      r_t = sigmoid(x_r + U_r h_(t-1))
      z_t = sigmoid(x_z + U_z h_(t-1))
      n_t = tanh(x_n + r_t * (U_n h_(t-1) + b_n))
      h_t = (1 - z_t) * n_t + z_t * h_(t-1)

  The inputs x_r, x_z, x_n of a step, side by side, are projections with their biases; see `LSTM`.

  Attributes:
    width: of the state.
    dtype: of the product; the state and the gates are float32.
    kernel_init: of the state's matrix; None for an orthogonal matrix a gate.
  """

  width: int
  dtype: Any = jnp.float32
  kernel_init: Initializer | None = None

  def setup(self) -> None:
    """Names the weights."""
    self.hidden = _Kernel(self.width, 3 * self.width, self.kernel_init)
    self.bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)

  def initial_carry(self, *batch: int) -> GRUCarry:
    """Returns the state (h,) before the first step, zeros, for leading dimensions `batch`."""
    return (jnp.zeros((*batch, self.width), jnp.float32),)

  def step(self, carry: GRUCarry, inputs: Float[Array, "*b g"]) -> tuple[GRUCarry, Float[Array, "*b w"]]:
    """Returns the next state and h."""
    (h,) = carry
    reset, update, new = jnp.split(inputs.astype(jnp.float32), 3, axis=-1)
    by_reset, by_update, by_new = jnp.split(_product(h, self.hidden().astype(self.dtype)), 3, axis=-1)
    bias = jnp.asarray(self.bias).reshape((1,) * (h.ndim - 1) + (-1,))
    new = jnp.tanh(new + jax.nn.sigmoid(reset + by_reset) * (by_new + bias))
    z = jax.nn.sigmoid(update + by_update)
    h = (1 - z) * new + z * h
    return (h,), h

  def run(self, carry: GRUCarry, inputs: Float[Array, "b l g"]) -> tuple[GRUCarry, Float[Array, "b l w"]]:
    """Returns the last state and h after each step, starting from `carry`."""
    found: tuple[GRUCarry, Array] = _run(self, carry, inputs)
    return found

  def __call__(self, inputs: Float[Array, "b l g"]) -> Float[Array, "b l w"]:
    """Returns h after each step from the initial state."""
    return self.run(self.initial_carry(len(inputs)), inputs)[1]


def _run(cell: LSTM | GRU, carry: Any, inputs: Float[Array, "b l g"]) -> tuple[Any, Float[Array, "b l w"]]:
  # The scan is unrolled: a loop would sum the gradient of the cell's weights over the devices at each of its steps; see
  # "Several devices of a CPU" in docs/reference/reliability.md.
  def step(cell: LSTM | GRU, carry: Any, x: Float[Array, "b g"]) -> tuple[Any, Float[Array, "b w"]]:
    found: tuple[Any, Array] = cell.step(carry, x)
    return found

  scan = nn.scan(
    step,
    variable_broadcast="params",
    split_rngs={"params": False},
    in_axes=1,
    out_axes=1,
    unroll=inputs.shape[1],
  )
  found: tuple[Any, Array] = scan(cell, carry, inputs)
  return found


class _Kernel(nn.Module):
  rows: int
  columns: int
  initial: Initializer | None = None

  @nn.compact
  def __call__(self) -> Float[Array, "i j"]:
    return jnp.asarray(self.param("kernel", self.initial or _orthogonal_by_gate, (self.rows, self.columns)))


def _orthogonal_by_gate(key: PRNGKeyArray, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "i j"]:
  keys = jax.random.split(key, shape[1] // shape[0])
  return jnp.concatenate([nn.initializers.orthogonal()(k, (shape[0], shape[0]), dtype) for k in keys], axis=1)


# The LSTM over f[l b ...], with its derivative. The state before the first step is zero, so that step has no product,
# nor has its gradient. The forward pass keeps h, c and the gates; the kernel's gradient is one product after the scan.

_Kept = tuple[State, Float[Array, "*b g"]]  # the state after a step, and its gates
# The kernel, the states and gates of all steps, and an empty array of the inputs' dtype.
_Residuals = tuple[Float[Array, "w g"], State, Float[Array, "l b g"], Float[Array, "0"]]


def _states(lstm: LSTM, inputs: Float[Array, "l b g"]) -> Float[Array, "l b w"]:
  return _forward(lstm, inputs)[0]


def _forward(lstm: LSTM, inputs: Float[Array, "l b g"]) -> tuple[Float[Array, "l b w"], _Residuals]:
  def kept(lstm: LSTM, state: State, inputs: Float[Array, "b g"]) -> tuple[State, _Kept]:
    after = _step(lstm.hidden().astype(lstm.dtype), state, inputs)
    return after[0], after

  first = _cell(inputs[0].astype(jnp.float32), 0.0)
  scan = nn.scan(kept, variable_broadcast="params", split_rngs={"params": False})
  rest = scan(lstm, first[0], inputs[1:])[1]
  states, gates = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, rest)
  return states.h, (lstm.hidden(), states, gates, jnp.zeros((0,), inputs.dtype))


def _backward(
  dtype: Any, residuals: _Residuals, dh: Float[Array, "l b w"]
) -> tuple[dict[str, Any], Float[Array, "l b g"]]:
  kernel, states, gates, like_inputs = residuals
  memories = jnp.concatenate([jnp.zeros_like(states.c[:1]), states.c[:-1]])
  steps = dh, memories, states, gates
  transposed = kernel.astype(dtype).T

  def step(
    later: tuple[Float[Array, "b g"], Float[Array, "b w"]], steps: tuple[Array, Array, State, Array]
  ) -> tuple[tuple[Float[Array, "b g"], Float[Array, "b w"]], Float[Array, "b g"]]:
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


def _step(kernel: Float[Array, "w g"], state: State, inputs: Float[Array, "*b g"]) -> _Kept:
  """Returns the next state, and the gates; `kernel` has the dtype of the product."""
  return _cell(inputs.astype(jnp.float32) + _product(state.h, kernel), state.c)


def _cell(pre: Float[Array, "*b g"], memory: Memory) -> _Kept:
  return FORWARD["lstm"](pre, memory, jnp.float32)


def _product(x: Float[Array, "*b i"], kernel: Float[Array, "i j"]) -> Float[Array, "*b j"]:
  """Returns x @ kernel, in the kernel's dtype with float32 sums."""
  return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
