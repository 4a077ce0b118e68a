"""Maxima, and pools over windows of 3 x 3 with stride 2, as in Caffe: sizes round up, and padding is at the end.

The gradients of jnp.max and jnp.maximum compare the values with the maximum for equality. XLA may recompute a map for
them with other rounding than for the maximum. Then no value is equal: the gradient of jnp.max is 0 / 0 = NaN, that of
jnp.maximum is 0. The functions here compare values with each other; of equal values, the first has the gradient.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def largest(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
  """Returns the maximum along an axis, which is left out."""
  axis %= x.ndim
  winner = jnp.argmax(x, axis, keepdims=True)
  cell = lax.broadcasted_iota(winner.dtype, x.shape, axis)
  return jnp.where(cell == winner, x, 0).sum(axis)


def larger(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns the larger of two numbers, or the one that is NaN."""
  return jnp.where((x >= y) | jnp.isnan(x), x, y)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
  """Returns the maximum of each window."""
  for axis in (1, 2):
    x = functools.reduce(larger, _taps(x, axis, -jnp.inf))
  return x


def mean_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
  """Returns the mean of each window, summed in float32; cells outside of the map do not count."""
  y = x.astype(jnp.float32)
  for axis in (1, 2):
    inside = np.full(x.shape[axis] // 2, 3, np.float32)
    inside[-1] -= x.shape[axis] % 2 == 0
    y = functools.reduce(jnp.add, _taps(y, axis, 0.0)) / inside.reshape([-1 if a == axis else 1 for a in range(4)])
  return y.astype(x.dtype)


def _taps(x: Float[Array, "b h w c"], axis: int, beyond: float) -> list[Float[Array, "b h2 w2 c"]]:
  """Returns the first, second and third cells of all windows along `axis`."""
  # Slices and their gradients take a third of the time of nn.max_pool's and nn.avg_pool's on a CPU: 160 for 487 ms on
  # 32 x 110 x 110 x 96, 13 for 32 ms on 100 x 16 x 16 x 192.
  size = x.shape[axis]
  cells = size // 2  # ceil((size - 3) / 2) + 1
  padding = [(0, 2 * cells + 1 - size if a == axis else 0) for a in range(4)]
  padded = jnp.pad(x, padding, constant_values=beyond)
  return [lax.slice_in_dim(padded, i, i + 2 * cells - 1, 2, axis) for i in range(3)]
