"""What a neck or a head reads of the features of a frozen backbone, as one array an image, which can be kept."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.errors import UserError
from hierjax.nn.layers.conversions import WITHOUT_WEIGHTS, Conversion, Kind
from hierjax.types import Features


@dataclasses.dataclass(frozen=True)
class KeptPooled:
  """The pooled features, which most heads read alone."""

  ndim: ClassVar[int] = 1

  def array(self, features: Features) -> Float[Array, "b d"]:
    """Returns what is kept."""
    return jnp.asarray(features.pooled)

  def features(self, vector: Float[Array, "b d"]) -> Features:
    """Returns what the head reads in place of the backbone's features."""
    return Features((), vector)


@dataclasses.dataclass(frozen=True)
class KeptStages:
  """The vectors that a conversion without weights makes of each stage's map, side by side.

  A vector of p numbers is a map of one place with p channels, which the same conversion leaves as it is.

  Attributes:
    conversion: see `hierjax.nn.layers.conversions.Conversion`.
    size: p, of each vector.
    strict: see `hierjax.nn.layers.conversions.Target`.
  """

  conversion: Kind
  size: int
  strict: bool = False

  ndim: ClassVar[int] = 1

  def array(self, features: Features) -> Float[Array, "b d"]:
    """Returns what is kept; raises UserError where the conversion has weights, which training changes."""
    if self.conversion not in WITHOUT_WEIGHTS:
      raise UserError(
        f"config.head.conversion = {self.conversion!r} has weights, so what it makes of the maps changes while the "
        f"head trains; choose {' or '.join(WITHOUT_WEIGHTS)}"
      )
    convert = Conversion(self.conversion, self.size, strict=self.strict, parent=None)
    return jnp.concatenate([convert.apply({}, jnp.asarray(stage)) for stage in features.stages], axis=1)

  def features(self, vector: Float[Array, "b d"]) -> Features:
    """Returns what the head reads in place of the backbone's features."""
    return Features(tuple(jnp.split(vector[:, None, None], vector.shape[1] // self.size, axis=-1)), vector)


@dataclasses.dataclass(frozen=True)
class KeptMap:
  """The last stage's map, which a neck reads."""

  ndim: ClassVar[int] = 3

  def array(self, features: Features) -> Float[Array, "b h w c"]:
    """Returns what is kept."""
    return jnp.asarray(features.stages[-1])

  def features(self, kept: Float[Array, "b h w c"]) -> Features:
    """Returns what the neck reads in place of the backbone's features."""
    return Features((kept,), kept.mean((1, 2)))
