"""Sources of the user's own images and arrays: labels, splits, bad images, and what is kept of what was decoded."""

import contextlib
import dataclasses
import functools
import os
import time

import numpy as np
import pytest
from absl import logging
from PIL import Image

from hierjax.data.config import DataConfig
from hierjax.data.images import cache, decode
from hierjax.data.images.cache import cache_folder
from hierjax.data.images.read_image import BadImageError, read_image, unstretched
from hierjax.data.loader import LabelledImages, ProcessRows, eval_batches
from hierjax.data.open_source import Opened, open_source
from hierjax.data.partial_labels import nodes_in_top_levels
from hierjax.data.source import ArraySource
from hierjax.data.sources.folders import tree_of
from hierjax.data.splits import kept_for_validation
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError
from hierjax.tree.builders import from_paths
from hierjax.tree.checks.lint import lint
from hierjax.tree.label_tree import PAD
from hierjax.tree.readers import folders

TREE = from_paths([("animal", "dog", "basenji"), ("animal", "dog", "leonberg"), ("animal", "cat"), ("thing", "cup")])
CUP, DOG, BASENJI = (TREE.find(path) for path in (("thing", "cup"), ("animal", "dog"), ("animal", "dog", "basenji")))


def write(path, shade, suffix=".png"):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((6, 9, 3), shade, np.uint8)).save(path.with_suffix(suffix))


def folder_config(root, **changes):
  values = {"name": "folder", "root": str(root), "resize": 4, "crop": 4, "validation": 0.0, "threads": 2}
  return DataConfig(**values | changes)


@pytest.fixture
def photos(tmp_path):
  """Ten images a leaf, and two of just some dog."""
  root = tmp_path / "photos"
  for leaf in TREE.leaves.tolist():
    for i in range(10):
      write(root.joinpath(*TREE.path_names(leaf)) / f"{i}", 20 * leaf + i)
  for i in range(2):
    write(root / "animal" / "dog" / f"some{i}", 200 + i)
  return root


# Folders.


def test_folders_are_the_label_path_and_it_may_end_above_a_leaf(photos):
  source = open_source(folder_config(photos), TREE, "train")
  shades = source.read(np.arange(len(source)))[:, 0, 0, 0].tolist()
  expected = {20 * leaf + i: leaf for leaf in TREE.leaves.tolist() for i in range(10)} | {200: DOG, 201: DOG}
  assert dict(zip(shades, source.nodes[:, 0].tolist(), strict=True)) == expected and len(source) == 42
  assert tree_of(folder_config(photos)).path_text(0) == "animal"


def test_suffixes_in_capitals_count_and_hidden_or_other_files_do_not(photos):
  write(photos / "thing" / "cup" / "LOUD", 3, ".JPG")
  write(photos / "thing" / "cup" / ".hidden", 3)
  write(photos / ".thumbs" / "cup" / "x", 3)
  (photos / "thing" / "cup" / "notes.txt").write_text("not an image")
  assert len(open_source(folder_config(photos), TREE, "train")) == 43


def test_the_order_is_that_of_the_names(photos):
  one, two = (open_source(folder_config(photos), TREE, "train") for _ in range(2))
  names = [one.name_of(i) for i in range(len(one))]
  assert names == [two.name_of(i) for i in range(len(two))]
  of_cup = [name for name in names if "cup" in name]
  assert of_cup == sorted(of_cup)


def test_without_a_train_folder_everything_is_to_train_on(photos):
  config = folder_config(photos, validation=0.2)
  assert len(open_source(config, TREE, "train")) + len(open_source(config, TREE, "validation")) == 42
  assert open_source(config, TREE, "test") is None
  assert open_source(folder_config(photos), TREE, "validation") is None


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_folders_of_splits(tmp_path, validation):
  for split, count in (("train", 5), (validation, 3), ("test", 2)):
    for i in range(count):
      write(tmp_path / split / "thing" / "cup" / f"{i}", i)
  config = folder_config(tmp_path, validation=0.1)
  assert [len(open_source(config, TREE, split)) for split in ("train", "validation", "test")] == [5, 3, 2]
  assert open_source(folder_config(tmp_path), TREE, "validation") is None
  tested = folder_config(tmp_path, validation=0.4, test_split=validation)
  assert [len(open_source(tested, TREE, split)) for split in ("train", "validation", "test")] == [3, 2, 3]
  with pytest.raises(UserError, match=r"test_split = 'exam': .*train"):
    open_source(folder_config(tmp_path, test_split="exam"), TREE, "test")


