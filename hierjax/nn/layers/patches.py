"""Patches of images: convolutions whose windows do not overlap, and position embeddings of a grid of any size."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

Grid = tuple[int, int]

init = nn.initializers.truncated_normal(0.02)


class PatchConv(nn.Module):
  """A convolution with a stride of its kernel's size, written as a matrix product.

  Attributes:
    width: channels.
    patch: height and width of the kernel, and the stride.
    use_bias: whether a bias is added.
    dtype: of the computation; weights are float32.
  """

  width: int
  patch: int
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
    """Returns a map of 1 / patch the size; rows and columns that are less than a patch are left out."""
    (b, h, w, c), p = x.shape, self.patch
    kernel = self.param("kernel", init, (p, p, c, self.width))
    patches = x[:, : h // p * p, : w // p * p].reshape(b, h // p, p, w // p, p, c)
    y = jnp.einsum("bhiwjc,ijcd->bhwd", patches.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias:
      y += self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)[None, None, None]
    return y


def resampled_positions(positions: Float[Array, "m d"], old: Grid, new: Grid) -> Float[Array, "n d"]:
  """Returns position embeddings of a grid, row by row, resampled to another grid.

  The resampling is bicubic and antialiased, with Keys' a = -0.5, as timm's `resample_abs_pos_embed`, and does nothing
  where the grids are equal.

  Args:
    positions: of the old grid.
    old: its rows and columns, m in all.
    new: rows and columns of the new grid, n in all.
  """
  if old == new:
    return positions
  rows, columns = (jnp.asarray(bicubic(*sizes)) for sizes in zip(old, new, strict=True))
  grid = positions.reshape(*old, -1)
  return jnp.einsum("ih,jw,hwd->ijd", rows, columns, grid).reshape(new[0] * new[1], -1)


def bicubic(old: int, new: int) -> np.ndarray:
  """Returns the matrix `f32[new old]` that resamples a row of `old` cells to `new`; its rows sum to 1."""
  scale = old / new
  centres = (np.arange(new) + 0.5) * scale - 0.5
  x = np.abs(centres[:, None] - np.arange(old)) / max(scale, 1.0)
  near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
  weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
