"""The split `calibration`: a part of the training images that neither trains nor chooses anything."""

import dataclasses

import numpy as np
import pytest

from hierjax.data.config import DataConfig
from hierjax.data.open_source import check_trained_on, open_source
from hierjax.data.source import data_checksum
from hierjax.data.sources import shapes
from hierjax.data.splits import parts_of_training
from hierjax.errors import UserError

TREE = shapes.tree()
CONFIG = DataConfig(examples=600, calibration=0.25)


def images_of(config, split):
  """Returns the images of a split as bytes."""
  source = open_source(config, TREE, split)
  return [image.tobytes() for image in source.read(np.arange(len(source)))]


def test_it_shares_no_image_with_another_split_and_all_training_images_are_somewhere():
  parts = {split: images_of(CONFIG, split) for split in ("train", "validation", "calibration", "test")}
  everything = [image for images in parts.values() for image in images]
  assert len(set(everything)) == len(everything)
  whole = images_of(dataclasses.replace(CONFIG, calibration=0.0), "train")
  assert sorted(parts["train"] + parts["calibration"]) == sorted(whole) and len(parts["calibration"]) == 150
  assert parts["validation"] == images_of(dataclasses.replace(CONFIG, calibration=0.0), "validation")


def test_without_the_fraction_there_is_none():
  assert open_source(DataConfig(examples=60), TREE, "calibration") is None


def test_it_is_stable_and_leaves_validation_as_it_is(rng):
  ends = rng.integers(0, 7, 500)
  parts = parts_of_training(ends, 0.1, 0.2, seed=3)
  assert (parts == parts_of_training(ends, 0.1, 0.2, seed=3)).all()
  assert (parts != parts_of_training(ends, 0.1, 0.2, seed=4)).any()
  assert ((parts == 1) == (parts_of_training(ends, 0.1, 0.0, seed=3) == 1)).all()
  counts = np.array([[np.sum(parts[ends == end] == part) for part in range(3)] for end in range(7)])
  expected = np.bincount(ends)[:, None] * [0.9 * 0.8, 0.1, 0.9 * 0.2]
  assert np.abs(counts - expected).max() <= 2  # every class has its share
  assert abs((parts == 2).sum() - 90) <= 1


def test_every_class_keeps_an_image_to_train_on():
  parts = parts_of_training(np.arange(40) // 2, 0.4, 0.9, seed=0)
  assert (np.bincount(np.arange(40) // 2, weights=parts == 0) >= 1).all() and (parts == 2).any()


@pytest.mark.parametrize("partial", [dict(fine=0.5), dict(fine=0.5, coarse=0.5, coarse_level=2), dict(split_seed=0)])
def test_partial_labels_do_not_change_it(partial):
  assert images_of(dataclasses.replace(CONFIG, **partial), "calibration") == images_of(CONFIG, "calibration")


def test_a_changed_set_is_refused_where_calibration_is_the_only_part():
  config = dataclasses.replace(CONFIG, name="noise", validation=0.0)
  train = open_source(config, TREE, "train")
  check_trained_on(config, TREE, data_checksum(train))
  with pytest.raises(UserError, match=r"config\.data\.calibration = 0\.25 keeps another part of it for calibration"):
    check_trained_on(dataclasses.replace(config, examples=606), TREE, data_checksum(train))


def test_a_fraction_that_keeps_nothing_or_is_out_of_range_is_refused():
  with pytest.raises(UserError, match=r"config\.data\.calibration = 1\.0: must be a fraction from 0 to below 1"):
    DataConfig(calibration=1.0)
  with pytest.raises(UserError, match=r"config\.data\.calibration = 1e-09: that keeps no image of 600"):
    open_source(dataclasses.replace(CONFIG, calibration=1e-9), TREE, "calibration")