def test_a_class_that_is_called_as_a_split_is_a_class(tmp_path):
  for name in ("car", "plane", "train"):
    write(tmp_path / name / "0", 1)
  tree = tree_of(folder_config(tmp_path))
  assert list(tree.names) == ["car", "plane", "train"]
  assert len(open_source(folder_config(tmp_path), tree, "train")) == 3
  (tmp_path / "car").rename(tmp_path / "test")
  named = folder_config(tmp_path, validation_split="plane", validation=0.1)
  write(tmp_path / "train" / "dog" / "0", 1)
  assert list(tree_of(named).names) == ["dog"], "a split may be called as the config says"


def test_a_folder_that_cannot_be_read_is_named(photos, monkeypatch):
  entries = folders._entries

  def locked(path):
    if path.endswith("cup"):
      raise PermissionError(13, "Permission denied")
    return entries(path)

  monkeypatch.setattr(folders, "_entries", locked)
  with pytest.raises(UserError, match=r"thing.cup: 'cup' cannot be read \(Permission denied\)"):
    open_source(folder_config(photos), TREE, "train")


def test_images_without_a_folder_of_their_label(tmp_path):
  write(tmp_path / "0", 1)
  with pytest.raises(UserError, match=r"0\.png .*folders"):
    tree_of(folder_config(tmp_path))
  with pytest.raises(UserError, match=r"0\.png .*folders"):
    open_source(folder_config(tmp_path), TREE, "train")


def test_labels_that_are_not_in_the_tree_are_listed_with_their_folder(photos):
  write(photos / "thing" / "plate" / "0", 1)
  write(photos / "nowhere", 1)
  with pytest.raises(UserError, match=r"(?s)nowhere\.png .*'plate' is not below 'thing'"):
    open_source(folder_config(photos), TREE, "train")
  with pytest.raises(UserError, match=r"config\.data\.root.*--data-root"):
    open_source(folder_config(photos / "nothing"), TREE, "train")
  with pytest.raises(UserError, match=r"config\.data\.root"):
    open_source(folder_config(""), TREE, "train")
  (photos / "empty" / "train").mkdir(parents=True)
  with pytest.raises(UserError, match="no image"):
    open_source(folder_config(photos / "empty"), TREE, "train")


def test_a_tree_of_one_leaf_leaves_nothing_to_learn(tmp_path):
  write(tmp_path / "all" / "photos" / "0", 1)
  config = folder_config(tmp_path)
  with pytest.raises(UserError, match=r"config\.tree\.source = 'images': .*'all/photos'"):
    open_tree(TreeConfig(), config)
  (tmp_path / "mine.csv").write_text("image,label\nall/photos/0.png,cup\n")
  with pytest.raises(
    UserError, match=rf"if the labels are in {tmp_path}/mine\.csv, set config\.data\.labels = mine\.csv"
  ):
    open_tree(TreeConfig(), config)
  with pytest.raises(UserError, match=r"the single leaf 'cup' leaves nothing to learn$"):
    open_tree(TreeConfig(), folder_config(tmp_path, labels="mine.csv"))
  write(tmp_path / "flat" / "0", 1)
  (tmp_path / "flat" / "mine.csv").touch()
  with pytest.raises(UserError, match=r"flat/mine\.csv"):
    open_tree(TreeConfig(), folder_config(tmp_path / "flat"))
  (tmp_path / "flat").rename(tmp_path / ".flat")
  assert open_tree(TreeConfig(short_labels="stop"), config).num_nodes == 2, "labels may end at either node"


# CSV.


def csv_config(photos, text, **changes):
  path = photos.parent / "labels.csv"
  path.write_text(text)
  return folder_config(photos, labels=str(path), **changes)


def test_a_csv_file_of_labels(photos):
  text = (
    "image,level 1,level 2,level 3\n"
    "thing/cup/3.png,thing,cup,\n"
    "animal/dog/some0.png,animal,dog\n"
    "thing/cup/4.png,animal/dog/basenji\n"
    "thing/cup/3.png,animal,dog,basenji\n"
    "thing/cup/3.png,thing,cup\n"
  )
  source = open_source(csv_config(photos, text), TREE, "train")
  np.testing.assert_array_equal(source.nodes, [[CUP, BASENJI], [DOG, PAD], [BASENJI, PAD]])
  np.testing.assert_array_equal(source.read(np.arange(3))[:, 0, 0, 0], [20 * CUP + 3, 200, 20 * CUP + 4])
  assert {tree_of(csv_config(photos, text)).path_text(i) for i in range(5)} == {
    "animal", "thing", "animal/dog", "thing/cup", "animal/dog/basenji"
  }  # fmt: skip


