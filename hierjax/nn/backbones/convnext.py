"""ConvNeXt (Liu et al. 2022), with torchvision's and timm's arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.nn.backbones.backbone import Backbone, check_sizes, variant
from hierjax.nn.backbones.plain import Entry
from hierjax.nn.layers.depthwise import DepthwiseConv
from hierjax.nn.layers.normalisation import layer_norm
from hierjax.nn.layers.patches import PatchConv, init
from hierjax.nn.layers.transformer import LayerScale, dense, drop_path

EPSILON = 1e-6  # of all layer norms

_gelu = partial(nn.gelu, approximate=False)


class Stem(nn.Module):
  """A 4x4 convolution with stride 4, and a norm.

  Attributes:
    width: channels.
    dtype: of the computation; weights are float32.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of a quarter of the images' size; images have 32 x 32 pixels or more."""
    return layer_norm(PatchConv(self.width, 4, dtype=self.dtype, name="conv")(Entry(32)(images)), EPSILON, "norm")


class Downsample(nn.Module):
  """A norm, and a 2x2 convolution with stride 2.

  Attributes:
    width: channels.
    dtype: of the computation; weights are float32.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of half the size; a last odd row or column is left out."""
    return PatchConv(self.width, 2, dtype=self.dtype, name="conv")(layer_norm(x, EPSILON, "norm"))


class Block(nn.Module):
  """x + F(x), where F is a 7x7 depthwise convolution, a norm, and two layers for each cell with a GELU between them.

  Attributes:
    layer_scale: initial value of a factor on each channel of F(x).
    drop_path: probability with which, in training, F(x) is left out for an image; the others' is scaled up.
    dtype: of the computation; weights are float32.
  """

  layer_scale: float = 1e-6
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w c"]:
    """Returns a map of the same size."""
    width = x.shape[-1]
    y = DepthwiseConv((7, 7), padding=3, use_bias=True, kernel_init=init, dtype=self.dtype, name="conv")(x)
    y = layer_norm(y, EPSILON, "norm")
    y = _gelu(dense(4 * width, dtype=self.dtype, name="fc1")(y))
    y = LayerScale(self.layer_scale, name="scale")(dense(width, dtype=self.dtype, name="fc2")(y))
    return x + drop_path(y, self.drop_path, train)


class Stage(nn.Module):
  """Blocks in a row; all stages but the first open with a `Downsample`."""

  downsample: Downsample | None
  blocks: tuple[Block, ...]

  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the last block."""
    x = x if self.downsample is None else self.downsample(x)
    for block in self.blocks:
      x = block(x, train)
    return x


class Top(nn.Module):
  """The mean of the last map, and a norm: what the classifier reads."""

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b c"]:
    """Returns a vector an image, float32."""
    return layer_norm(jnp.mean(x.astype(jnp.float32), axis=(1, 2)), EPSILON, "norm")


@checked
def convnext(
  widths: Sequence[int] = (96, 192, 384, 768),
  blocks: Sequence[int] = (3, 3, 9, 3),
  layer_scale: float = 1e-6,
  drop_path: float = 0.0,
  dtype: Any = jnp.float32,
) -> Backbone:
  """Returns ConvNeXt-T, or another, with torchvision's arithmetic, so that its weights give its numbers.

  Images of 224 x 224 give maps of 56, 28, 14 and 7; any of 32 x 32 or more go in.

  Args:
    widths: channels of each stage; every stage after the first halves the map.
    blocks: as many numbers, of the blocks of each stage.
    layer_scale: initial value of a factor on what each block adds.
    drop_path: in training, the probability with which an image skips the last block; it rises from 0 block by block.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: no stage, one without blocks or channels, or drop_path is not in [0, 1).
  """
  if not widths or len(widths) != len(blocks) or not 0 <= drop_path < 1:
    has = f"widths = {tuple(widths)}, blocks = {tuple(blocks)}, drop_path = {drop_path}"
    raise ValueError(f"{has}: there are as many widths as blocks, at least one, and 0 <= drop_path < 1")
  check_sizes(widths=widths, blocks=blocks)
  ends = np.cumsum(blocks)
  rates = np.split(np.linspace(0, drop_path, ends[-1]), ends[:-1])

  def stage(i: int) -> Stage:
    downsample = Downsample(widths[i], dtype) if i else None
    return Stage(downsample, tuple(Block(layer_scale, rate, dtype) for rate in rates[i].tolist()))

  return Backbone(Stem(widths[0], dtype), tuple(stage(i) for i in range(len(widths))), Top())


# With ImageNet's classifier: 28.6M, 50.2M, 88.6M and 197.8M weights.
CONVNEXTS: Mapping[str, Callable[..., Backbone]] = {
  "convnext_tiny": convnext,
  "convnext_small": variant(convnext, blocks=(3, 3, 27, 3)),
  "convnext_base": variant(convnext, widths=(128, 256, 512, 1024), blocks=(3, 3, 27, 3)),
  "convnext_large": variant(convnext, widths=(192, 384, 768, 1536), blocks=(3, 3, 27, 3)),
}
