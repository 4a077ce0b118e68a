"""The cells of recurrences, forward and back: the SRN and the LSTM, in whatever order their steps come.

`pre` is the sum of all that goes into a cell's gates, `memory` what it has of c from the states before it. All but the
state h and the gates is float32; those are rounded to `dtype`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

GATES = {"srn": 1, "lstm": 4}


class State(NamedTuple):
  """What a step leaves to the next; zero before the first."""

  h: Any
  c: Any  # the memory of an LSTM; None for the SRN


def _srn(pre, memory, dtype):
  return State(nn.relu(pre).astype(dtype), None), None


def _srn_back(dstate, memory, after, gates):
  return jnp.where(after.h > 0, dstate.h, 0.0), None


def _lstm(pre, memory, dtype):
  # sigmoid(x) = tanh(x / 2) / 2 + 1/2, to 1e-7 in all, so that one kernel computes all gates: a loop writes them over
  # what that reads. They are kept as those tanh.
  width = pre.shape[-1] // 4
  scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), width).reshape((1,) * (pre.ndim - 1) + (-1,))
  kept = jnp.tanh(pre * scale)
  i, f, o, modulation = _lstm_gates(kept)
  c = f * memory + i * modulation
  return State((o * jnp.tanh(c)).astype(dtype), c), kept.astype(dtype)


def _lstm_back(dstate, memory, after, kept):
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


def _lstm_gates(kept):
  i, f, o, modulation = jnp.split(kept, 4, axis=-1)
  return i / 2 + 0.5, f / 2 + 0.5, o / 2 + 0.5, modulation


FORWARD = {"srn": _srn, "lstm": _lstm}
BACKWARD = {"srn": _srn_back, "lstm": _lstm_back}