def test_a_label_above_another_of_its_image_is_left_out(photos):
  text = "image,label\na.png,dog\na.png,cup\na.png,basenji\nb.png,dog\na.png,animal\n"
  for name in ("a", "b"):
    write(photos / name, 1)
  source = open_source(csv_config(photos, text), TREE, "train")
  assert source.nodes.tolist() == [[CUP, BASENJI], [DOG, PAD]]


def test_a_csv_file_with_splits(photos):
  text = (
    "image,Split,label\nthing/cup/1.png,Train,thing/cup\nthing/cup/2.png,TEST ,thing/cup\n"
    "thing/cup/3.png,train,thing/cup\nthing/cup/4.png,Val,thing/cup\n"
  )
  config = csv_config(photos, text, validation=0.1)
  assert [len(open_source(config, TREE, split)) for split in ("train", "validation", "test")] == [2, 1, 1]
  assert "2.png" in open_source(config, TREE, "test").name_of(0)
  own = csv_config(
    photos, text.replace("Val", "FOLD 3"), validation=0.1, validation_split="Fold 3", train_split="Train"
  )
  assert [len(open_source(own, TREE, split)) for split in ("train", "validation", "test")] == [2, 1, 1]


def test_a_csv_file_is_looked_for_below_the_images_too(photos, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  config = folder_config(photos, labels="labels.csv")
  with pytest.raises(UserError, match=rf"labels = 'labels\.csv': .* {tmp_path}/labels\.csv and {photos}/labels\.csv"):
    tree_of(config)
  for place, image in ((photos, "thing/cup/1.png"), (tmp_path, "thing/cup/2.png")):
    (place / "labels.csv").write_text(f"image,a,b\n{image},thing,cup\n")
    assert open_source(config, TREE, "train").name_of(0).endswith(image) and len(tree_of(config).leaves) == 1


def test_images_of_a_csv_file_that_are_no_files(photos):
  names = ["thing/cup/1.png", *(f"x{i}.png" for i in range(7)), "x0.png"]
  text = "image,label\n" + "".join(f"{name},cup\n" for name in names)
  shown = ", ".join(rf"'x{i}\.png' \(line {i + 3}\)" for i in range(5))
  message = (
    rf"labels\.csv: 7 of 8 images are not files below {photos}: {shown} and 2 more; correct .*on_bad_image = skip"
  )
  with pytest.raises(UserError, match=message):
    open_source(csv_config(photos, text, cache_mib=0), TREE, "train")
  source = open_source(csv_config(photos, text, on_bad_image="skip"), TREE, "train")
  assert len(decode.read_or_skip(source, np.arange(8), "skip")[1]) == 7
  with pytest.raises(UserError, match=r"2 of 2 images .*config\.data\.root"):
    open_source(csv_config(photos, "image,label\nx.png,cup\ny.png,cup\n"), TREE, "train")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_file_with_semicolons_or_tabs(photos, delimiter):
  rows = (
    '\ufeffimage,split,"level, 1",level 2',
    'thing/cup/1.png,train,"thing",cup',
    'animal/cat/2.png,test,animal,"cat"',
  )
  text = "\r\n".join(rows)
  assert tree_of(csv_config(photos, text)).path_text(2) == "thing/cup"
  config = csv_config(photos, text.replace(",", delimiter).replace(f"level{delimiter} 1", "level, 1"))
  assert open_source(config, TREE, "train").nodes.tolist() == [[CUP]] and len(open_source(config, TREE, "test")) == 1
  with pytest.raises(UserError, match="must be a header, not the one cell 'image:label'"):
    open_source(csv_config(photos, "image:label\n1.png:cup\n"), TREE, "train")


@pytest.mark.parametrize("written", ["trian", ""])
def test_a_split_that_is_not_known_is_an_error(photos, written):
  text = f"image,split,label\nthing/cup/1.png,train,cup\nthing/cup/2.png,{written},cup\n"
  message = "the split 'trian' is not known" if written else "the split is blank"
  for on_no_label in ("stop", "skip"):
    with pytest.raises(UserError, match=rf"labels\.csv:3: {message}; write one of test, train, val, validation"):
      open_source(csv_config(photos, text, on_no_label=on_no_label), TREE, "train")
  (finding,) = [f for f in lint(photos, labels=photos.parent / "labels.csv") if f.severity == "error"]
  assert finding.line == 3 and message in finding.message


def test_validation_is_called_one_way_in_a_file(photos):
  text = "image,split,label\n1.png,train,cup\n2.png,val,cup\n3.png,validation,cup\n"
  with pytest.raises(UserError, match="some rows are in split 'val' and others in 'validation'"):
    open_source(csv_config(photos, text), TREE, "train")


def test_one_file_is_one_image_however_it_is_spelt(photos):
  text = "image,split,label\nthing/cup/1.png,train,cup\n{},{},basenji\n"
  for spelt in ("./thing/cup/1.png", "thing//cup/1.png", "thing/plate/../cup/1.png", str(photos / "thing/cup/1.png")):
    with pytest.raises(UserError, match=r"labels\.csv:3: '.*1\.png' is in split 'train' too, not only 'test'"):
      open_source(csv_config(photos, text.format(spelt, "test")), TREE, "train")
    source = open_source(csv_config(photos, text.format(spelt, "train")), TREE, "train")
    np.testing.assert_array_equal(source.nodes, [[CUP, BASENJI]])


def test_labels_below_the_old_root_have_moved_with_it(photos, tmp_path):
  (photos / "labels.csv").write_text("image,label\nthing/cup/1.png,cup\n")
  within = folder_config(photos, labels=str(photos / "thing" / ".." / "labels.csv"))
  beside = csv_config(photos, "image,label\nthing/cup/1.png,cup\n")
  photos.rename(tmp_path / "moved")
  for config in (within, beside):
    assert len(open_source(config.moved(str(tmp_path / "moved")), TREE, "train")) == 1
  (tmp_path / "moved").rename(photos)
  write(tmp_path / "images only" / "thing" / "cup" / "1", 7)
  assert open_source(within.moved(str(tmp_path / "images only")), TREE, "train").read(np.arange(1)).max() == 7


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("image,a,b\nx.png,thing,cup\nx.png,thing,plate\n", r"labels\.csv:3: 'plate' is not below 'thing'"),
    ("image,a,b\nx.png,,cup\n", r"labels\.csv:2: .*blank"),
    ("image,a,b\nx.png\n", r"labels\.csv:2: .*no label"),
    ("image,a,b\n,thing,cup\nx.png\n", r"labels\.csv:2: .*no image\n.*labels\.csv:3: .*no label"),
    ("image,split\nx.png,train\n", "header"),
    ("image,split,a\nx.png,train,thing\nx.png,test,thing\n", r"labels\.csv:3: 'x\.png' is in split 'train'"),
    ("image\nx.png\n", "header"),
    ("x.JPG,thing,cup\ny.jpg,thing,cup\n", r"labels\.csv:1: the header is missing, as 'x\.JPG' is an image"),
    ("\nREADME,thing,cup\n", r"labels\.csv:2: the header is missing, as 'README' is an image"),
    ("", "header"),
  ],
)
def test_faults_of_a_csv_file_are_named_by_line(photos, text, message):
  (photos / "README").touch()
  with pytest.raises(UserError, match=message):
    open_source(csv_config(photos, text), TREE, "train")


