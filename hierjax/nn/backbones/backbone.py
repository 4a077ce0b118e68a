"""The class of all backbones: a stem, stages, and an optional top."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.types import Features


def check_sizes(**sizes: Any) -> None:
  """Raises ValueError, which names it, for a size that is not a whole number of 1 or more, or a tuple of them."""
  for name, size in sizes.items():
    for number in size if isinstance(size, list | tuple) else (size,):
      if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} = {size!r}: must be 1 or more, and whole")


class Backbone(nn.Module):
  """A stem and a tuple of stages; the pooled vector is the global average of the last stage's map, or a top's.

  A stage ends with all that belongs to it, the last one with the final norm (READINGS D9), so a trunk can be cut after
  any stage.

  Attributes:
    stem: `stem(x, train) -> x`.
    stages: the same, one after the other.
    top: `top(x, train) -> f32[b d]`, fully connected layers over the last stage's map; None for its average.
  """

  stem: nn.Module
  stages: tuple[nn.Module, ...]
  top: nn.Module | None = None

  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Features:
    """Returns the map after each stage, in the compute dtype, and the pooled vector `f32[b d]`."""
    x = self.stem(images, train)
    maps = []
    for stage in self.stages:
      x = stage(x, train)
      maps.append(x)
    pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2)) if self.top is None else self.top(x, train)
    return Features(stages=tuple(maps), pooled=pooled)
