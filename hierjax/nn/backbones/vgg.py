"""VGG-16 (Simonyan and Zisserman 2015, configuration D), with and without batch norm and its fully connected top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.nn.backbones.backbone import Backbone, check_sizes
from hierjax.nn.backbones.plain import Entry
from hierjax.nn.layers.convolution import Conv, Norm, conv_norm
from hierjax.nn.layers.pooling import larger
from hierjax.nn.layers.pyramid import window

CONVOLUTIONS = (2, 2, 3, 3, 3)
GRID = 7  # rows and columns of the map that fc6 reads


class Stage(nn.Module):
  """3x3 convolutions, each with its ReLU, and the maximum of each 2x2 cells.

  Attributes:
    width: channels.
    convolutions: how many.
    batch_norm: whether there is a norm before each ReLU.
    dtype: of the computation; weights are float32.
  """

  width: int
  convolutions: int
  batch_norm: bool = False
  dtype: Any = jnp.float32

  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of half the size; a last odd row or column is left out."""
    return self.layers(x, train)[-1]

  @nn.compact
  def layers(self, x: Float[Array, "b h w c"], train: bool = False) -> tuple[Float[Array, "b _h _w d"], ...]:
    """Returns the map after each convolution and its ReLU, and after the pool."""
    found = []
    for i in range(1, self.convolutions + 1):
      init = nn.initializers.he_normal()
      conv = Conv(self.width, (3, 3), padding=1, kernel_init=init, dtype=self.dtype, name=f"conv{i}")
      x = nn.relu(conv_norm(conv, x, train, Norm(f"norm{i}")) if self.batch_norm else conv(x))
      found.append(x)
    for axis in (1, 2):
      even = x.shape[axis] // 2 * 2
      x = larger(*(lax.slice_in_dim(x, i, even, 2, axis) for i in (0, 1)))
    return (*found, x)


class Top(nn.Module):
  """fc6 and fc7: fully connected layers over the map on a grid of 7x7, each with ReLU and dropout.

  Attributes:
    widths: of the layers.
    dropout: rate after each.
    dtype: of the computation; weights are float32.
  """

  widths: tuple[int, ...]
  dropout: float = 0.5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b d"]:
    """Returns the last layer's output in float32."""
    x = _on_grid(x).reshape(len(x), -1)
    for number, width in enumerate(self.widths, start=6):
      init = nn.initializers.he_normal()
      x = nn.relu(nn.Dense(width, kernel_init=init, dtype=self.dtype, name=f"fc{number}")(x))
      x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return x.astype(jnp.float32)


@checked
def vgg16(
  width: int = 64,
  batch_norm: bool = False,
  top: Sequence[int] | None = None,
  dropout: float = 0.5,
  dtype: Any = jnp.float32,
) -> Backbone:
  """Returns VGG-16: 14.7M weights, 138.4M with its top and ImageNet's classifier.

  A stage ends with its pool: images of 224 x 224 give maps of 112, 56, 28, 14 and 7; any of 32 x 32 or more go in. Its
  layers are `conv1_1`, `conv1_2`, `pool1` to `conv5_3`, `pool5`.

  Args:
    width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
    batch_norm: whether there is a norm before each ReLU.
    top: widths of fc6 and fc7, (4096, 4096) in the paper, whose output is the pooled vector then; None for no top,
      where it is the mean of the last map.
    dropout: rate after fc6 and fc7; without a top nothing is dropped.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: a width below 1, not two of them for a top, or dropout is not in [0, 1).
  """
  if width < 1 or not 0 <= dropout < 1 or (top is not None and (len(top) != 2 or min(top) < 1)):
    has = f"width = {width}, top = {top}, dropout = {dropout}"
    raise ValueError(f"{has}: widths are 1 or more, a top has two, (4096, 4096) in the paper, and 0 <= dropout < 1")
  check_sizes(width=width, top=top or ())
  widths = [width * factor for factor in (1, 2, 4, 8, 8)]
  stages = tuple(Stage(w, n, batch_norm, dtype) for w, n in zip(widths, CONVOLUTIONS, strict=True))
  names = tuple(
    (*(f"conv{stage}_{i}" for i in range(1, number + 1)), f"pool{stage}")
    for stage, number in enumerate(CONVOLUTIONS, start=1)
  )
  return Backbone(Entry(32), stages, None if top is None else Top(tuple(top), dropout, dtype), names)


def _on_grid(x: Float[Array, "b h w c"]) -> Float[Array, "b 7 7 c"]:
  """Returns the mean of the map under each cell of the grid, whose windows overlap where the map is smaller."""
  if x.shape[1:3] == (GRID, GRID):
    return x
  rows, columns = (jnp.asarray(_means(size), x.dtype) for size in x.shape[1:3])
  return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)


def _means(size: int) -> np.ndarray:
  """Returns the matrix `f32[7 size]` that takes the mean of each window of torchvision's adaptive pool."""
  weights = np.zeros((GRID, size), np.float32)
  for cell in range(GRID):
    first, end = window(cell, GRID, size)
    weights[cell, first:end] = 1 / (end - first)
  return weights