# Bad images.


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_a_bad_image_stops_the_run_and_is_named(photos, cache_mib):
  (photos / "thing" / "cup" / "4.png").write_bytes(b"broken")
  with pytest.raises(BadImageError, match=r"cup.4\.png"):
    source = open_source(folder_config(photos, cache_mib=cache_mib), TREE, "train")
    source.read(np.arange(len(source)))


def test_a_bad_image_that_is_skipped_is_counted_and_never_counts(photos, monkeypatch):
  messages = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: messages.append(text % args))
  (photos / "thing" / "cup" / "4.png").write_bytes(b"broken")
  source = open_source(folder_config(photos, on_bad_image="skip"), TREE, "train")
  assert any("1 of 42 images" in message for message in messages) and any("4.png" in message for message in messages)
  bad = next(i for i in range(len(source)) if source.name_of(i).endswith("cup/4.png"))
  images, faults = decode.read_or_skip(source, np.arange(len(source)), "skip")
  assert list(faults) == [bad] and not images[bad].any() and images[bad - 1].all()
  with pytest.raises(BadImageError, match=r"4\.png"):
    source.read(np.array([bad]))


# What was decoded once.


def test_decoding_once_changes_no_pixel_and_is_kept_where_it_is_slow(photos, monkeypatch):
  everything = np.arange(42)
  expected = open_source(folder_config(photos, cache_mib=0), TREE, "train").read(everything)
  monkeypatch.setattr(decode, "_WORTH_SAVING_S", 1e9)
  np.testing.assert_array_equal(open_source(folder_config(photos), TREE, "train").read(everything), expected)
  assert not cache_folder().exists()

  monkeypatch.setattr(decode, "_WORTH_SAVING_S", 0.0)
  open_source(folder_config(photos), TREE, "train")
  monkeypatch.setattr(
    "hierjax.data.sources.folders.read_image", lambda *args, **named: pytest.fail("was decoded again")
  )
  np.testing.assert_array_equal(open_source(folder_config(photos), TREE, "train").read(everything), expected)


