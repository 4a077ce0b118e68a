"""Random augmentation of photographs, jitted: resized crops, flips, rotation, colour, erasing."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from hierjax.errors import UserError

_RATIOS = (3 / 4, 4 / 3)  # of the sides of a random crop (Szegedy et al. 2015)
_ERASED_AREA, _ERASED_RATIOS = (0.02, 1 / 3), (0.3, 1 / 0.3)  # of the box (Zhong et al. 2020)
_GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue


@dataclasses.dataclass(frozen=True)
class PhotoAugment:
  """The settings of the augmentation of photographs; hashable, so that it can be static under jit.

  Attributes:
    crop_area: the least and the largest part of an image's area that a random resized crop covers; the ratio of its
      sides is from 3/4 to 4/3. (): the crop is that of `Transform`.
    train_crop: the side that these crops are resized to, where it is smaller than the crop of `Transform`; 0: the same.
    jitter: how much brightness, contrast and saturation change: a factor from 1 - j to 1 + j each. (): no change.
    rotate: the largest angle of a random rotation, in degrees; what comes into the corners has the mean colour.
    flip: whether every other image is turned upside down.
    erase: the probability that a box of an image gets the mean colour.
  """

  crop_area: tuple[float, ...] = ()
  train_crop: int = 0
  jitter: tuple[float, ...] = ()
  rotate: float = 0.0
  flip: bool = False
  erase: float = 0.0

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    area = self.crop_area
    laws = {
      "crop_area": (
        not area or (len(area) == 2 and 0 < area[0] <= area[1] <= 1),
        "() or two parts of the area in rising order, above 0 and up to 1",
      ),
      "train_crop": (self.train_crop >= 0, "0 pixels or more"),
      "jitter": (
        not self.jitter or (len(self.jitter) == 3 and all(0 <= j < 1 for j in self.jitter)),
        "() or three numbers from 0 to below 1: brightness, contrast, saturation",
      ),
      "rotate": (0 <= self.rotate <= 180, "from 0 to 180 degrees"),
      "erase": (0 <= self.erase <= 1, "a probability, 0 to 1"),
    }
    for key, (holds, allowed) in laws.items():
      if not holds:
        raise UserError(f"config.data.{key} = {vars(self)[key]!r}: must be {allowed}")
    if self.rotate and not self.crop_area:
      raise UserError("config.data.rotate: needs config.data.crop_area, such as (0.5, 1.0), which says what is seen")

  @property
  def resizes(self) -> bool:
    """Whether crops are resized, in place of the crop of `Transform`."""
    return bool(self.crop_area)

  @property
  def active(self) -> bool:
    """Whether it changes any image."""
    return self != PhotoAugment()


class Box(NamedTuple):
  """A box of an image, in pixels."""

  top: Float[Array, ""]
  left: Float[Array, ""]
  height: Float[Array, ""]
  width: Float[Array, ""]


def resized_crops(
  images: UInt8[Array, "b h w c"], keys: Key[Array, "b"], settings: PhotoAugment, crop: int
) -> Float[Array, "b {crop} {crop} c"]:
  """Returns a random part of each image, resized to the crop, with pixels from 0 to 1; and rotated, if it is to be.

  Without rotation, resizing is bilinear and without aliases. With it, pixels are interpolated at the rotated places,
  and places outside the image are NaN, for the mean colour.

  Args:
    images: pixels from 0 to 255.
    keys: one an image, `[b]`.
    settings: `crop_area` and `rotate`.
    crop: the side of the result, in pixels.
  """
  height, width = images.shape[1:3]

  def one(image: UInt8[Array, "h w c"], key: PRNGKeyArray) -> Float[Array, "crop crop c"]:
    pixels = image.astype(jnp.float32) / 255
    to_box, to_angle = jax.random.split(key)
    box = _random_box(to_box, (height, width), settings.crop_area, _RATIOS)
    if settings.rotate:
      angle = jax.random.uniform(to_angle, minval=-1.0, maxval=1.0) * (settings.rotate * jnp.pi / 180)
      return _rotated(pixels, box, angle, crop)
    scale = crop / jnp.stack([box.height, box.width])
    start = jnp.stack([box.top, box.left])
    shape = (crop, crop, image.shape[-1])
    return jax.image.scale_and_translate(pixels, shape, (0, 1), scale, -start * scale, "linear")

  return jax.vmap(one)(images, keys)


def recoloured(
  pixels: Float[Array, "b h w c"], keys: Key[Array, "b"], settings: PhotoAugment
) -> Float[Array, "b h w c"]:
  """Returns pixels from 0 to 1 with another brightness, contrast and saturation, in this order."""
  if not settings.jitter:
    return pixels
  weights = jnp.array(_GREY if pixels.shape[-1] == 3 else [1 / pixels.shape[-1]] * pixels.shape[-1], jnp.float32)

  def one(image: Float[Array, "h w c"], key: PRNGKeyArray) -> Float[Array, "h w c"]:
    change = jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0) * jnp.array(settings.jitter, jnp.float32)
    image = jnp.clip(image * (1 + change[0]), 0, 1)
    mean = jnp.nanmean(image @ weights)
    image = jnp.clip(mean + (image - mean) * (1 + change[1]), 0, 1)
    grey = (image @ weights)[..., None]
    return jnp.clip(grey + (image - grey) * (1 + change[2]), 0, 1)

  return jax.vmap(one)(pixels, keys)


def flipped(pixels: Float[Array, "b h w c"], keys: Key[Array, "b"], settings: PhotoAugment) -> Float[Array, "b h w c"]:
  """Returns images of which every other one, at random, is upside down."""
  if not settings.flip:
    return pixels
  turned = jax.vmap(jax.random.bernoulli)(keys)[:, None, None, None]
  return jnp.where(turned, pixels[:, ::-1], pixels)


def erased(inputs: Float[Array, "b h w c"], keys: Key[Array, "b"], settings: PhotoAugment) -> Float[Array, "b h w c"]:
  """Returns normalised images of which some have a box of zeros: a rectangle of 2 to 33% of the area."""
  if not settings.erase:
    return inputs
  shape = inputs.shape[1], inputs.shape[2]

  def inside(key: PRNGKeyArray) -> Array:
    to_box, to_chance = jax.random.split(key)
    box = _random_box(to_box, shape, _ERASED_AREA, _ERASED_RATIOS)
    return in_box(box, shape) & jax.random.bernoulli(to_chance, settings.erase)

  return jnp.where(jax.vmap(inside)(keys)[..., None], 0.0, inputs)


def in_box(box: Box, shape: tuple[int, int]) -> Array:
  """Returns whether the centre of each pixel of an image of this shape is in a box, `bool[h w]`."""
  rows, columns = (jnp.arange(size, dtype=jnp.float32) + 0.5 for size in shape)
  down = (box.top <= rows) & (rows < box.top + box.height)
  return down[:, None] & ((box.left <= columns) & (columns < box.left + box.width))[None]


def _random_box(
  key: PRNGKeyArray, shape: tuple[int, int], areas: tuple[float, ...], ratios: tuple[float, float]
) -> Box:
  """Returns a box inside an image: its part of the area is uniform, and the logarithm of width / height."""
  height, width = shape
  draws = jax.random.uniform(key, (4,))
  area = (areas[0] + draws[0] * (areas[1] - areas[0])) * (height * width)
  low, high = jnp.log(jnp.array(ratios, jnp.float32))
  ratio = jnp.exp(low + draws[1] * (high - low))
  tall, wide = jnp.minimum(jnp.sqrt(area / ratio), height), jnp.minimum(jnp.sqrt(area * ratio), width)
  return Box(draws[2] * (height - tall), draws[3] * (width - wide), tall, wide)


def _rotated(
  pixels: Float[Array, "h w c"], box: Box, angle: Float[Array, ""], crop: int
) -> Float[Array, "{crop} {crop} c"]:
  """Returns the box of an image that was rotated around the box's centre; NaN outside the image."""
  places = (jnp.arange(crop, dtype=jnp.float32) + 0.5) / crop - 0.5
  down, right = places[:, None] * box.height, places[None] * box.width
  rows = box.top + box.height / 2 + jnp.cos(angle) * down - jnp.sin(angle) * right - 0.5
  columns = box.left + box.width / 2 + jnp.sin(angle) * down + jnp.cos(angle) * right - 0.5
  height, width, _ = pixels.shape
  inside = (rows > -0.5) & (rows < height - 0.5) & (columns > -0.5) & (columns < width - 0.5)
  found = jax.vmap(
    lambda channel: jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1, mode="nearest"),
    in_axes=2,
    out_axes=2,
  )(pixels)
  return jnp.where(inside[..., None], found, jnp.nan)


def keys_of(draw: Int[Array, "b 2"], key: PRNGKeyArray) -> Key[Array, "b"]:
  """Returns a key for each row of (epoch, number of the example)."""
  keys: Array = jax.vmap(lambda d: jax.random.fold_in(jax.random.fold_in(key, d[0]), d[1]))(draw)
  return keys
