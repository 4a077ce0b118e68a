"""The class of all backbones: a stem, stages, and an optional top."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

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


class Tokens(NamedTuple):
  """What the parts of a transformer pass on: a map, and the tokens that are at no place of the image.

  Attributes:
    map: `f[b h w c]`, a token for each patch of the image.
    prefix: `f[b p c]`, the class token and the registers; p may be 0.
  """

  map: Float[Array, "b h w c"]
  prefix: Float[Array, "b p c"]


State = Float[Array, "b h w c"] | Tokens


def map_of(x: State) -> Float[Array, "b h w c"]:
  """Returns the map of what a stage returns."""
  return x.map if isinstance(x, Tokens) else x


def called(part: nn.Module, *inputs: Any, train: bool, method: str = "__call__") -> Any:
  """Returns what a part of a network computes."""
  return getattr(part, method)(*inputs, train=train)


def remat(part: nn.Module, *inputs: Any, train: bool, method: str = "__call__") -> Any:
  """Returns the same; the backward pass computes it anew from the inputs, which are all that the forward pass keeps."""
  return nn.remat(partial(called, train=train, method=method))(part, *inputs)


class Backbone(nn.Module):
  """A stem and a tuple of stages; the pooled vector is the global average of the last stage's map, or a top's.

  A stage ends with all that belongs to it, the last one with the final norm (READINGS D9), so a trunk can be cut after
  any stage.

  Attributes:
    stem: `stem(x, train) -> x`, a map or `Tokens`.
    stages: the same, one after the other.
    top: `top(x, train) -> f32[b d]`, layers over what the last stage returns; None for the average of its map.
    layer_names: of plain networks: the names of the layers of each stage, whose maps `stage.layers(x, train)` returns,
      the stage's own last. () for networks that have no such names.
    remat: whether the backward pass computes each stage anew, so that the forward pass keeps the maps between them
      only.
  """

  stem: nn.Module
  stages: tuple[nn.Module, ...]
  top: nn.Module | None = None
  layer_names: tuple[tuple[str, ...], ...] = ()
  remat: bool = False

  def __call__(self, images: State, train: bool = False) -> Features:
    """Returns the map after each stage, in the compute dtype, and the pooled vector `f32[b d]`."""
    run = partial(remat if self.remat else called, train=train)
    x = run(self.stem, images)
    maps: list[State] = []
    layers: list[tuple[State, ...]] = []
    for stage in self.stages:
      if self.layer_names:
        layers.append(run(stage, x, method="layers"))
        x = layers[-1][-1]
      else:
        x = run(stage, x)
      maps.append(map_of(x))
    pooled = jnp.mean(map_of(x).astype(jnp.float32), axis=(1, 2)) if self.top is None else self.top(x, train)
    return Features(tuple(maps), pooled, tuple(layers), self.layer_names)


def variant(build: Callable[..., Backbone], **fields: Any) -> Callable[..., Backbone]:
  """Returns `build` with other defaults; its fields and their description are those of `build`."""
  made: Any = partial(build, **fields)
  made.__doc__, made.__annotations__ = build.__doc__, inspect.get_annotations(build, eval_str=True)
  return made