@pytest.mark.parametrize(("resize", "cache_mib", "in_memory"), [(91, 1, True), (92, 1, False), (92, 2, True)])
def test_a_set_is_decoded_into_memory_up_to_cache_mib(photos, resize, cache_mib, in_memory):
  assert (42 * resize**2 * 3 <= cache_mib * 2**20) == in_memory
  source = open_source(folder_config(photos, resize=resize, crop=resize, cache_mib=cache_mib), TREE, "train")
  for file in photos.rglob("*.png"):
    file.unlink()
  if in_memory:
    assert source.read(np.arange(42)).shape == (42, resize, resize, 3)
  else:
    with pytest.raises(BadImageError):
      source.read(np.arange(42))


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_stretched_images_are_other_images(tmp_path, cache_mib, monkeypatch):
  monkeypatch.setattr(decode, "_WORTH_SAVING_S", 0.0)
  (tmp_path / "cup").mkdir()
  wide = np.zeros((6, 18, 3), np.uint8)
  wide[:, 6:12] = 200  # the centred square
  Image.fromarray(wide).save(tmp_path / "cup" / "0.png")
  tree = from_paths([("cup",)])
  for fit, columns in (("crop", [200] * 3), ("stretch", [0, 200, 0]), ("crop", [200] * 3)):
    source = open_source(folder_config(tmp_path, resize=3, crop=3, fit=fit, cache_mib=cache_mib), tree, "train")
    assert abs(source.read(np.arange(1))[0, 1, :, 0].astype(int) - columns).max() < 60, fit


def test_kept_images_are_not_believed_when_files_changed_or_the_cache_is_damaged(photos, monkeypatch):
  monkeypatch.setattr(decode, "_WORTH_SAVING_S", 0.0)
  before = open_source(folder_config(photos), TREE, "train")
  cup = next(i for i in range(len(before)) if before.name_of(i).endswith("cup/7.png"))
  write(photos / "thing" / "cup" / "7", 250)
  after = open_source(folder_config(photos), TREE, "train")
  assert after.read(np.array([cup]))[0, 0, 0, 0] == 250
  for file in cache_folder().iterdir():
    file.write_bytes(file.read_bytes()[:200])
  assert open_source(folder_config(photos), TREE, "train").read(np.array([cup]))[0, 0, 0, 0] == 250
  (photos / "thing" / "cup" / "8.png").write_bytes(b"broken")
  saved = {file.name for file in cache_folder().iterdir()}
  open_source(folder_config(photos, on_bad_image="skip"), TREE, "train")
  assert {file.name for file in cache_folder().iterdir()} == saved, "a set with bad images is not kept"


