"""Preprocessing of batches of images, jitted: normalisation, crops, and the random augmentation of training.

On two CPU cores, 256 CIFAR images a batch, in thousands of images a second: gathering rows and then columns as bytes
(this code) 970, one gather of pixels 630, a dynamic slice an image 350, products with one-hot matrices 170.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from hierjax.data.mixing import Mixing, mixed_batch, smoothed_paths
from hierjax.data.photo_augment import PhotoAugment, erased, flipped, keys_of, recoloured, resized_crops
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Batch, Examples, Features

_OF_LABELS, _OF_MIXING = 1, 2  # numbers that make keys of the run's


@dataclasses.dataclass(frozen=True)
class Transform:
  """The settings of preprocessing; hashable, so that it can be static under jit.

  Attributes:
    crop: the side of the square that the model reads, in pixels.
    pad: zeros put around an image before the random crop of training.
    mirror: whether training mirrors every other image.
    mean: of each channel, of pixels from 0 to 1.
    std: of each channel, of pixels from 0 to 1.
    photo: random augmentation of photographs.
    mixing: augmentation that changes labels.
    sides: the smallest and the largest size of an image's shorter side before the crop: at random in training, the
      middle in evaluation. (): images keep their size.
    ten_crops: whether training takes one of the ten crops of `view` at random.
  """

  crop: int
  pad: int = 0
  mirror: bool = False
  mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  std: tuple[float, ...] = (0.25, 0.25, 0.25)
  sides: tuple[int, ...] = ()
  ten_crops: bool = False
  photo: PhotoAugment = dataclasses.field(default_factory=PhotoAugment)
  mixing: Mixing = dataclasses.field(default_factory=Mixing)

  def check(self) -> None:
    """Raises UserError for settings that contradict each other."""
    if self.photo.resizes and (self.pad or self.sides):
      raise UserError(
        "config.data.crop_area: it resizes random crops itself; set config.data.pad = 0 and config.data.sides = ()"
      )

  @property
  def train_side(self) -> int:
    """The side of the squares that training reads."""
    return min(self.photo.train_crop or self.crop, self.crop) if self.photo.resizes else self.crop

  @property
  def in_evaluation(self) -> Transform:
    """The transform without what training alone does."""
    return Transform(self.crop, mean=self.mean, std=self.std, sides=self.sides)


def train_batch(examples: Examples, key: PRNGKeyArray, transform: Transform, tree: TreeArrays | None = None) -> Batch:
  """Returns a batch for training.

  Args:
    examples: as they come from disk.
    key: the run's, the same at every step.
    transform: the settings.
    tree: the label tree, for label smoothing.
  """
  inputs: Any = jnp.asarray(examples.images)
  draw = jnp.asarray(examples.draw)
  if inputs.ndim == 4:
    inputs = augment(inputs, draw, key, transform, examples.extents)
  elif inputs.ndim > 2:  # of a frozen backbone
    inputs = Features((), _drawn_view(inputs, draw, key))
  paths, mixing = jnp.asarray(examples.paths), transform.mixing
  if mixing.label_smoothing and tree is not None:
    keys = keys_of(draw, jax.random.fold_in(key, _OF_LABELS))
    paths = smoothed_paths(paths, keys, tree, mixing.label_smoothing)
  batch = Batch(inputs, paths, jnp.asarray(examples.mask))
  return mixed_batch(batch, draw, jax.random.fold_in(key, _OF_MIXING), mixing) if examples.images.ndim == 4 else batch


def eval_batch(examples: Examples, transform: Transform, number: int | Int[Array, ""] = 0) -> Batch:
  """Returns a batch for evaluation, with the view `number` of each image, see `view`; nothing is random."""
  inputs: Any = jnp.asarray(examples.images)
  if inputs.ndim == 4:
    inputs = midway(inputs, transform, examples.extents) if transform.sides else view(inputs, transform, number)
  elif inputs.ndim > 2:
    inputs = Features((), inputs[:, 0])
  return Batch(inputs, examples.paths, examples.mask)


def _drawn_view(views: Float[Array, "b v *d"], draw: Int[Array, "b 2"], key: PRNGKeyArray) -> Float[Array, "b *d"]:
  """Returns the features of a view of each image, each as probable as the others; see `augment`."""
  bits = jax.vmap(lambda d: jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, d[0]), d[1])))(draw)
  number = (bits % jnp.uint32(views.shape[1])).astype(jnp.int32)
  return jnp.take_along_axis(views, jnp.expand_dims(number, tuple(range(1, views.ndim))), axis=1)[:, 0]


def augment(
  images: UInt8[Array, "b h w c"],
  draw: Int[Array, "b 2"],
  key: PRNGKeyArray,
  transform: Transform,
  extents: Int[Array, "b 2"] | None = None,
) -> Float[Array, "b {transform.train_side} {transform.train_side} c"]:
  """Returns normalised images, padded with zeros, cropped at random and mirrored at random.

  With `transform.sides` the image is first resized: its shorter side to a random integer of that range, each equally
  probable (Koo et al., section 4.1). Such images are not padded. With `transform.ten_crops`, an image is one of the ten
  of `view` (Zuo et al. IV-A).

  The random numbers of an image depend on `key` and its row of `draw` alone, not on the batch that it is in.

  Args:
    images: pixels from 0 to 255.
    draw: (epoch, number of the example).
    key: the run's.
    transform: the settings; an image is mirrored with probability 1/2.
    extents: height and width of images that were stretched to these squares, which `transform.sides` undoes.

  Raises:
    ValueError: the crop is larger than the padded image.
  """
  if transform.photo.active:
    return _of_photographs(images, draw, key, transform, extents)
  if transform.sides:
    return _resized_crops(images, draw, key, transform, extents)
  if transform.ten_crops:
    return _ten_crops(images, draw, key, transform)
  (height, width), crop, pad = images.shape[1:3], transform.crop, transform.pad
  _check_crop(crop, height + 2 * pad, width + 2 * pad)
  bits = jax.vmap(lambda d: jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, d[0]), d[1]), (3,)))(draw)
  top = (bits[:, 0] % jnp.uint32(height + 2 * pad - crop + 1)).astype(jnp.int32)
  left = (bits[:, 1] % jnp.uint32(width + 2 * pad - crop + 1)).astype(jnp.int32)
  steps = jnp.arange(crop, dtype=jnp.int32)[None]
  mirrored = (bits[:, 2:] & jnp.uint32(1)).astype(bool) & transform.mirror
  rows = top[:, None] + steps - pad
  columns = left[:, None] + jnp.where(mirrored, crop - 1 - steps, steps) - pad
  cropped = jnp.take_along_axis(images, jnp.clip(rows, 0, height - 1)[:, :, None, None], axis=1, mode="clip")
  cropped = jnp.take_along_axis(cropped, jnp.clip(columns, 0, width - 1)[:, None, :, None], axis=2, mode="clip")
  inside = _inside(rows, height)[:, :, None, None] & _inside(columns, width)[:, None, :, None]
  return jnp.where(inside, _normalise(cropped, transform), 0.0)


def _ten_crops(
  images: UInt8[Array, "b h w c"], draw: Int[Array, "b 2"], key: PRNGKeyArray, transform: Transform
) -> Float[Array, "b {transform.crop} {transform.crop} c"]:
  """Returns one of the ten views of each image, each as probable as the others."""
  bits = jax.vmap(lambda d: jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, d[0]), d[1])))(draw)
  numbers = (bits % jnp.uint32(10)).astype(jnp.int32)
  return jax.vmap(lambda image, number: view(image[None], transform, number)[0])(images, numbers)


def _of_photographs(
  images: UInt8[Array, "b h w c"],
  draw: Int[Array, "b 2"],
  key: PRNGKeyArray,
  transform: Transform,
  extents: Int[Array, "b 2"] | None,
) -> Float[Array, "b {transform.train_side} {transform.train_side} c"]:
  """Returns normalised images with the augmentation of `PhotoAugment`; see `augment`."""
  photo = transform.photo
  keys = jax.vmap(lambda k: jax.random.split(k, 5))(keys_of(draw, key))
  mean, std = (jnp.array(x, jnp.float32)[None, None, None] for x in (transform.mean, transform.std))
  if photo.resizes:
    pixels = resized_crops(images, keys[:, 0], photo, transform.train_side)
    mirrored = jax.vmap(jax.random.bernoulli)(keys[:, 1])[:, None, None, None] & transform.mirror
    pixels = jnp.where(mirrored, pixels[:, :, ::-1], pixels)
  else:
    plain = dataclasses.replace(transform, photo=PhotoAugment())
    pixels = augment(images, draw, key, plain, extents) * std + mean
  pixels = recoloured(flipped(pixels, keys[:, 2], photo), keys[:, 3], photo)
  inputs = jnp.where(jnp.isnan(pixels), 0.0, (pixels - mean) / std)
  return erased(inputs, keys[:, 4], photo)


def view(
  images: UInt8[Array, "b h w c"], transform: Transform, number: int | Int[Array, ""] = 0
) -> Float[Array, "b {transform.crop} {transform.crop} c"]:
  """Returns normalised crops: the centre, or another of the ten views of test-time augmentation (Zuo et al. IV-A).

  Args:
    images: pixels from 0 to 255.
    transform: the side of the crop, and the means and standard deviations of the channels.
    number: 0 for the centre, 1 to 4 for the corners nw, ne, sw, se; 5 to 9 for their mirror images in the same order.

  Raises:
    ValueError: the crop is larger than the image.
  """
  (height, width), crop = images.shape[1:3], transform.crop
  _check_crop(crop, height, width)
  bottom, right = height - crop, width - crop
  tops = jnp.array([bottom // 2, 0, 0, bottom, bottom], jnp.int32)
  lefts = jnp.array([right // 2, 0, right, 0, right], jnp.int32)
  start = (0, tops[number % 5], lefts[number % 5], 0)
  cropped = jax.lax.dynamic_slice(images, start, (images.shape[0], crop, crop, images.shape[3]))
  return _normalise(jnp.where(number >= 5, cropped[:, :, ::-1], cropped), transform)


def midway(
  images: UInt8[Array, "b h w c"], transform: Transform, extents: Int[Array, "b 2"] | None = None
) -> Float[Array, "b {transform.crop} {transform.crop} c"]:
  """Returns normalised centre crops of images whose shorter side is resized to the middle of `transform.sides`.

  `extents` are height and width of images that were stretched to these squares.
  """
  stored = jnp.array(images.shape[1:3], jnp.float32)

  def one(image: Float[Array, "h w c"], extent: Float[Array, "2"]) -> Float[Array, "crop crop c"]:
    resized = extent * (jnp.float32(sum(transform.sides) / 2) / extent.min())
    return _resized(image, resized / stored, (jnp.float32(transform.crop) - resized) / 2, transform.crop)

  return jax.vmap(one)(_normalise(images, transform), _seen_extents(images, extents))


def _seen_extents(images: UInt8[Array, "b h w c"], extents: Int[Array, "b 2"] | None) -> Float[Array, "b 2"]:
  """Returns the height and width of each image; those that it is stored with where it was not stretched."""
  if extents is None:
    return jnp.broadcast_to(jnp.array(images.shape[1:3], jnp.float32)[None], (len(images), 2))
  return jnp.asarray(extents).astype(jnp.float32)


def _resized_crops(
  images: UInt8[Array, "b h w c"],
  draw: Int[Array, "b 2"],
  key: PRNGKeyArray,
  transform: Transform,
  extents: Int[Array, "b 2"] | None,
) -> Float[Array, "b {transform.crop} {transform.crop} c"]:
  stored, crop, (least, most) = jnp.array(images.shape[1:3], jnp.float32), transform.crop, transform.sides

  def one(
    image: Float[Array, "h w c"], draw: Int[Array, "2"], extent: Float[Array, "2"]
  ) -> Float[Array, "crop crop c"]:
    at = jax.random.fold_in(jax.random.fold_in(key, draw[0]), draw[1])
    numbers = jax.random.uniform(at, (4,))
    side = jnp.floor(least + numbers[0] * (most - least + 1))
    resized = extent * (side / extent.min())
    offsets = -jnp.floor(numbers[1:3] * (resized - crop + 1))
    found = _resized(image, resized / stored, offsets, crop)
    return jnp.where((numbers[3] < 0.5) & transform.mirror, found[:, ::-1], found)

  return jax.vmap(one)(_normalise(images, transform), draw, _seen_extents(images, extents))


def _resized(image: Float[Array, "h w c"], scales: Array, offsets: Array, crop: int) -> Float[Array, "crop crop c"]:
  """Returns pixels 0 to `crop` of each axis of an image that was scaled, bilinearly and without aliases, and moved."""
  shape = (crop, crop, image.shape[-1])
  return jax.image.scale_and_translate(image, shape, (0, 1), scales, offsets, "linear")


def check_views(views: int, shape: tuple[int, ...], crop: int) -> None:
  """Raises UserError unless images of `shape`, (h, w, c), or vectors of features, (d,), have that many views."""
  if views == 1:
    return
  if len(shape) != 3:
    raise UserError(f"config.decode.views = {views}: precomputed features have 1 view, so set 1")
  if crop >= min(shape[:2]):
    raise UserError(
      f"config.decode.views = {views}: four corners of {crop} pixels need larger images than {shape[0]} x {shape[1]}; "
      "make config.data.crop smaller than config.data.resize, or take 1 view"
    )


def _check_crop(crop: int, height: int, width: int) -> None:
  if crop > min(height, width):
    raise ValueError(f"crop = {crop} is larger than the (padded) image of {height} x {width} pixels")


def _inside(positions: Int[Array, "b m"], size: int) -> Bool[Array, "b m"]:
  return (positions >= 0) & (positions < size)


def _normalise(images: UInt8[Array, "b h w c"], transform: Transform) -> Float[Array, "b h w c"]:
  mean, std = transform.mean, transform.std
  if not len(mean) == len(std) == images.shape[-1]:
    raise ValueError(f"{len(mean)} means and {len(std)} standard deviations for {images.shape[-1]} channels")
  pixels = images.astype(jnp.float32) / 255.0
  return (pixels - jnp.asarray(mean, jnp.float32)[None, None, None]) / jnp.asarray(std, jnp.float32)[None, None, None]
