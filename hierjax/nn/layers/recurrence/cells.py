"""One step of a recurrent cell and its derivative, for any order of the steps: the SRN and the LSTM.

With the sum `pre` of all terms of the gates' pre-activations, and the sum `memory` of the memories of the states before
(one for a sequence, two for a grid):

    SRN     h = relu(pre)
    LSTM    i, f, o = sigmoid(pre_i), sigmoid(pre_f), sigmoid(pre_o);   g = tanh(pre_g)
            c = f * memory + i * g
            h = o * tanh(c)

The derivatives of a loss with respect to h and c give those with respect to `pre` and `memory`:

    SRN     dpre = dh where h > 0, else 0
    LSTM    dc' = dc + dh * o * (1 - tanh(c)^2),   dmemory = dc' * f
            dpre_i = dc' * g * i * (1 - i),        dpre_f = dc' * memory * f * (1 - f)
            dpre_o = dh * tanh(c) * o * (1 - o),   dpre_g = dc' * i * (1 - g^2)

The state h and the stored gates have the dtype `dtype`; all other arrays are float32. Letters of the shapes:

| letter | dimension |
|---|---|
| *b | any leading dimensions: examples, cells, directions |
| w | width of the state |
| g | pre-activations of all gates side by side: w for the SRN; 4 w for the LSTM, in the order i, f, o, g |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

GATES = {"srn": 1, "lstm": 4}

Memory = Float[Array, "*b w"] | float  # 0.0 before the first step
Gates = Float[Array, "*b g"]


class State(NamedTuple):
  """The state after a step, or its derivative; zero before the first step.

  Attributes:
    h: the hidden state.
    c: the memory of an LSTM, `f32[*b w]`, or 0.0 before the first step; None for the SRN.
  """

  h: Float[Array, "*b w"]
  c: Any


def _srn(pre: Gates, memory: Memory | None, dtype: Any) -> tuple[State, None]:
  return State(nn.relu(pre).astype(dtype), None), None


def _srn_back(dstate: State, memory: Memory | None, after: State, gates: None) -> tuple[Gates, None]:
  return jnp.where(after.h > 0, dstate.h, 0.0), None


def _lstm(pre: Gates, memory: Memory, dtype: Any) -> tuple[State, Gates]:
  # sigmoid(x) = tanh(x / 2) / 2 + 1/2, to 1e-7 in all, so that one kernel computes all gates: a loop writes them over
  # its input. They are stored as those tanh.
  width = pre.shape[-1] // 4
  scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), width).reshape((1,) * (pre.ndim - 1) + (-1,))
  kept = jnp.tanh(pre * scale)
  i, f, o, modulation = _lstm_gates(kept)
  c = f * memory + i * modulation
  return State((o * jnp.tanh(c)).astype(dtype), c), kept.astype(dtype)


def _lstm_back(dstate: State, memory: Memory, after: State, kept: Gates) -> tuple[Gates, Float[Array, "*b w"]]:
  i, f, o, modulation = _lstm_gates(kept.astype(jnp.float32))
  squashed = jnp.tanh(after.c)
  dc = dstate.c + dstate.h * o * (1 - squashed**2)
  # As one array behind a barrier, or XLA would compute dh and dc again for each of the four gates; and dmemory, or it
  # might read the gates when a loop has written over them, and XLA would copy those of all steps in each.
  together = jax.lax.optimization_barrier(jnp.concatenate([dstate.h, dc, dc * f], axis=-1))
  dh, dc, dmemory = jnp.split(together, 3, axis=-1)
  dpre = (
    dc * modulation * i * (1 - i),
    dc * memory * f * (1 - f),
    dh * squashed * o * (1 - o),
    dc * i * (1 - modulation**2),
  )
  return jnp.concatenate(dpre, axis=-1), dmemory


def _lstm_gates(kept: Gates) -> tuple[Float[Array, "*b w"], ...]:
  """Returns the values of the gates i, f, o and g from the stored tanh."""
  i, f, o, modulation = jnp.split(kept, 4, axis=-1)
  return i / 2 + 0.5, f / 2 + 0.5, o / 2 + 0.5, modulation


# (pre, memory, dtype) -> the state, and the gates to store (None for the SRN).
FORWARD: dict[str, Callable[[Gates, Any, Any], tuple[State, Any]]] = {"srn": _srn, "lstm": _lstm}
# (derivative of the state, memory, the state, stored gates) -> the derivatives of pre and of memory (None for the SRN).
BACKWARD: dict[str, Callable[[State, Any, State, Any], tuple[Gates, Any]]] = {"srn": _srn_back, "lstm": _lstm_back}