def test_the_cache_gives_back_what_was_saved_and_nothing_else(rng):
  array = rng.integers(0, 256, (3, 4), dtype=np.uint8)
  cache.save("set/1 train", "print", array)
  np.testing.assert_array_equal(cache.load("set/1 train", "print", (3, 4), np.uint8), array)
  for name, fingerprint, shape, dtype in (
    ("set/1 train", "other", (3, 4), np.uint8),
    ("set/1 test", "print", (3, 4), np.uint8),
    ("set/1 train", "print", (4, 3), np.uint8),
    ("set/1 train", "print", (3, 4), np.int8),
  ):
    assert cache.load(name, fingerprint, shape, dtype) is None
  assert [file.suffix for file in cache_folder().iterdir()] == [".npy"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_cache_writes_an_array_whole_or_not_at_all(monkeypatch, error):
  old, new = np.zeros(3, np.uint8), np.ones(1000, np.uint8)
  cache.save("set", "old", old)

  def interrupted(file, array, **options):
    file.write(b"half of it")
    raise error

  with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
    patched.setattr(np, "save", interrupted)
    cache.save("set", "new", new)
  np.testing.assert_array_equal(cache.load("set", "old", (3,), np.uint8), old)
  assert cache.load("set", "new", (1000,), np.uint8) is None and len(list(cache_folder().iterdir())) == 1
  with monkeypatch.context() as patched:
    patched.setattr(os, "replace", lambda written, target: np.testing.assert_array_equal(np.load(written), new))
    cache.save("set", "new", new)
  assert cache.load("set", "new", (1000,), np.uint8) is None, "nothing has the name before it is whole"


def test_the_cache_keeps_the_newest_of_a_name():
  for name, fingerprint in (("set", "old"), ("set labels", "old"), ("set", "new")):
    cache.save(name, fingerprint, np.zeros(3, np.uint8))
  (cache_folder() / "set-notes.npy").write_text("not ours")
  cache.save("set", "newest", np.zeros(3, np.uint8))
  kept = [cache.load(*key, (3,), np.uint8) is not None for key in (("set", "old"), ("set", "new"), ("set", "newest"))]
  assert kept == [False, False, True]
  assert cache.load("set labels", "old", (3,), np.uint8) is not None and (cache_folder() / "set-notes.npy").exists()


def test_sets_of_the_cache_do_not_remove_each_other():
  names = ("/data/set_a", "/data/set/a", "/data/set/a 32 crop", "/" + "x" * 300, "/" + "x" * 299 + "/y")
  for name in names:
    cache.save(name, "print", np.zeros(3, np.uint8))
  assert all(cache.load(name, "print", (3,), np.uint8) is not None for name in names)


def test_ways_to_decode_a_set_are_kept_side_by_side(photos, monkeypatch):
  monkeypatch.setattr(decode, "_WORTH_SAVING_S", 0.0)
  ways = [{}, {"fit": "stretch"}, {"resize": 5}, {"interpolation": "bicubic"}]
  for way in ways:
    open_source(folder_config(photos, **way), TREE, "train")
  monkeypatch.setattr(
    "hierjax.data.sources.folders.read_image", lambda *args, **named: pytest.fail("was decoded again")
  )
  for way in ways:
    open_source(folder_config(photos, **way), TREE, "train")


def test_the_cache_is_bounded_and_keeps_what_was_used_last(monkeypatch):
  array = np.zeros(1000, np.uint8)  # and 140 bytes of numpy's header and the checksum
  for i, name in enumerate("abc"):
    cache.save(name, "print", array)
    (file,) = cache_folder().glob(f"{name}-*")
    os.utime(file, (i, i))
  for name, age_s in (("old.npy1.part", 2 * 24 * 3600), ("new.npy1.part", 60)):
    (cache_folder() / name).write_bytes(b"half")
    os.utime(cache_folder() / name, (time.time() - age_s,) * 2)
  monkeypatch.setattr(cache, "MOST_BYTES", 3 * 1140)
  assert cache.load("a", "print", (1000,), np.uint8) is not None
  cache.save("d", "print", array)
  assert sorted(file.name.split("-")[0] for file in cache_folder().iterdir()) == ["a", "c", "d", "new.npy1.part"]
  monkeypatch.setattr(cache, "MOST_BYTES", 100)
  cache.save("e", "print", array)
  assert cache.load("e", "print", (1000,), np.uint8) is not None and len(list(cache_folder().iterdir())) == 2


def test_the_splits_of_a_csv_file_are_kept_side_by_side(photos, monkeypatch):
  monkeypatch.setattr(decode, "_WORTH_SAVING_S", 0.0)
  config = csv_config(photos, "image,split,label\nthing/cup/1.png,train,cup\nthing/cup/2.png,test,cup\n")
  for split in ("train", "test"):
    open_source(config, TREE, split)
  assert len(list(cache_folder().iterdir())) == 2


def test_a_cache_folder_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  messages = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: messages.append(text % args))
  cache.save("set", "print", np.zeros(3, np.uint8))
  assert len(messages) == 1 and "cannot be written" in messages[0]


