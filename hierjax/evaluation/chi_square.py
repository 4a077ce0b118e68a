"""Distances between feature vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

_EPSILON = 1e-10


def chi_square(x: Float[Array, "q c"], y: Float[Array, "m c"]) -> Float32[Array, "q m"]:
  """Returns the chi-square distance of each row of `x` to each row of `y`: sum (x - y)^2 / (|x| + |y| + 1e-10).

  Features may be negative, hence the absolute values (READINGS Z15). It works in float32, row after row of `x`, so no
  array is larger than `y` or the result.
  """
  y = y.astype(jnp.float32)

  def to_all(row: Float32[Array, "c"]) -> Float32[Array, "m"]:
    return (jnp.square(row[None] - y) / (jnp.abs(row)[None] + jnp.abs(y) + _EPSILON)).sum(axis=1)

  return jax.lax.map(to_all, x.astype(jnp.float32))
