"""Plain convolutional backbones: the five layers of Table I of Zuo et al. (2016), and CNN-7 of Guo et al. (2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.backbones.backbone import Backbone, check_sizes
from hierjax.nn.layers.convolution import Conv
from hierjax.nn.layers.normalisation import local_response_norm
from hierjax.nn.layers.pooling import max_pool, mean_pool

WIDTHS = (96, 256, 384, 384, 256)

# Caffe's alpha of 1e-4 is for pixels from 0 to 255 less their mean. Ours are divided by 255 and by their standard
# deviation, 0.225 on ImageNet, so activations are smaller by s = 255 * 0.225 and alpha s^2 gives the same net.
LRN_ALPHA = 1e-4 * (255 * 0.225) ** 2


class Entry(nn.Module):
  """A check of the size of the images: the last map must have a cell.

  Attributes:
    smallest: the smallest height and width.
  """

  smallest: int

  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w c"]:
    """Returns the images.

    Raises:
      UserError: they are too small.
    """
    height, width = images.shape[1:3]
    if min(height, width) < self.smallest:
      smallest = f"{self.smallest} x {self.smallest}"
      raise UserError(
        f"images of {height} x {width} pixels are too small for this backbone: it needs {smallest} or more"
      )
    return images


class Stage(nn.Module):
  """A column of Table I: convolution and ReLU, and where the table has them, LRN, then the max pool.

  Attributes:
    width: channels.
    kernel: height and width of the convolution.
    stride: of the convolution.
    pad: zeros on each side of the map.
    alpha: of the LRN; None for a column without LRN and pool.
    dtype: of the computation; weights are float32.
  """

  width: int
  kernel: int = 3
  stride: int = 1
  pad: int = 1
  alpha: float | None = None
  dtype: Any = jnp.float32

  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the column."""
    return self.layers(x, train)[-1]

  @nn.compact
  def layers(self, x: Float[Array, "b h w c"], train: bool = False) -> tuple[Float[Array, "b _h _w d"], ...]:
    """Returns the map after the convolution and its ReLU and, where there is one, after the pool."""
    kernel, strides = (self.kernel, self.kernel), (self.stride, self.stride)
    # He et al.'s initialisation: no norm here would repair a scale that each ReLU halves.
    init = nn.initializers.he_normal()
    conv = nn.Conv(self.width, kernel, strides, self.pad, kernel_init=init, dtype=self.dtype, name="conv")
    x = nn.relu(conv(x))
    return (x,) if self.alpha is None else (x, max_pool(local_response_norm(x, alpha=self.alpha)))


