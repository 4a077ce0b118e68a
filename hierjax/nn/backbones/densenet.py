"""Densely connected networks with bottlenecks and compression, DenseNet-BC (Huang et al. 2017)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.nn.backbones.backbone import Backbone, check_sizes
from hierjax.nn.backbones.plain import Entry
from hierjax.nn.backbones.preact import NormAct, conv


class Stem(nn.Module):
  """One 3x3 convolution of images that the two pools leave a cell of.

  Attributes:
    width: channels.
    dtype: of the computation; weights are float32.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w d"]:
    """Returns a map of the size of the images, which have 4 x 4 pixels or more."""
    return conv(self.width, (3, 3), dtype=self.dtype, name="conv")(Entry(4)(images))


class DenseLayer(nn.Module):
  """x -> [x, H(x)], where H is norm, ReLU and a 1x1 convolution, then norm, ReLU and a 3x3 convolution.

  Attributes:
    growth: channels of H(x); the 1x1 convolution has 4 growth.
    dropout: rate after both convolutions.
    dtype: of the computation; weights are float32.
  """

  growth: int
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w d"]:
    """Returns the channels of x, and `growth` new ones after them."""
    y = x
    for i, (width, kernel) in enumerate([(4 * self.growth, 1), (self.growth, 3)], start=1):
      y = NormAct(self.dtype, name=f"act{i}")(y, train)
      y = conv(width, (kernel, kernel), dtype=self.dtype, name=f"conv{i}")(y)
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
    return jnp.concatenate([x, y], axis=-1)


class Transition(nn.Module):
  """Norm, ReLU and a 1x1 convolution to fewer channels, then the mean of each 2x2 cells.

  Attributes:
    width: channels.
    dropout: rate after the convolution.
    dtype: of the computation; weights are float32.
  """

  width: int
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of half the size; a last odd row or column is left out."""
    y = NormAct(self.dtype, name="act")(x, train)
    y = conv(self.width, (1, 1), dtype=self.dtype, name="conv")(y)
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    b, h, w, d = y.shape
    windows = y[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, d)
    return jnp.mean(windows, axis=(2, 4))  # flax's own pool mixes dtypes, which strict promotion refuses


class Stage(nn.Module):
  """A dense block; all but the first open with a transition, and the last ends with the final norm (READINGS D9)."""

  transition: Transition | None
  layers: tuple[DenseLayer, ...]
  norm: NormAct | None

  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the last layer: all that the stage began with and made."""
    x = x if self.transition is None else self.transition(x, train)
    for layer in self.layers:
      x = layer(x, train)
    return x if self.norm is None else self.norm(x, train)


@checked
def densenet(
  depth: int = 100, growth: int = 12, compression: float = 0.5, dropout: float = 0.0, dtype: Any = jnp.float32
) -> Backbone:
  """Returns DenseNet-BC for images of 32 x 32, in three stages: 0.8M weights for DenseNet-100-BC with growth 12.

  Maps are of 32, 16 and 8; any images of 4 x 4 or more go in.

  Args:
    depth: convolutions in a row and the classifier, 6 n + 4 for n layers of two convolutions a stage.
    growth: channels that each layer adds, k in the paper; the stem has twice as many.
    compression: a transition keeps this part of the channels, theta in the paper, rounded down; 1 keeps all.
    dropout: rate after every convolution but the stem's; the paper's is 0.2 without augmentation.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: no such depth, or a setting outside its range.
  """
  if depth < 10 or depth % 6 != 4:
    raise ValueError(f"depth = {depth}: a DenseNet-BC has depth 6 n + 4: 10, 16, 22, 28, ..., 100, ...")
  if growth < 1 or not 0 < compression <= 1 or not 0 <= dropout < 1:
    has = f"growth = {growth}, compression = {compression}, dropout = {dropout}"
    raise ValueError(f"{has}: growth is 1 or more, 0 < compression <= 1, and 0 <= dropout < 1")
  check_sizes(depth=depth, growth=growth)
  layers, width, stages = (depth - 4) // 6, 2 * growth, []
  for i in range(3):
    if i > 0:
      width = int(compression * width)
    transition = Transition(width, dropout, dtype) if i > 0 else None
    block = tuple(DenseLayer(growth, dropout, dtype) for _ in range(layers))
    stages.append(Stage(transition, block, NormAct(dtype) if i == 2 else None))
    width += layers * growth
  return Backbone(Stem(2 * growth, dtype), tuple(stages))