# Arrays, noise, truncation, validation.


def test_arrays_of_images(tmp_path, rng):
  images = rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
  np.savez(tmp_path / "train.npz", images=images, nodes=np.array([CUP, DOG, BASENJI, CUP, CUP]))
  np.savez(tmp_path / "test.npz", images=images, nodes=np.array([[CUP, PAD], [DOG, CUP]] + [[CUP, PAD]] * 3))
  config = DataConfig(name="arrays", root=str(tmp_path), resize=4, crop=4, validation=0.0)
  train, test = (open_source(config, TREE, split) for split in ("train", "test"))
  np.testing.assert_array_equal(train.read(np.array([3, 0])), images[[3, 0]])
  assert train.nodes.shape == (5, 1) and test.nodes.shape == (5, 2)


@pytest.mark.parametrize(
  ("shape", "message"),
  [
    ((2, 4, 3, 3), r"config\.data\.crop = 4: .*4 x 3 pixels"),
    ((2, 4, 4, 1), r"config\.data\.mean = .*1 channels"),
    ((2, 5, 6, 3), r"5 x 6 pixels: store squares"),
    ((2, 6, 6, 3), r"config\.data\.resize = 4: .* 6 x 6 pixels, .* set config\.data\.resize = 6"),
  ],
)
def test_images_that_do_not_fit_the_transform(tmp_path, shape, message):
  np.savez(tmp_path / "train.npz", images=np.zeros(shape, np.uint8), nodes=np.array([CUP, DOG]))
  with pytest.raises(UserError, match=message):
    open_source(DataConfig(name="arrays", root=str(tmp_path), resize=4, crop=4), TREE, "train")


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"images": np.zeros((2, 4, 4, 3), np.float32), "nodes": np.zeros(2, int)}, r"float32\[2, 4, 4, 3\]"),
    ({"images": np.zeros((2, 4, 4, 3), np.uint8), "nodes": np.zeros(3, int)}, "2 images"),
    ({"images": np.zeros((2, 4, 4, 3), np.uint8), "nodes": np.array([0, 7])}, "`nodes` holds 7 in row 1"),
    ({"images": np.zeros((2, 4), np.float32), "nodes": np.zeros(2, int)}, r"config\.data\.name = features"),
    ({"images": np.zeros((2, 4, 4, 3), np.uint8), "nodes": np.array([0.0, 1.0])}, "integers"),
    ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "must be an .npz file"),
    ({"images": np.array([object()]), "nodes": np.array([0])}, "must be an .npz file"),
  ],
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, message):
  np.savez(tmp_path / "train.npz", **arrays)
  with pytest.raises(UserError, match=message):
    open_source(DataConfig(name="arrays", root=str(tmp_path)), TREE, "train")


@pytest.mark.parametrize(("width", "shape"), [(0, (8, 8, 3)), (64, (64,))])
def test_noise_is_over_any_tree_and_each_leaf_has_its_own_pattern(width, shape):
  config = DataConfig(name="noise", examples=60, resize=8, crop=8, width=width)
  train, test = (open_source(config, TREE, split) for split in ("train", "test"))
  assert (len(train), len(test)) == (60, 10) and set(train.nodes[:, 0]) == set(TREE.leaves)
  assert train.shape == test.shape == shape
  mean = {leaf: train.read(np.flatnonzero(train.nodes[:, 0] == leaf)).mean(axis=0) for leaf in TREE.leaves}
  for image, leaf in zip(test.read(np.arange(10)), test.nodes[:, 0], strict=True):
    assert min(mean, key=lambda other: abs(mean[other] - image).sum()) == leaf


def test_labels_below_the_top_levels_count_for_their_ancestors(photos):
  top = TREE.truncated(2)
  source = open_source(folder_config(photos), top, "train", Opened(TREE))
  whole = open_source(folder_config(photos), TREE, "train")
  for node, cut in zip(whole.nodes[:, 0].tolist(), source.nodes[:, 0].tolist(), strict=True):
    assert top.path(cut) == TREE.path(node)[:2]
  nodes = np.array([[BASENJI, TREE.find(("animal", "dog", "leonberg")), CUP]], np.int32)
  np.testing.assert_array_equal(nodes_in_top_levels(nodes, TREE, top), [[DOG, PAD, CUP]])


