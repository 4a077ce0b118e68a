"""Plain convolutional trunks: the five convolutional layers of Table I of Zuo et al. (2016)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from hierjax.backbones.backbone import Backbone
from hierjax.errors import UserError
from hierjax.layers.normalisation import local_response_norm

WIDTHS = (96, 256, 384, 384, 256)

# Caffe's alpha of 1e-4 is for pixels from 0 to 255 less their mean. Ours are divided by 255 and by their standard
# deviation, 0.225 on ImageNet, so activations are smaller by s = 255 * 0.225 and alpha s^2 gives the same net.
LRN_ALPHA = 1e-4 * (255 * 0.225) ** 2


class Entry(nn.Module):
  """Turns images away that the last map would have nothing of.

  Attributes:
    smallest: height and width from which on the last map has a cell.
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
        f"images of {height} x {width} pixels are too small for this backbone: it takes {smallest} or more"
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

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h2 w2 d"]:
    """Returns the map after the column."""
    kernel, strides = (self.kernel, self.kernel), (self.stride, self.stride)
    # He et al.'s initialisation: no norm here would repair a scale that each ReLU halves.
    init = nn.initializers.he_normal()
    conv = nn.Conv(self.width, kernel, strides, self.pad, kernel_init=init, dtype=self.dtype, name="conv")
    x = nn.relu(conv(x))
    return x if self.alpha is None else max_pool(local_response_norm(x, alpha=self.alpha))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
  """Returns the maxima of 3 x 3 windows, 2 apart; as in Caffe, sizes round up: a last window may stick out by one."""
  # Rows, then columns, by slices: with its gradient three times as fast on a CPU as nn.max_pool (160 for 487 ms on
  # 32 x 110 x 110 x 96). Equal maxima share the gradient.
  for axis in (1, 2):
    size = x.shape[axis]
    cells = size // 2  # ceil((size - 3) / 2) + 1
    padding = [(0, 2 * cells + 1 - size if a == axis else 0) for a in range(4)]
    padded = jnp.pad(x, padding, constant_values=-jnp.inf)
    taps = (lax.slice_in_dim(padded, i, i + 2 * cells - 1, 2, axis) for i in range(3))
    x = functools.reduce(jnp.maximum, taps)
  return x


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
  return _trunk((11, 4, 0), (5, 1, 2), 23, widths, lrn_alpha, dtype)


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
  return _trunk((7, 2, 1), (5, 2, 0), 31, widths, lrn_alpha, dtype)


def _trunk(
  conv1: tuple[int, int, int],
  conv2: tuple[int, int, int],
  smallest: int,
  widths: Sequence[int],
  lrn_alpha: float,
  dtype: Any,
) -> Backbone:
  if len(widths) != 5 or min(widths) < 1 or lrn_alpha < 0:
    has = f"widths = {tuple(widths)}, lrn_alpha = {lrn_alpha}"
    raise ValueError(f"{has}: a trunk has five widths, none below 1, and lrn_alpha is 0 or more")
  normed = [Stage(width, *window, lrn_alpha, dtype) for width, window in zip(widths, (conv1, conv2), strict=False)]
  return Backbone(Entry(smallest), (*normed, *(Stage(width, dtype=dtype) for width in widths[2:])))
