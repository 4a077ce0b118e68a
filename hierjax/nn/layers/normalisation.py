"""Norms over channels: layer norm, and local response normalisation (LRN) of AlexNet and SPP-net."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def layer_norm(x: Float[Array, "*b c"], epsilon: float, name: str) -> Float[Array, "*b c"]:
  """Returns x layer normalised over its channels, in float32, by a part of the calling module named `name`.

  Args:
    x: of any dtype, which the result has.
    epsilon: added to the variance.
    name: of the part, whose weights are `scale` and `bias`.
  """
  # The variance as the mean of squared differences, as in PyTorch: that of E[x^2] - E[x]^2 is inexact for large means.
  norm = nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)
  return norm(x.astype(jnp.float32)).astype(x.dtype)


class _Settings(NamedTuple):
  """The arguments of `local_response_norm`."""

  size: int
  alpha: float
  beta: float
  k: float


def local_response_norm(
  x: Float[Array, "*b c"], size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Float[Array, "*b c"]:
  """Returns activations divided by a power of the mean square of neighbouring channels, as in Caffe:

      y_c = x_c / (k + alpha / size * sum_(|j - c| <= size // 2) x_j^2)^beta

  Channels beyond the first and the last count as 0. Krizhevsky et al. do not divide alpha by the size. The effect
  depends on the scale of x: LRN(s x; alpha) = s LRN(x; alpha s^2).

  Args:
    x: activations, channels last. The result has their dtype; the computation is float32.
    size: channels in a window, odd.
    alpha: weight of the mean square, 0 or more.
    beta: exponent.
    k: constant term of the divisor; above 0.

  Raises:
    ValueError: the size is even, or the divisor could be 0 or NaN.
  """
  if size < 1 or size % 2 == 0:
    raise ValueError(f"size = {size}: must be odd, 1, 3, 5, ..., so that the window has a middle channel")
  if not (k > 0 and alpha >= 0):
    raise ValueError(
      f"k = {k}, alpha = {alpha}: k must be above 0 and alpha 0 or more; otherwise the divisor could be 0"
    )
  return _normalise(x, _Settings(size, alpha, beta, k))


# Forward and gradient of 32 x 55 x 55 x 96 float32 on 2 CPU cores, with JAX's own derivative: windows summed by a band
# matrix 60 ms, by shifted slices 70 ms (172 ms with `**` for the power), by reduce_window 73 ms, by a cumulative sum
# 126 ms. Shifted slices with the derivative below: 52 ms, and nothing but x is kept for it.
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _normalise(x: Float[Array, "*b c"], settings: _Settings) -> Float[Array, "*b c"]:
  y = x.astype(jnp.float32)
  return (y * _power(_base(y, settings), settings.beta)).astype(x.dtype)


def _forward(x: Float[Array, "*b c"], settings: _Settings) -> tuple[Float[Array, "*b c"], Float[Array, "*b c"]]:
  return _normalise(x, settings), x


def _backward(
  settings: _Settings, x: Float[Array, "*b c"], gradient: Float[Array, "*b c"]
) -> tuple[Float[Array, "*b c"]]:
  size, alpha, beta, _ = settings
  y, g = x.astype(jnp.float32), gradient.astype(jnp.float32)
  base = _base(y, settings)
  direct = g * _power(base, beta)
  # An odd window is its own mirror image, so the channels that x_j acts on are the window around j.
  through = 2 * alpha * beta / size * y * _window_sum(direct * y / base, size)
  return ((direct - through).astype(x.dtype),)


_normalise.defvjp(_forward, _backward)


def _base(x: Float[Array, "*b c"], settings: _Settings) -> Float[Array, "*b c"]:
  return settings.k + settings.alpha / settings.size * _window_sum(x * x, settings.size)


def _power(base: Float[Array, "*b c"], beta: float) -> Float[Array, "*b c"]:
  return jnp.exp(-beta * jnp.log(base))


def _window_sum(x: Float[Array, "*b c"], size: int) -> Float[Array, "*b c"]:
  padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(size // 2, size // 2)])
  return sum((padded[..., i : i + x.shape[-1]] for i in range(1, size)), start=padded[..., : x.shape[-1]])
