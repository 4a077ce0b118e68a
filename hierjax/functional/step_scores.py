"""The step of a head whose scores at each step do not depend on the labels before."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.functional.decoding import Step


def lookup_step(log_probs: Float[Array, "b l o"]) -> Step:
  """Returns a step that looks up `log_probs`; what it carries is the number of the level, `i32[b k]`."""

  def step(level: Array, previous: Array, candidates: Array | None) -> tuple[Array, Array]:
    rows = jnp.arange(len(log_probs))[:, None]
    if candidates is None:
      return level + 1, log_probs[rows, level]
    return level + 1, log_probs[rows[..., None], level[..., None], candidates]

  return step
