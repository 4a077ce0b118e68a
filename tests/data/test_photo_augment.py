"""Laws of the augmentation of photographs: boxes, angles, colours, and draws that do not depend on the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.data import augment, photo_augment
from hierjax.data.augment import Transform
from hierjax.data.config import DataConfig
from hierjax.data.photo_augment import Box, PhotoAugment
from hierjax.errors import UserError
from hierjax.types import Examples

KEY = jax.random.key(3)

erased, flipped, recoloured = (
  jax.jit(function, static_argnums=2)
  for function in (photo_augment.erased, photo_augment.flipped, photo_augment.recoloured)
)
resized_crops = jax.jit(photo_augment.resized_crops, static_argnums=(2, 3))
rotated = jax.jit(photo_augment._rotated, static_argnums=3)
keys_of = jax.jit(photo_augment.keys_of)
train_batch = jax.jit(augment.train_batch, static_argnums=2)


def keys(count):
  return keys_of(jnp.stack([jnp.zeros(count, jnp.int32), jnp.arange(count, dtype=jnp.int32)], axis=1), KEY)


def test_a_resized_crop_of_a_ramp_is_a_ramp_over_a_box_of_the_area_and_ratio():
  size, crop, count = 240, 32, 40
  rows, columns = np.mgrid[:size, :size].astype(np.uint8)
  images = jnp.asarray(np.stack([rows, columns, rows], axis=-1)[None].repeat(count, 0))
  found = np.asarray(resized_crops(images, keys(count), PhotoAugment(crop_area=(0.3, 0.8)), crop)) * 255
  inner = slice(4, -4)  # beside the borders, where the filter is cut off
  tall = np.diff(found[:, inner, :, 0], axis=1).mean(axis=(1, 2)) * crop
  wide = np.diff(found[:, :, inner, 1], axis=2).mean(axis=(1, 2)) * crop
  steps = np.diff(found[:, inner, :, 0], axis=1)
  assert np.abs(steps - (tall / crop)[:, None, None]).max() < 0.05  # of 3 to 7 pixels
  area, ratio = tall * wide / size**2, wide / tall
  assert 0.29 < area.min() < 0.4 and 0.7 < area.max() < 0.81
  assert 0.74 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.35
  top = found[:, 4, :, 0].mean(axis=1) - 4.5 * tall / crop + 0.5
  assert (top > -1).all() and (top + tall < size + 1).all() and top.std() > 10


def test_a_rotation_by_a_right_angle_is_that_of_numpy_and_outside_is_nan():
  pixels = np.random.default_rng(0).random((9, 9, 3), np.float32)
  whole = Box(*(jnp.float32(x) for x in (0, 0, 9, 9)))
  found = rotated(jnp.asarray(pixels), whole, jnp.float32(np.pi / 2), 9)
  np.testing.assert_allclose(found, np.rot90(pixels, -1), atol=1e-5)
  askew = np.asarray(rotated(jnp.asarray(pixels), whole, jnp.float32(np.pi / 4), 9))
  assert np.isnan(askew[0, 0]).all() and np.isnan(askew[-1, -1]).all() and np.isfinite(askew[4, 4]).all()


def test_colours_change_by_factors_in_their_range():
  pixels = jnp.asarray(np.random.default_rng(1).uniform(0.2, 0.5, (50, 6, 6, 3)).astype(np.float32))
  np.testing.assert_array_equal(recoloured(pixels, keys(50), PhotoAugment()), pixels)
  factor = np.asarray(recoloured(pixels, keys(50), PhotoAugment(jitter=(0.4, 0.0, 0.0))) / pixels)
  np.testing.assert_allclose(factor, factor[:, :1, :1, :1] + 0 * factor, rtol=1e-5)
  assert 0.6 <= factor.min() < 0.7 and 1.3 < factor.max() <= 1.4001
  weights = np.array([0.299, 0.587, 0.114], np.float32)
  grey = np.asarray(recoloured(pixels, keys(50), PhotoAugment(jitter=(0.0, 0.0, 0.9)))) @ weights
  np.testing.assert_allclose(grey, np.asarray(pixels) @ weights, atol=1e-5)  # saturation keeps the luma
  contrast = np.asarray(recoloured(pixels, keys(50), PhotoAugment(jitter=(0.0, 0.5, 0.0)))) @ weights
  np.testing.assert_allclose(contrast.mean(axis=(1, 2)), (np.asarray(pixels) @ weights).mean(axis=(1, 2)), atol=1e-3)
  spread = contrast.std(axis=(1, 2)) / (np.asarray(pixels) @ weights).std(axis=(1, 2))
  assert spread.min() + 1e-3 >= 0.5 and spread.max() <= 1.501 and spread.std() > 0.1


def test_half_of_the_images_are_turned_and_boxes_are_erased():
  pixels = jnp.asarray(np.random.default_rng(2).random((200, 16, 16, 3), np.float32)) + 1
  turned = (np.asarray(flipped(pixels, keys(200), PhotoAugment(flip=True))) == pixels[:, ::-1]).all(axis=(1, 2, 3))
  assert 70 < turned.sum() < 130
  np.testing.assert_array_equal(flipped(pixels, keys(200), PhotoAugment()), pixels)
  holes = (np.asarray(erased(pixels, keys(200), PhotoAugment(erase=0.5))) == 0).all(axis=-1)
  some = holes.any(axis=(1, 2))
  assert 70 < some.sum() < 130
  part = holes.mean(axis=(1, 2))[some]
  assert part.max() < 0.42 and part.mean() > 0.08
  for hole in holes[some][:20]:  # a full rectangle
    assert hole.sum() == hole.any(axis=0).sum() * hole.any(axis=1).sum()


@pytest.mark.parametrize(
  "photo",
  [
    PhotoAugment(crop_area=(0.4, 1.0), jitter=(0.2, 0.2, 0.2), erase=0.5),
    PhotoAugment(crop_area=(0.4, 1.0), rotate=90.0, flip=True),
    PhotoAugment(jitter=(0.2, 0.2, 0.2), flip=True),
  ],
)
def test_an_image_is_augmented_by_its_own_draw_and_not_by_its_batch(photo):
  images = np.random.default_rng(4).integers(0, 256, (6, 12, 12, 3), np.uint8)
  draw = np.stack([np.full(6, 2), np.arange(6)], axis=1).astype(np.int32)
  transform = Transform(8, 0 if photo.resizes else 2, True, photo=photo)

  def batch(rows):
    paths, mask = np.zeros((len(rows), 1, 1), np.int32), np.ones(len(rows), np.float32)
    return np.asarray(train_batch(Examples(images[rows], paths, mask, draw[rows]), KEY, transform).inputs)

  whole = batch(np.arange(6))
  assert np.isfinite(whole).all() and whole.shape == (6, 8, 8, 3)
  np.testing.assert_allclose(batch(np.array([4, 1])), whole[[4, 1]], atol=1e-5)
  again = dict(images=images[[1, 1]], paths=np.zeros((2, 1, 1), np.int32), mask=np.ones(2, np.float32))
  two = np.asarray(train_batch(Examples(**again, draw=np.array([[2, 1], [3, 1]], np.int32)), KEY, transform).inputs)
  assert not np.allclose(two[0], two[1])


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("crop_area", (0.5,)),
    ("crop_area", (0.9, 0.5)),
    ("jitter", (0.5, 0.5)),
    ("jitter", (1.0, 0.0, 0.0)),
    ("rotate", 30.0),
    ("erase", 1.5),
    ("mixup", -1.0),
    ("label_smoothing", 1.0),
  ],
)
def test_values_out_of_range_name_their_key(field, value):
  with pytest.raises(UserError, match=rf"config\.data\.{field}"):
    DataConfig(**{field: value})


def test_resized_crops_take_no_padding():
  with pytest.raises(UserError, match=r"config\.data\.pad = 0"):
    DataConfig(crop_area=(0.5, 1.0), pad=4)


def test_training_reads_smaller_squares_than_evaluation_where_they_are_asked_for(rng):
  data = DataConfig(resize=20, crop=16, pad=0, crop_area=(0.5, 1.0), train_crop=12)
  images = rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
  examples = Examples(images, np.zeros((3, 1, 1), np.int32), np.ones(3, np.float32), np.zeros((3, 2), np.int32))
  sides = [jax.eval_shape(lambda t=t: augment.train_batch(examples, jax.random.key(0), t)).inputs.shape[1] for t in (
    data.transform,
    dataclasses.replace(data, train_crop=0).transform,
    dataclasses.replace(data, train_crop=18).transform,
    dataclasses.replace(data, crop_area=()).transform,
  )]  # fmt: skip
  assert sides == [12, 16, 16, 16]
  assert jax.eval_shape(lambda: augment.eval_batch(examples, data.transform)).inputs.shape[1] == 16
