"""Depthwise convolutions, which filter each channel by itself; on CPUs as sums of shifted maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from hierjax.nn.layers.by_platform import on_cpus

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = str | int | Sequence[tuple[int, int]]


class _Window(NamedTuple):
  """Strides, and the zeros before and after the rows and the columns."""

  strides: tuple[int, int]
  pads: Pads


class DepthwiseConv(nn.Module):
  """A convolution of each channel with its own kernel.

  Weights are `kernel`, f32[k k 1 c], and where there is one, `bias`, f32[c]: those of `nn.Conv` with a group a channel.

  Attributes:
    kernel_size: rows and columns of the kernel.
    strides: of the rows and the columns.
    padding: SAME, VALID, zeros on each side, or those before and after the rows and the columns.
    use_bias: whether there is a bias.
    kernel_init: initialiser of the kernel.
    dtype: of the computation; weights are float32.
  """

  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: Padding = "SAME"
  use_bias: bool = False
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Returns the filtered map."""
    kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, 1, x.shape[-1]), jnp.float32)
    y = depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding)
    if not self.use_bias:
      return y
    bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), jnp.float32)
    return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def depthwise_conv(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "k l 1 c"],
  strides: tuple[int, int] = (1, 1),
  padding: Padding = "SAME",
) -> Float[Array, "b h2 w2 c"]:
  """Returns the sum over the window of each cell, y_ijc = sum_pq x_(s i + p)(t j + q)c kernel_pq1c.

  Args:
    x: maps, of the kernel's dtype.
    kernel: of each channel.
    strides: s and t.
    padding: as of `DepthwiseConv`; SAME is TensorFlow's, of which one side of a map may have more.
  """
  window = _Window(strides, _pads(x.shape[1:3], kernel.shape[:2], strides, padding))
  return on_cpus(partial(_shifted, window), partial(_grouped, window))(x, kernel)


def _pads(sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, int], padding: Padding) -> Pads:
  """Returns the zeros before and after the rows and the columns."""
  if isinstance(padding, str):
    rows, columns = lax.padtype_to_pads(sizes, kernel, strides, padding)
  elif isinstance(padding, int):
    rows = columns = (padding, padding)
  else:
    rows, columns = padding
  return (rows[0], rows[1]), (columns[0], columns[1])


def _grouped(window: _Window, x: Float[Array, "b h w c"], kernel: Float[Array, "k l 1 c"]) -> Float[Array, "b i j c"]:
  numbers = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(
    x, kernel, window.strides, window.pads, dimension_numbers=numbers, feature_group_count=x.shape[-1]
  )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shifted(window: _Window, x: Float[Array, "b h w c"], kernel: Float[Array, "k l 1 c"]) -> Float[Array, "b i j c"]:
  padded = _padded(x, window.pads)
  terms = [tap * kernel[p, q].reshape(1, 1, 1, -1) for p, q, tap in _taps(window, padded, kernel.shape)]
  return sum(terms[1:], start=terms[0])


def _shifted_forward(window: _Window, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
  return _shifted(window, x, kernel), (x, kernel)


def _shifted_backward(window: _Window, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
  x, kernel = kept
  return _input_gradient(window, x.shape, kernel, gradient), _kernel_gradient(window, x, kernel.shape, gradient)


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _kernel_gradient(window: _Window, x: Array, shape: tuple[int, ...], gradient: Array) -> Array:
  """Returns the sum of each tap times the gradient over all cells and images."""
  padded = _padded(x, window.pads)
  sums = [jnp.einsum("bijc,bijc->c", tap, gradient) for _, _, tap in _taps(window, padded, shape)]
  return jnp.stack(sums).reshape(shape)


def _input_gradient(window: _Window, shape: tuple[int, ...], kernel: Array, gradient: Array) -> Array:
  """Returns the gradient of the map: for each remainder of a cell's row and column, a sum of shifted gradients."""
  (s, t), ((top, _), (left, _)) = window.strides, window.pads
  _, height, width, channels = shape
  rows, columns = -(-(height + top) // s), -(-(width + left) // t)
  # of the cells s i + r, t j + q of the padded map
  phases = [[_phase(gradient, kernel[r::s, q::t], (rows, columns)) for q in range(t)] for r in range(s)]
  if (s, t) == (1, 1):
    whole = phases[0][0]
  else:
    whole = jnp.stack([jnp.stack(row, 3) for row in phases], 2).reshape(-1, rows * s, columns * t, channels)
  return whole[:, top : top + height, left : left + width]


def _phase(gradient: Array, kernel: Array, cells: tuple[int, int]) -> Array:
  """Returns the sum over p and q of the gradient at (i - p, j - q) times kernel_pq, for all cells (i, j)."""
  k, m = kernel.shape[:2]
  if not k * m:
    return jnp.zeros((len(gradient), *cells, gradient.shape[-1]), gradient.dtype)
  before = [(n - 1, size - o) for n, size, o in zip((k, m), cells, gradient.shape[1:3], strict=True)]
  flipped = _Window((1, 1), (before[0], before[1]))
  return _shifted(flipped, gradient, kernel[::-1, ::-1])


def _padded(x: Float[Array, "b h w c"], pads: Pads) -> Float[Array, "b h2 w2 c"]:
  if not any((*pads[0], *pads[1])):
    return x
  return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))


def _taps(window: _Window, padded: Array, shape: tuple[int, ...]) -> list[tuple[int, int, Array]]:
  """Returns row and column of each cell of the kernel, and the cells of the padded map that it reads."""
  k, m = shape[:2]
  s, t = window.strides
  rows, columns = (padded.shape[1] - k) // s, (padded.shape[2] - m) // t
  return [(p, q, padded[:, p : p + rows * s + 1 : s, q : q + columns * t + 1 : t]) for p in range(k) for q in range(m)]
