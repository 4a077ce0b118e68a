"""Pre-activation residual networks: ResNet (He et al. 2016b), wide (Zagoruyko and Komodakis 2016), wider, small."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.nn.backbones.backbone import Backbone, check_sizes
from hierjax.nn.layers.convolution import Conv

# He et al.'s initialisation, and no biases: a norm follows, or the next block's does.
conv = partial(Conv, use_bias=False, kernel_init=nn.initializers.he_normal())


class Stem(nn.Module):
  """One 3x3 convolution; the first block begins with norm and activation."""

  width: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of 1 / stride the size."""
    return conv(self.width, (3, 3), (self.stride, self.stride), dtype=self.dtype, name="conv")(x)


class NormAct(nn.Module):
  """Batch norm, in float32, then ReLU."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w c"]:
    """Normalises by the batch in training, by the running averages otherwise."""
    # Cast by hand: flax's own bfloat16 batch norm mixes dtypes, which strict promotion refuses.
    y = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x.astype(jnp.float32))
    return nn.relu(y).astype(self.dtype)


class Block(nn.Module):
  """Norm, ReLU and convolution, in turn, and the shortcut around them.

  Where the shape changes, the shortcut is a 1x1 convolution of the activated input.

  Attributes:
    width: channels of the sum.
    stride: of the first convolution and the shortcut.
    kernels: height and width of each convolution.
    bottleneck: the convolutions before the last have width / bottleneck channels.
    dropout: rate between the convolutions.
    dtype: of the computation; weights are float32.
  """

  width: int
  stride: int = 1
  kernels: tuple[int, ...] = (3, 3)
  bottleneck: int = 1
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of 1 / stride the size."""
    first, *others = self.kernels
    widths = [self.width // self.bottleneck] * len(others) + [self.width]
    strides = (self.stride, self.stride)
    y = NormAct(self.dtype, name="act1")(x, train)
    if x.shape[-1] != self.width or self.stride != 1:
      x = conv(self.width, (1, 1), strides, dtype=self.dtype, name="shortcut")(y)
    y = conv(widths[0], (first, first), strides, dtype=self.dtype, name="conv1")(y)
    for i, (kernel, width) in enumerate(zip(others, widths[1:], strict=True), start=2):
      y = NormAct(self.dtype, name=f"act{i}")(y, train)
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
      y = conv(width, (kernel, kernel), dtype=self.dtype, name=f"conv{i}")(y)
    return x + y


class Stage(nn.Module):
  """Blocks in a row; the last stage of a net also has the final norm."""

  blocks: tuple[nn.Module, ...]
  norm: nn.Module | None = None

  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the last block."""
    for block in self.blocks:
      x = block(x, train)
    return x if self.norm is None else self.norm(x, train)


def _preact(stem: Stem, widths: Sequence[int], blocks: int, block: partial[Block]) -> Backbone:
  """Returns a stem and stages of so many blocks, each `block(width, stride)`."""
  dropout = block.keywords["dropout"]
  if blocks < 1 or stem.stride < 1 or not widths or not 0 <= dropout < 1:
    has = f"widths = {widths}, blocks = {blocks}, stem_stride = {stem.stride}, dropout = {dropout}"
    raise ValueError(f"{has}: a net has at least one stage, at least one block in each, and 0 <= dropout < 1")
  check_sizes(widths=widths, blocks=blocks, stem_stride=stem.stride)

  def stage(i: int, width: int) -> Stage:
    strides = [1 if i == 0 else 2] + [1] * (blocks - 1)
    last = i == len(widths) - 1
    in_a_row = tuple(block(width, stride) for stride in strides)
    return Stage(in_a_row, NormAct(stem.dtype) if last else None)

  return Backbone(stem, tuple(stage(i, width) for i, width in enumerate(widths)))


@checked
def small_resnet(
  widths: Sequence[int] = (32, 64, 128),
  blocks: int = 1,
  stem_stride: int = 1,
  dropout: float = 0.0,
  dtype: Any = jnp.float32,
) -> Backbone:
  """Returns a small pre-activation ResNet for CPUs: 0.3M weights by default.

  Args:
    widths: channels of each stage; every stage after the first halves the map.
    blocks: residual blocks a stage.
    stem_stride: 2 halves the map before the first stage, which saves most of the time.
    dropout: rate within the blocks.
    dtype: of the computation; weights are float32.
  """
  block = partial(Block, dropout=dropout, dtype=dtype)
  return _preact(Stem(widths[0] if widths else 0, stem_stride, dtype), widths, blocks, block)


@checked
def preact_resnet(depth: int = 164, dropout: float = 0.0, dtype: Any = jnp.float32) -> Backbone:
  """Returns the pre-activation ResNet with bottlenecks of He et al. for images of 32 x 32: 1.7M weights for ResNet-164.

  A block has convolutions of 1x1, 3x3 and 1x1, the first two a quarter as wide as its stage; as in He et al.'s own
  code, the first one halves the map.

  Args:
    depth: convolutions in a row and the classifier, 9 n + 2 for n blocks a stage.
    dropout: rate within the blocks, of which the paper has none.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: no such depth, or dropout is not in [0, 1).
  """
  if depth < 11 or depth % 9 != 2:
    raise ValueError(f"depth = {depth}: a ResNet of bottlenecks has depth 9 n + 2: 11, 20, 29, 38, ..., 164, ...")
  check_sizes(depth=depth)
  blocks = (depth - 2) // 9
  block = partial(Block, kernels=(1, 3, 1), bottleneck=4, dropout=dropout, dtype=dtype)
  return _preact(Stem(16, dtype=dtype), (64, 128, 256), blocks, block)


@checked
def wide_resnet(depth: int = 28, width: int = 10, dropout: float = 0.3, dtype: Any = jnp.float32) -> Backbone:
  """Returns WRN-depth-width for images of 32 x 32: 36.5M weights for WRN-28-10.

  Args:
    depth: convolutions in a row, 6 n + 4 for n blocks a stage.
    width: the factor on the channels 16, 32, 64 of the stages.
    dropout: rate within the blocks.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: no such depth.
  """
  if depth < 10 or depth % 6 != 4:
    raise ValueError(f"depth = {depth}: a wide ResNet has depth 6 n + 4: 10, 16, 22, 28, 34, 40, ...")
  check_sizes(depth=depth, width=width)
  block = partial(Block, dropout=dropout, dtype=dtype)
  return _preact(Stem(16, dtype=dtype), [width * w for w in (16, 32, 64)], (depth - 4) // 6, block)


@checked
def wider_resnet(
  widths: Sequence[int] = (256, 512, 1024), blocks: int = 3, dropout: float = 0.0, dtype: Any = jnp.float32
) -> Backbone:
  """Returns the wider-ResNet of Guo et al. (Table 3, READINGS G11) for images of 32 x 32: 45.4M weights.

  A block has convolutions of 1x1, 3x3 and 1x1, all as wide as its stage, so nothing is a bottleneck. Table 3 does not
  say which one halves the map: here it is the first, as in He et al.'s own code.

  Args:
    widths: channels of each stage; every stage after the first halves the map.
    blocks: residual blocks a stage.
    dropout: rate within the blocks, of which the paper has none.
    dtype: of the computation; weights are float32.
  """
  block = partial(Block, kernels=(1, 3, 1), dropout=dropout, dtype=dtype)
  return _preact(Stem(64, dtype=dtype), widths, blocks, block)
