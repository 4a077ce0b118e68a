"""Residual networks of bottlenecks with the ReLU after the sum (He et al. 2016a), and with SE or CBAM in each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.nn.backbones.backbone import Backbone, check_sizes
from hierjax.nn.backbones.preact import Stage, conv
from hierjax.nn.layers.attention import CBAM, SE
from hierjax.nn.layers.convolution import Norm, conv_norm
from hierjax.nn.layers.pooling import max_pool

Attention = Callable[..., nn.Module]


class Stem(nn.Module):
  """A 7x7 convolution that halves the map, norm and ReLU, and a max pool that halves it again.

  Attributes:
    width: channels.
    dtype: of the computation; weights are float32.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of a quarter of the images' size, rounded up."""
    halving = conv(self.width, (7, 7), (2, 2), 3, dtype=self.dtype, name="conv")
    x = nn.relu(conv_norm(halving, images, train, Norm("norm")))
    # A row and a column of zeros, which change no maximum of values >= 0, turn Caffe's pool into one with padding 1.
    return max_pool(jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))))


class Bottleneck(nn.Module):
  """relu(x + F(x)), where F is convolutions of 1x1, 3x3 and 1x1 with their norms, ReLUs between them, and attention.

  Where the shape changes, x goes through a 1x1 convolution and a norm. The 3x3 convolution has the stride, as in
  torchvision ("v1.5"); He et al. have it in the first one.

  Attributes:
    width: the sum has 4 times as many channels.
    stride: of the 3x3 convolution and the shortcut.
    attention: `attention(dtype=..., name=...)(x, train) -> x`, the end of F; None for none.
    dtype: of the computation; weights are float32.
    inner: channels of the first two convolutions; 0 for `width`.
    groups: of the 3x3 convolution's channels.
  """

  width: int
  stride: int = 1
  attention: Attention | None = None
  dtype: Any = jnp.float32
  inner: int = 0
  groups: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of 1 / stride the size, rounded up."""
    narrow, widen = (partial(conv, width, dtype=self.dtype) for width in (self.inner or self.width, 4 * self.width))
    strides = (self.stride, self.stride)
    y = nn.relu(conv_norm(narrow((1, 1), name="conv1"), x, train, Norm("norm1")))
    grouped = narrow((3, 3), strides, 1, groups=self.groups, name="conv2")
    y = nn.relu(conv_norm(grouped, y, train, Norm("norm2")))
    y = conv_norm(widen((1, 1), name="conv3"), y, train, Norm("norm3"))
    if self.attention is not None:
      y = self.attention(dtype=self.dtype, name="attention")(y, train)
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      x = conv_norm(widen((1, 1), strides, name="shortcut"), x, train, Norm("shortcut_norm"))
    return nn.relu(x + y)


def resnet(
  blocks: Sequence[int], width: int = 64, attention: Attention | None = None, dtype: Any = jnp.float32, groups: int = 1
) -> Backbone:
  """Returns a residual network with torchvision's arithmetic, so that its weights give its numbers.

  Images of 224 x 224 give maps of 56, 28, 14 and 7; any size goes in.

  Args:
    blocks: bottlenecks of each stage; every stage after the first halves the map and doubles the channels.
    width: channels of the stem; the first stage has 4 times as many.
    attention: as in `Bottleneck`.
    dtype: of the computation; weights are float32.
    groups: of a ResNeXt (Xie et al. 2017), whose first two convolutions have twice the channels; 1 for a ResNet.

  Raises:
    ValueError: a stage without blocks, none at all, or a width below 1.
  """
  if not blocks or min(blocks) < 1 or width < 1:
    raise ValueError(
      f"blocks = {tuple(blocks)}, width = {width}: each stage has a block or more, and the width is >= 1"
    )
  check_sizes(blocks=blocks, width=width)

  def stage(i: int, blocks: int) -> Stage:
    strides = [1 if i == 0 else 2] + [1] * (blocks - 1)
    inner = width * 2**i * (2 if groups > 1 else 1)
    return Stage(tuple(Bottleneck(width * 2**i, stride, attention, dtype, inner, groups) for stride in strides))

  return Backbone(Stem(width, dtype), tuple(stage(i, n) for i, n in enumerate(blocks)))


@checked
def resnet50(width: int = 64, dtype: Any = jnp.float32) -> Backbone:
  """Returns ResNet-50: 23.5M weights, 25.6M with ImageNet's classifier.

  Args:
    width: channels of the stem; the first stage has 4 times as many.
    dtype: of the computation; weights are float32.
  """
  return resnet((3, 4, 6, 3), width, None, dtype)


@checked
def resnet152(width: int = 64, dtype: Any = jnp.float32) -> Backbone:
  """Returns ResNet-152: 58.1M weights, 60.2M with ImageNet's classifier.

  Args:
    width: channels of the stem; the first stage has 4 times as many.
    dtype: of the computation; weights are float32.
  """
  return resnet((3, 8, 36, 3), width, None, dtype)


@checked
def se_resnet50(width: int = 64, reduction: int = 16, dtype: Any = jnp.float32) -> Backbone:
  """Returns SE-ResNet-50: 26.0M weights, 28.1M with ImageNet's classifier.

  Args:
    width: channels of the stem; the first stage has 4 times as many.
    reduction: channels for each hidden unit of an attention; see `hierjax.nn.layers.attention.SE`.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: a width or a reduction below 1.
  """
  return resnet((3, 4, 6, 3), width, _attention(SE, reduction), dtype)


@checked
def se_resnext50(width: int = 64, reduction: int = 16, groups: int = 32, dtype: Any = jnp.float32) -> Backbone:
  """Returns SE-ResNeXt-50 (32 x 4d), of the slides of Koo et al.: 25.5M weights, 27.6M with ImageNet's classifier.

  Args:
    width: channels of the stem; the first stage has 4 times as many.
    reduction: channels for each hidden unit of an attention; see `hierjax.nn.layers.attention.SE`.
    groups: of the 3x3 convolutions' channels, which are twice a ResNet's.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: a width or a reduction below 1, or fewer than 2 groups, or groups that do not divide 2 x width.
  """
  check_sizes(groups=groups, width=width)
  if groups < 2 or 2 * width % groups:
    raise ValueError(f"groups = {groups}, width = {width}: there are 2 groups or more, and they divide 2 x width")
  return resnet((3, 4, 6, 3), width, _attention(SE, reduction), dtype, groups)


@checked
def cbam_resnet50(width: int = 64, reduction: int = 16, dtype: Any = jnp.float32) -> Backbone:
  """Returns CBAM-ResNet-50: 26.0M weights, 28.1M with ImageNet's classifier.

  Args:
    width: channels of the stem; the first stage has 4 times as many.
    reduction: channels for each hidden unit of an attention; see `hierjax.nn.layers.attention.CBAM`.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: a width or a reduction below 1.
  """
  return resnet((3, 4, 6, 3), width, _attention(CBAM, reduction), dtype)


def _attention(kind: Attention, reduction: int) -> Attention:
  if reduction < 1:
    raise ValueError(f"reduction = {reduction}: must be 1 or more")
  check_sizes(reduction=reduction)
  return partial(kind, reduction=reduction)
