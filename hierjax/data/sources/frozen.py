"""Features of a frozen backbone in place of the images of a source."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int, Integer

from hierjax.data.images.read_image import BadImageError
from hierjax.data.source import Source


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
  """The features of the images of another source, a `Source`.

  Attributes:
    source: the images.
    features: `f32[n v *d]`, a vector or a map each: the first view of an image is that of evaluation, the others are
      augmented. The rows of an image that could not be read are NaN.
  """

  source: Source
  features: Float32[np.ndarray, "n v *d"]

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the features of one image, (v, *d)."""
    return self.features.shape[1:]

  @property
  def nodes(self) -> Int[np.ndarray, "n p"]:
    """As in the source of the images."""
    return self.source.nodes

  def __len__(self) -> int:
    return len(self.source)

  def read(self, indices: Integer[np.ndarray, "m"]) -> Float32[np.ndarray, "m v *d"]:
    """Returns features; raises BadImageError for an image that could not be read."""
    rows = np.asarray(self.features[indices])
    good = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if not good.all():
      raise BadImageError(f"{self.name_of(int(indices[np.argmin(good)]))} cannot be read")
    return rows

  def name_of(self, index: int) -> str:
    """Returns the name of an image in messages."""
    return self.source.name_of(index)

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns ones: features have neither height nor width."""
    return np.ones((len(indices), 2), np.int32)

  def content(self, index: int, most: int) -> bytes:
    """Returns the bytes of an image as it is stored; see `Source`."""
    return self.source.content(index, most)
