"""A set that changed since a run was trained on it: another part of it would be kept for validation now."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from hierjax.data.source import ArraySource, data_checksum, file_content, what_changed
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


def change_pixels(folder):
  file = min(folder.rglob("*.png"))
  Image.effect_noise((8, 8), 64).convert("RGB").save(file)


def measured(run, **values):
  about = {"split": "test", "step": 1, "views": 1, "num_examples": 62, "level_names": ["level 1"], "level_sizes": [3]}
  return about | {"data": run.images_of("test")} | values


def test_numbers_on_other_images_never_take_the_place_of_the_runs_own(begun, tmp_path, capsys):
  folder = begun("train", "test")
  run = Run.from_folder(folder)
  about = json.loads((folder.path / "data.json").read_text())
  judged_on = {"test": run.images_of("test")["checksum"]}
  (folder.path / "data.json").write_text(json.dumps(about | {"judged_on": judged_on}))
  assert folder.write_evaluation("test", measured(run)).name == "test.json" and not capsys.readouterr().out
  shutil.copytree(tmp_path / "set", tmp_path / "moved")
  moved = Run.from_folder(folder, data_root=str(tmp_path / "moved"))
  assert folder.write_evaluation("test", measured(moved, views=2)).name == "test.json"  # the same images
  assert folder.evaluation("test")["data"]["root"] == str(tmp_path / "moved")

  change_pixels(tmp_path / "moved" / "test")
  other = Run.from_folder(folder, data_root=str(tmp_path / "moved"))
  path = folder.write_evaluation("test", measured(other, views=3))
  assert path.name.startswith("test-images-") and str(path) in capsys.readouterr().out
  assert folder.evaluation("test")["views"] == 2 and folder.evaluation(path.stem)["views"] == 3
  assert folder.evaluation_name("test", "test", other.images_of("test")) == path.stem
  assert folder.evaluation_name("test", "test", run.images_of("test")) == "test"
  trained_on, now = run.images_of("train")["checksum"], other.images_of("test")["checksum"]
  lines = folder.begin(folder.config(), run.tree, trained_on, {"test": now})
  assert lines == ["warning: the test images have changed since the run began (their contents)"]


def test_a_run_whose_first_images_are_not_known_keeps_those_that_it_was_evaluated_on(begun, tmp_path):
  folder = begun("train", "test")
  run = Run.from_folder(folder)
  folder.write_evaluation("test", measured(run))
  change_pixels(tmp_path / "set" / "test")
  assert folder.write_evaluation("test", measured(Run.from_folder(folder))).name != "test.json"


def test_training_images_of_other_contents_are_refused(begun, tmp_path):
  folder = begun("train", "test")
  run = Run.from_folder(folder)
  change_pixels(tmp_path / "set" / "train")
  now = Run.from_folder(folder).images_of("train")["checksum"]
  with pytest.raises(UserError, match=r"another set of training images: it has changed since \(their contents\)"):
    folder.begin(folder.config(), run.tree, now)


@pytest.mark.parametrize("size", [100, 12_288, 50_000])
def test_bytes_of_a_file_that_tell_it_from_another(tmp_path, rng, size):
  file, data = tmp_path / "x", rng.bytes(size)
  file.write_bytes(data)
  sampled, whole, only_size = (file_content(str(file), most) for most in (12_288, 2**62, 0))
  assert whole == f"{size} ".encode() + data and only_size == f"{size} ".encode()
  for place in (0, size // 2, size - 1):
    file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert file_content(str(file), 12_288) != sampled and file_content(str(file), 2**62) != whole
  file.unlink()
  assert file_content(str(file), 10) == b"missing "


def test_one_byte_of_any_image_is_found_where_all_bytes_count():
  images = np.zeros((3000, 2, 2, 3), np.uint8)
  source = ArraySource(images, np.zeros((3000, 1), np.int32))
  sampled, whole = (data_checksum(source, every) for every in (False, True))
  images[1234] += 1  # not one of each third
  assert data_checksum(source) == sampled and data_checksum(source, True) != whole
  assert what_changed(whole, data_checksum(source, True)) == "contents" and what_changed(sampled, sampled) == ""
  images[1233] += 1
  assert data_checksum(source) != sampled
