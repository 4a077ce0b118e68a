"""Convolutions, of which those of 1x1 are matrix products on CPUs, and those with a batch norm after them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from hierjax.nn.layers.by_platform import Bilinear, on_cpus
from hierjax.nn.layers.depthwise import DepthwiseConv

Initializer = nn.initializers.Initializer

_NUMBERS = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
  """A convolution with the weights of `nn.Conv`: `kernel`, f32[k l c d], and where there is one, `bias`, f32[d].

  Attributes:
    features: channels of the output.
    kernel_size: rows and columns of the kernel.
    strides: of the rows and the columns.
    padding: SAME, VALID, zeros on each side, or those before and after the rows and the columns.
    use_bias: whether there is a bias.
    kernel_init: initialiser of the kernel.
    bias_init: initialiser of the bias.
    dtype: of the computation; weights are float32.
    groups: of the channels, each of which is filtered into its own share of the output's; the kernel is then
      f32[k l c/groups d].
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: str | int | Sequence[tuple[int, int]] = "SAME"
  use_bias: bool = True
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros_init()
  dtype: Any = jnp.float32
  groups: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], factor: Float[Array, "d"] | None = None) -> Float[Array, "b h2 w2 d"]:
    """Returns the filtered map; kernel and bias of each channel are multiplied by `factor` first."""
    shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    kernel = kernel if factor is None else kernel * factor.reshape(1, 1, 1, -1)
    y = _convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding, self.groups)
    if not self.use_bias:
      return y
    bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
    bias = bias if factor is None else bias * factor
    return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class Norm(NamedTuple):
  """A batch norm.

  Attributes:
    name: of the part of the calling module.
    epsilon: is added to the variance.
    momentum: of the running averages.
  """

  name: str
  epsilon: float = 1e-5
  momentum: float = 0.9


def conv_norm(
  conv: Conv | DepthwiseConv, x: Float[Array, "b h w c"], train: bool, norm: Norm
) -> Float[Array, "b h2 w2 d"]:
  """Returns the map after a convolution and a batch norm, parts of the calling module.

  In training it is normalised by the batch, in float32, otherwise by the running averages. Then, in float32, the norm's
  factor is the kernel's and one pass over the map is saved, which changes results by rounding.
  """
  if train or conv.dtype != jnp.float32:
    y, (name, epsilon, momentum) = conv(x), norm
    # Cast by hand: flax's own bfloat16 batch norm mixes dtypes, which strict promotion refuses.
    normed = nn.BatchNorm(use_running_average=not train, momentum=momentum, epsilon=epsilon, name=name)
    return normed(y.astype(jnp.float32)).astype(y.dtype)
  features = x.shape[-1] if isinstance(conv, DepthwiseConv) else conv.features
  factor, shift = _Coefficients(features, norm.epsilon, name=norm.name)()
  return conv(x, factor) + shift.reshape(1, 1, 1, -1)


class _Coefficients(nn.Module):
  """A batch norm by the running averages as y = factor x + shift, with the variables of `nn.BatchNorm`."""

  features: int
  epsilon: float

  @nn.compact
  def __call__(self) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    shape = (self.features,)
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32).value
    variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32).value
    scale = self.param("scale", nn.initializers.ones_init(), shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
    factor = scale * lax.rsqrt(variance + self.epsilon)
    return factor, bias - mean * factor


def _convolve(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "k l c2 d"],
  strides: tuple[int, int],
  padding: str | int | Sequence[tuple[int, int]],
  groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
  pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
  unpadded = pads in ("SAME", "VALID") or (not isinstance(pads, str) and not any(map(any, pads)))
  if kernel.shape[:2] == (1, 1) and unpadded and groups == 1:
    return _pointwise(strides)(x, kernel)
  return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_NUMBERS, feature_group_count=groups)


@functools.cache
def _pointwise(strides: tuple[int, int]) -> Bilinear:
  convolution = partial(lax.conv_general_dilated, window_strides=strides, padding="VALID", dimension_numbers=_NUMBERS)
  return on_cpus(partial(_product, strides), convolution)


def _product(
  strides: tuple[int, int], x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"]
) -> Float[Array, "b h2 w2 d"]:
  cells = x[:, :: strides[0], :: strides[1]]
  product = cells.reshape(-1, cells.shape[-1]) @ kernel[0, 0]
  return product.reshape(*cells.shape[:3], -1)
