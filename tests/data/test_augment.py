"""Augmentation against all that numpy could have drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.data import augment as augmentation
from hierjax.data.augment import Transform, augment, check_views
from hierjax.errors import UserError
from hierjax.types import Examples

train_batch = jax.jit(augmentation.train_batch, static_argnums=2)
eval_batch, view = (jax.jit(function, static_argnums=1) for function in (augmentation.eval_batch, augmentation.view))

MEAN, STD = (0.5, 0.25, 0.4), (0.25, 0.5, 0.2)
PAD, CROP = 2, 6
B, H, W = 64, 7, 6


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).integers(0, 256, (B, H, W, 3), dtype=np.uint8)


def normalised(images):
  return ((images / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)


def draws(epoch, numbers):
  return np.stack([np.full(len(numbers), epoch), numbers], axis=1).astype(np.int32)


@functools.partial(jax.jit, static_argnames=("crop", "pad", "mirror"))
def augmented(images, draw, key, crop=CROP, pad=PAD, mirror=True):
  return augment(images, draw, key, Transform(crop, pad, mirror, MEAN, STD))


def choices(image):
  """Every crop of the zero-padded image, and its mirror image, by (top, left, mirrored)."""
  padded = np.pad(normalised(image), ((PAD, PAD), (PAD, PAD), (0, 0)))
  return {
    (top, left, step): padded[top : top + CROP, left : left + CROP][:, ::step]
    for top in range(H + 2 * PAD - CROP + 1)
    for left in range(W + 2 * PAD - CROP + 1)
    for step in (1, -1)
  }


def chosen(image, found):
  near = [name for name, crop in choices(image).items() if np.allclose(crop, found, atol=1e-5)]
  assert near, "no pad, crop and mirror gives this"
  return near[0]


def test_each_result_is_a_crop_that_numpy_makes_and_all_are_drawn(images, key):
  image = images[0]
  found = [augmented(jnp.tile(image, (B, 1, 1, 1)), draws(epoch, np.arange(B)), key) for epoch in range(10)]
  counts = dict.fromkeys(choices(image), 0)
  for result in np.concatenate(found):
    counts[chosen(image, result)] += 1
  expected = 10 * B / len(counts)
  assert len(counts) == 6 * 5 * 2 and min(counts.values()) > 0 and max(counts.values()) < 4 * expected
  assert abs(sum(n for (_, _, step), n in counts.items() if step < 0) - 5 * B) < 80


def test_it_depends_on_key_epoch_and_example_alone(images, key):
  numbers = np.arange(100, 100 + B)
  whole = augmented(images, draws(3, numbers), key)
  order = np.random.default_rng(1).permutation(B)
  np.testing.assert_array_equal(augmented(images[order], draws(3, numbers[order]), key), whole[order])
  np.testing.assert_allclose(augmented(images[5:8], draws(3, numbers[5:8]), key), whole[5:8], atol=1e-6)
  assert not np.allclose(augmented(images, draws(4, numbers), key), whole)
  assert not np.allclose(augmented(images, draws(3, numbers), jax.random.key(1)), whole)


def test_without_pad_and_mirror_the_whole_image_is_itself(images, key):
  found = augmented(images, draws(0, np.arange(B)), key, crop=W, pad=0, mirror=False)
  for image, result in zip(images, found, strict=True):
    expected = normalised(image)
    assert any(np.allclose(expected[top : top + W], result, atol=1e-5) for top in (0, 1))


@pytest.mark.parametrize("crop", [6, 3])
def test_evaluation_sees_the_centre(images, crop):
  top, left = (H - crop) // 2, (W - crop) // 2
  expected = normalised(images)[:, top : top + crop, left : left + crop]
  np.testing.assert_allclose(view(jnp.asarray(images), Transform(crop, mean=MEAN, std=STD)), expected, atol=1e-6)


def test_the_ten_views_are_centre_and_corners_and_their_mirror_images(images):
  crop = 3
  down, right = H - crop, W - crop
  starts = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)]
  look = jax.jit(lambda number: view(jnp.asarray(images), Transform(crop, mean=MEAN, std=STD), number))
  for number in range(10):
    top, left = starts[number % 5]
    expected = normalised(images)[:, top : top + crop, left : left + crop]
    expected = expected[:, :, ::-1] if number >= 5 else expected
    np.testing.assert_allclose(look(number), expected, atol=1e-6)


@pytest.mark.parametrize(
  ("shape", "crop", "message"),
  [((8, 6, 3), 6, "four corners of 6 pixels need larger images than 8 x 6"), ((128,), 4, "features have 1 view")],
)
def test_views_that_there_are_not_are_refused(shape, crop, message):
  check_views(1, shape, crop)
  check_views(10, (8, 8, 3), 6)
  with pytest.raises(UserError, match=message):
    check_views(10, shape, crop)


def test_batches_are_made_and_features_pass_unchanged(images, key):
  transform = Transform(CROP, PAD, True, MEAN, STD)
  paths, mask = np.zeros((B, 1, 2), np.int32), np.ones(B, np.float32)
  examples = Examples(images=images, paths=paths, mask=mask, draw=draws(1, np.arange(B)))
  evaluate = jax.jit(eval_batch, static_argnums=1)
  train = jax.jit(train_batch, static_argnums=2)(examples, key, transform)
  np.testing.assert_array_equal(train.inputs, augmented(images, examples.draw, key))
  np.testing.assert_allclose(evaluate(examples, transform).inputs, normalised(images)[:, 0:6], atol=1e-6)
  np.testing.assert_array_equal(train.paths, paths)
  features = examples.replace(images=np.random.default_rng(0).normal(size=(B, 9)).astype(np.float32))
  for batch in (train_batch(features, key, transform), eval_batch(features, transform)):
    np.testing.assert_array_equal(batch.inputs, features.images)


def test_what_does_not_fit_is_refused(images, key):
  with pytest.raises(ValueError, match="crop = 12"):
    augmented(images, draws(0, np.arange(B)), key, crop=12)
  with pytest.raises(ValueError, match="2 means and 2 standard deviations for 3 channels"):
    view(jnp.asarray(images), Transform(4, mean=(0.5, 0.5), std=(0.2, 0.2)))


def test_a_side_is_sampled_and_the_middle_of_the_range_is_evaluated():  # Koo et al., section 4.1
  ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None, None] * 2, (40, 64, 64, 3))
  draw = np.stack([np.zeros(40, np.int32), np.arange(40, dtype=np.int32)], axis=1)
  transform = Transform(16, mirror=True, mean=(0.0,) * 3, std=(1.0,) * 3, sides=(32, 64))
  examples = Examples(ramp, np.zeros((40, 1, 2), np.int32), np.ones(40, np.float32), draw)
  train = jax.jit(train_batch, static_argnums=2)
  batch = np.asarray(train(examples, jax.random.key(0), transform).inputs)
  assert batch.shape == (40, 16, 16, 3)
  slopes = 255 * (batch[:, 12] - batch[:, 3])[:, 0, 0] / 9 / 2  # stored rows that a row of the crop spans: 64 / side
  sides = 64 / slopes
  assert 31 < sides.min() < 40 and 56 < sides.max() < 65
  assert len(np.unique(batch[:, 0, 0, 0])) > 20  # and the crop is anywhere
  again = np.asarray(train(examples, jax.random.key(0), transform).inputs)
  np.testing.assert_array_equal(batch, again)

  found = np.asarray(jax.jit(eval_batch, static_argnums=1)(examples, transform).inputs)  # resized to 48, rows 16 to 32
  expected = (np.arange(16) + 16 + 0.5) * 64 / 48 - 0.5
  np.testing.assert_allclose(255 * found[0, :, 0, 0] / 2, expected, atol=0.05)


def test_side_and_place_are_drawn_apart(key):
  """A gradient over an image of 32 rows, resized to 16 to 32: each row of a crop is 32 / side of its own further."""
  ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 4, (400, 32, 32, 3))
  transform = Transform(16, mean=(0.0,) * 3, std=(1.0,) * 3, sides=(16, 32))
  crops = np.asarray(jax.jit(augment, static_argnums=3)(ramp, draws(0, np.arange(400)), key, transform))
  rows = crops[:, :, 8, 0] * 255 / 4
  side = 32 / ((rows[:, 12] - rows[:, 3]) / 9)
  start = (rows[:, 3] * side / 32 - 3) / np.maximum(side - 16, 1)  # the crop's first row, as a part of the way
  roomy = side > 20
  assert abs(np.corrcoef(side[roomy], start[roomy])[0, 1]) < 0.15


def test_crops_see_all_of_an_image_that_is_stored_stretched():
  """An image of 40 x 80, stored as 64 x 64 and resized to 32 x 64: crops of 16 reach both of its ends."""
  columns = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None] * 2, (60, 64, 64, 3))
  draw = np.stack([np.zeros(60, np.int32), np.arange(60, dtype=np.int32)], axis=1)
  extents = np.tile(np.array([40, 80], np.int32), (60, 1))
  transform = Transform(16, mean=(0.0,) * 3, std=(1.0,) * 3, sides=(32, 32))
  examples = Examples(columns, np.zeros((60, 1, 2), np.int32), np.ones(60, np.float32), draw, extents)
  batch = 255 * np.asarray(jax.jit(train_batch, static_argnums=2)(examples, jax.random.key(0), transform).inputs) / 2
  slopes = (batch[:, 0, 12] - batch[:, 0, 3])[:, 0] / 9
  np.testing.assert_allclose(slopes, 1.0, atol=0.05)  # 64 columns are 64 again; rows are half as many
  lefts = batch[:, 0, 1, 0] - 1
  assert lefts.min() < 4 and lefts.max() > 43
  middle = 255 * np.asarray(jax.jit(eval_batch, static_argnums=1)(examples, transform).inputs) / 2
  np.testing.assert_allclose(middle[0, 0, :, 0], np.arange(24, 40), atol=0.05)

  rows = examples.replace(images=columns.swapaxes(1, 2))
  batch = 255 * np.asarray(jax.jit(train_batch, static_argnums=2)(rows, jax.random.key(0), transform).inputs) / 2
  np.testing.assert_allclose((batch[:, 12] - batch[:, 3])[:, 0, 0] / 9, 2.0, atol=0.1)


def test_extents_that_are_those_of_the_stored_images_change_nothing(images, key):
  transform = Transform(4, mean=(0.0,) * 3, std=(1.0,) * 3, sides=(4, 6))
  extents = jnp.tile(jnp.array([[H, W]], jnp.int32), (B, 1))
  draw = draws(0, np.arange(B))
  one, other = (augment(jnp.asarray(images), jnp.asarray(draw), key, transform, e) for e in (None, extents))
  np.testing.assert_allclose(one, other, atol=1e-5)


def test_ten_fixed_crops_are_the_ten_views(images, key):  # READINGS Z16
  transform = Transform(4, ten_crops=True)
  views = np.stack([view(jnp.asarray(images), transform, number) for number in range(10)])
  seen = set()
  for epoch in range(8):
    found = np.asarray(augment(jnp.asarray(images), jnp.asarray(draws(epoch, np.arange(B))), key, transform))
    for row in range(B):
      (numbers,) = np.nonzero((np.abs(views[:, row] - found[row]) < 1e-6).all((1, 2, 3)))
      assert len(numbers) == 1
      seen.add(int(numbers[0]))
  assert seen == set(range(10))