class Group(nn.Module):
  """A group of CNN-7: convolutions, each with its ReLU, then a pool if there is one, and dropout.

  Attributes:
    width: channels.
    kernels: height and width of each convolution, none of which changes the size of the map.
    pool: `pool(x) -> x`, or None.
    dropout: rate.
    drop_whole: axes along which dropout drops all cells or none.
    dtype: of the computation; weights are float32.
  """

  width: int
  kernels: tuple[int, ...]
  pool: Callable[[Array], Array] | None = None
  dropout: float = 0.5
  drop_whole: tuple[int, ...] = ()
  dtype: Any = jnp.float32

  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the group."""
    return self.layers(x, train)[-1]

  @nn.compact
  def layers(self, x: Float[Array, "b h w c"], train: bool = False) -> tuple[Float[Array, "b _h _w d"], ...]:
    """Returns the map after each convolution and its ReLU, the last one after pool and dropout.

    Where there is a pool, the map before it is one more.
    """
    found = []
    for i, kernel in enumerate(self.kernels, start=1):
      init = nn.initializers.he_normal()
      x = nn.relu(Conv(self.width, (kernel, kernel), kernel_init=init, dtype=self.dtype, name=f"conv{i}")(x))
      found.append(x)
    end = found.pop() if self.pool is None else self.pool(x)
    return (*found, nn.Dropout(self.dropout, broadcast_dims=self.drop_whole)(end, deterministic=not train))


@checked
def alexnet(widths: Sequence[int] = WIDTHS, lrn_alpha: float = LRN_ALPHA, dtype: Any = jnp.float32) -> Backbone:
  """Returns AlexNet's five convolutional layers as Table I has them (READINGS Z12): 3.7M weights.

  Images of 224 x 224 give maps of 27, 13, 13, 13 and 13. A stage is a column of the table, but the pool after conv5 is
  the neck's. Krizhevsky et al. split conv2, conv4 and conv5 into two groups; Table I does not, nor does this.

  Args:
    widths: channels of the five layers.
    lrn_alpha: weight of the mean square in the LRN. Caffe's is 1e-4, for pixels from 0 to 255; for pixels divided by
      255 and by a standard deviation `std`, the same net has 1e-4 (255 std)^2, here with ImageNet's std of 0.225.
    dtype: of the computation; weights and LRN are float32.

  Raises:
    ValueError: not five widths, a width below 1 or a negative lrn_alpha.
  """
  return _trunk(((11, 4, 0), (5, 1, 2)), 23, widths, partial(Stage, alpha=lrn_alpha, dtype=dtype))


@checked
def sppnet(widths: Sequence[int] = WIDTHS, lrn_alpha: float = LRN_ALPHA, dtype: Any = jnp.float32) -> Backbone:
  """Returns the five convolutional layers of SPP-net and C-HRNN in Table I (READINGS Z11): 3.7M weights.

  Images of 224 x 224 give maps of 55, 13, 13, 13 and 13; the rest is as in `alexnet`.

  Args:
    widths: channels of the five layers.
    lrn_alpha: weight of the mean square in the LRN, as in `alexnet`.
    dtype: of the computation; weights and LRN are float32.

  Raises:
    ValueError: not five widths, a width below 1 or a negative lrn_alpha.
  """
  return _trunk(((7, 2, 1), (5, 2, 0)), 31, widths, partial(Stage, alpha=lrn_alpha, dtype=dtype))


def _trunk(
  windows: tuple[tuple[int, int, int], ...], smallest: int, widths: Sequence[int], stage: partial[Stage]
) -> Backbone:
  """Returns the five layers; `windows`: kernel, stride and padding of the first two, which have LRN and a pool."""
  lrn_alpha = stage.keywords["alpha"]
  if len(widths) != 5 or min(widths) < 1 or not 0 <= lrn_alpha < float("inf"):
    has = f"widths = {tuple(widths)}, lrn_alpha = {lrn_alpha}"
    raise ValueError(f"{has}: a trunk has five widths, none below 1, and lrn_alpha is 0 or more")
  check_sizes(widths=widths)
  normed = [stage(width, *window) for width, window in zip(widths, windows, strict=False)]
  names = (("conv1", "pool1"), ("conv2", "pool2"), ("conv3",), ("conv4",), ("conv5",))
  return Backbone(Entry(smallest), (*normed, *(stage(width, alpha=None) for width in widths[2:])), layer_names=names)


@checked
def cnn7(width: int = 192, dropout: Sequence[float] = (0.5, 0.5, 0.5), dtype: Any = jnp.float32) -> Backbone:
  """Returns CNN-7, the baseline of Guo et al. (Fig. 6, READINGS G10): 1.7M weights, and the classifier's.

  Seven convolutions, their ReLUs and nothing that normalises. Images of 32 x 32 give maps of 16, 8 and 8; any of 4 x 4
  or more goes in.

  Args:
    width: channels of every convolution.
    dropout: rate after each of the three groups; the last is the pooled vector's.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: a width below 1, or not three rates.
  """
  if width < 1 or len(dropout) != 3 or not all(0 <= rate < 1 for rate in dropout):
    has = f"width = {width}, dropout = {tuple(dropout)}"
    raise ValueError(f"{has}: the width is 1 or more, and there are three rates, each at least 0 and less than 1")
  check_sizes(width=width)
  first = Group(width, (3, 3), max_pool, dropout[0], dtype=dtype)
  second = Group(width, (3, 3), mean_pool, dropout[1], dtype=dtype)
  # Dropping whole channels of the last map is dropping entries of its mean.
  third = Group(width, (3, 3, 1), None, dropout[2], drop_whole=(1, 2), dtype=dtype)
  names = (("conv1", "conv2", "pool1"), ("conv3", "conv4", "pool2"), ("conv5", "conv6", "conv7"))
  return Backbone(Entry(4), (first, second, third), layer_names=names)
