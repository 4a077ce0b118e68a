"""Recurrent layers whose input projections are hoisted out of the scan."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

LSTMCarry = tuple[Float[Array, "*b w"], Float[Array, "*b w"]]


def _orthogonal_by_gate(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
  keys = jax.random.split(key, shape[1] // shape[0])
  return jnp.concatenate([nn.initializers.orthogonal()(k, (shape[0], shape[0]), dtype) for k in keys], axis=1)


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
    self.hidden = nn.Dense(4 * self.width, use_bias=False, kernel_init=_orthogonal_by_gate, dtype=self.dtype)

  def initial_carry(self, *batch: int) -> LSTMCarry:
    """Returns the state (h, c) before the first step: zeros."""
    return jnp.zeros((*batch, self.width)), jnp.zeros((*batch, self.width))

  def step(self, carry: LSTMCarry, inputs: Float[Array, "*b g"]) -> tuple[LSTMCarry, Float[Array, "*b w"]]:
    """Returns the next state and h. `inputs` holds the four gates' W_x x + W_v v + b, side by side."""
    h, c = carry
    gates = inputs.astype(jnp.float32) + self.hidden(h).astype(jnp.float32)
    i, f, o = jnp.split(nn.sigmoid(gates[..., : 3 * self.width]), 3, axis=-1)
    c = f * c + i * jnp.tanh(gates[..., 3 * self.width :])
    h = o * jnp.tanh(c)
    return (h, c), h

  def __call__(self, inputs: Float[Array, "b l g"]) -> Float[Array, "b l w"]:
    """Returns h after each step from the initial state."""
    scan = nn.scan(LSTM.step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
    return scan(self, self.initial_carry(inputs.shape[0]), inputs)[1]