def test_the_validation_split_is_the_same_for_the_top_levels(photos):
  config = folder_config(photos, validation=0.3)
  cut = open_source(config, TREE.truncated(1), "validation", Opened(TREE))
  whole = open_source(config, TREE, "validation")
  assert [cut.name_of(i) for i in range(len(cut))] == [whole.name_of(i) for i in range(len(whole))]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_validation_is_stratified_exact_disjoint_and_by_seed(rng, fraction):
  ends = rng.permutation(np.repeat(np.arange(9), [1, 2, 3, 10, 20, 20, 50, 100, 200]).astype(np.int32))
  kept = kept_for_validation(ends, fraction, seed=3)
  share = functools.partial(np.bincount, minlength=9)
  assert (abs(share(ends[kept]) - fraction * share(ends)) <= 1).all()
  assert (share(ends[~kept]) >= 1).all(), "every class has an image to train on"
  assert abs(kept.sum() - fraction * len(ends)) <= 3
  np.testing.assert_array_equal(kept, kept_for_validation(ends, fraction, seed=3))
  assert (kept != kept_for_validation(ends, fraction, seed=4)).any()


def test_a_train_and_a_validation_split_share_no_image(photos):
  config = folder_config(photos, validation=0.3)
  train, validation = (open_source(config, TREE, split) for split in ("train", "validation"))
  names = [{source.name_of(i) for i in range(len(source))} for source in (train, validation)]
  assert not names[0] & names[1] and len(names[0] | names[1]) == 42
  for source in (train, validation):
    np.testing.assert_array_equal(source.read(np.array([4]))[0], read_image(source.name_of(4), 4))
  with pytest.raises(UserError, match=r"\b42; .*config\.data\.validation=0"):
    open_source(folder_config(photos, validation=0.001), TREE, "validation")


def test_a_config_that_cannot_be_meant_is_refused_by_key():
  for key, value in (
    ("validation", 1.0),
    ("crop", 33),
    ("on_bad_image", "ignore"),
    ("std", (0.2,)),
    ("mean", (129.0,)),
  ):
    with pytest.raises(UserError, match=rf"config\.data\.{key} = "):
      DataConfig(**{key: value})
  assert hash(DataConfig(mean=[0.5, 0.5, 0.5]).transform) == hash(DataConfig().transform)
  with pytest.raises(UserError, match="arrays"):
    ArraySource(np.zeros((2, 3), np.float64), np.zeros((2, 1), np.int32))


# Images whose sides differ.


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_with_sides_the_ends_of_long_images_are_kept(tmp_path, cache_mib):
  """An image of 80 x 40 in three colours: the ends, of which a central square has nothing, are stored."""
  pixels = np.zeros((40, 80, 3), np.uint8)
  pixels[:, :20, 0] = pixels[:, 20:60, 1] = pixels[:, 60:, 2] = 250
  for name, turn in (("cup", 1), ("bed", 6)):
    (tmp_path / "images" / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(tmp_path / "images" / name / "a.png", exif=exif)
  config = folder_config(tmp_path / "images", resize=32, crop=8, sides=(16, 32), pad=0, cache_mib=cache_mib)
  tree = from_paths([("bed",), ("cup",)])
  source = open_source(config, tree, "train")
  assert source.extents(np.array([1, 0])).tolist() == [[40, 80], [80, 40]]  # the second is seen turned
  bed, cup = source.read(np.arange(2))
  assert cup[16, 1, 0] > 200 and cup[16, 16, 1] > 200 and cup[16, 30, 2] > 200
  assert bed[1, 16, 0] > 200 and bed[30, 16, 2] > 200
  images = LabelledImages(source, tree)
  (examples,) = eval_batches(images, config, ProcessRows(2))
  np.testing.assert_array_equal(examples.extents, [[80, 40], [40, 80]])
  square = unstretched(source.read(np.arange(2)), source.extents(np.arange(2)))
  assert (square[..., 1] > 200)[:, 2:30, 2:30].all()  # the central square is green
  plain = open_source(dataclasses.replace(config, sides=()), tree, "train")
  (examples,) = eval_batches(LabelledImages(plain, tree), dataclasses.replace(config, sides=()), ProcessRows(2))
  assert examples.extents is None and plain.extents(np.arange(2)).tolist() == [[32, 32]] * 2
