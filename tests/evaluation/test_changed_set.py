"""A set that changed since a run was trained on it: another part of it would be kept for validation now."""

import dataclasses
import json
import shutil

import pytest
from PIL import Image

from hierjax.data.sources.shapes import write_folders
from hierjax.errors import UserError
from hierjax.runs.folder import FORMAT
from hierjax.runs.run import Run, asked_split


@pytest.fixture
def begun(make_run, small_config, tmp_path):
  """Makes a set of split folders, and a run on it."""

  def make(*splits, levels=0):
    for split in splits:
      write_folders(tmp_path / "set" / split, 62, side=8)
    data = dict(name="folder", root=str(tmp_path / "set"), validation=0.5)
    return make_run(small_config(tree=dict(source="images", levels=levels), data=data, neck=dict(name="none")))

  return make


def add_image(folder):
  Image.new("RGB", (8, 8)).save(next(folder.rglob("*.png")).with_name("0new.png"))


@pytest.mark.parametrize("levels", [0, 1])
def test_what_is_kept_for_validation_is_of_the_set_that_was_trained_on(begun, tmp_path, levels):
  folder = begun("train", "test", levels=levels)
  shutil.copytree(tmp_path / "set", tmp_path / "copy")
  add_image(tmp_path / "set" / "test")
  assert len(Run.from_folder(folder).source("validation")) == 31
  add_image(tmp_path / "set" / "train")
  changed = Run.from_folder(folder)
  for split in ("train", "validation"):
    with pytest.raises(UserError, match=r"(?s)other images or labels .*data\.validation = 0\.5 .*--split test"):
      changed.source(split)
  assert len(changed.source("test")) == 63

  restored = Run.from_folder(folder, data_root=str(tmp_path / "copy"))
  for run in (restored, dataclasses.replace(restored, tree=restored.full_tree())):
    assert [len(run.source(split)) for split in ("train", "validation", "test")] == [31, 31, 62]


def test_the_split_that_a_run_is_judged_on_is_refused_too(begun, tmp_path):
  folder = begun("")
  assert asked_split(Run.from_folder(folder), "")[0] == "validation"
  add_image(tmp_path / "set")
  with pytest.raises(UserError, match="other images or labels"):
    asked_split(Run.from_folder(folder), "")


def test_splits_of_their_own_do_not_depend_on_each_other(begun, tmp_path):
  folder = begun("train", "val")
  add_image(tmp_path / "set" / "train")
  run = Run.from_folder(folder)
  assert [len(run.source(split)) for split in ("train", "validation")] == [63, 62]


def test_images_of_other_names_are_another_set(begun, tmp_path):
  folder = begun("")
  assert len(Run.from_folder(folder).source("validation")) == 31
  for file in sorted((tmp_path / "set").rglob("*.png")):
    file.rename(file.with_name(f"new{file.name}"))
  with pytest.raises(UserError, match="other images or labels"):
    Run.from_folder(folder).source("validation")


def test_a_checksum_that_is_damaged_is_named(begun):
  folder = begun("")
  for text in (json.dumps({"format": FORMAT}), "[1]", "{"):
    (folder.path / "data.json").write_text(text)
    with pytest.raises(UserError, match=r"data\.json is (damaged|not the checksum of training images)"):
      Run.from_folder(folder)
  (folder.path / "data.json").write_text(json.dumps({"format": FORMAT, "sha256": "other"}))
  assert Run.from_folder(folder).source("test") is None
