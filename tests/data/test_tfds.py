"""Prepared sets of TensorFlow Datasets, read without TensorFlow."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from hierjax.data.config import DataConfig
from hierjax.data.images import cache
from hierjax.data.images.read_image import BadImageError
from hierjax.data.open_source import open_source
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError
from hierjax.tree import catalog
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import LabelTree, Strings, TreeError

REAL = os.environ.get("TFDS_DATA_DIR", "")
CLASSES = ("cup", "basenji", "cat")
TREE = from_paths([("animal", "dog", "basenji"), ("animal", "cat"), ("thing", "cup")])


class Tiny(tfds.core.GeneratorBasedBuilder):
  """Twelve plain images to train on, and a test split without labels, as ImageNet's."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=CLASSES)}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(12), "test": self._generate_examples(2)}

  def _generate_examples(self, count):
    from PIL import Image

    folder = Path(self.data_dir)
    for i in range(count):
      path = folder / f"{count}-{i}.png"
      Image.fromarray(np.full((10, 14, 3), 10 * i, np.uint8)).save(path)
      yield i, {"image": path, "label": -1 if count == 2 else i % 3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tfds")
  builder = Tiny(data_dir=folder, file_format="array_record")
  builder.download_and_prepare()
  return folder


def config(folder, **changes):
  return DataConfig(**{"name": "tiny", "root": str(folder), "resize": 8, "crop": 8, "validation": 0.0} | changes)


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_classes_become_nodes_and_images_squares(prepared, cache_mib):
  source = open_source(config(prepared, cache_mib=cache_mib), TREE, "train")
  images = source.read(np.arange(12))
  assert images.shape == (12, 8, 8, 3) and source.name_of(3).startswith("tiny/1.0.0 train example")
  labels = {
    int(image[0, 0, 0]) // 10 % 3: TREE.names[node] for image, node in zip(images, source.nodes[:, 0], strict=True)
  }
  assert labels == dict(enumerate(CLASSES))
  assert sorted(images[:, 0, 0, 0].tolist()) == [10 * i for i in range(12)]
  assert source.read(np.array([], np.int64)).shape == (0, 8, 8, 3)


def test_the_classes_are_a_tree_of_one_level(prepared):
  tree = open_tree(TreeConfig(source="images"), config(prepared))
  assert [tree.path_text(node) for node in range(tree.num_nodes)] == list(CLASSES)
  flat, deep = (open_source(config(prepared), t, "train") for t in (tree, TREE))
  assert [tree.names[n] for n in flat.nodes[:, 0]] == [TREE.names[n] for n in deep.nodes[:, 0]]


def test_stretched_images_are_other_images_of_the_same_labels(prepared, monkeypatch):
  open_source(config(prepared, cache_mib=0), TREE, "train")
  monkeypatch.setattr(cache, "save", lambda *args: pytest.fail("labels were read a second time"))
  seen = []
  monkeypatch.setattr("hierjax.data.sources.tfds.read_image", lambda *args, **named: seen.append(args[1:3]) or 0)
  sources = [open_source(config(prepared, cache_mib=0, fit=fit), TREE, "train").source for fit in ("crop", "stretch")]
  for source in sources:
    source.read(np.arange(1))
  assert seen == [(8, "crop"), (8, "stretch")]
  assert sources[0].fingerprint != sources[1].fingerprint


def test_nothing_imports_tensorflow(prepared):
  open_source(config(prepared), TREE, "train").read(np.arange(2))
  assert "tensorflow" not in sys.modules


def test_labels_are_read_once(prepared, own_cache, monkeypatch):
  first = open_source(config(prepared, cache_mib=0), TREE, "train").nodes
  assert len(list(own_cache.glob("*labels*.npy"))) == 1
  monkeypatch.setattr(cache, "save", lambda *args: pytest.fail("labels were read a second time"))
  np.testing.assert_array_equal(open_source(config(prepared, cache_mib=0), TREE, "train").nodes, first)


def test_a_validation_split_is_carved(prepared):
  train = open_source(config(prepared, validation=0.5), TREE, "train")
  validation = open_source(config(prepared, validation=0.5), TREE, "validation")
  assert len(train) == len(validation) == 6
  assert (np.bincount(train.nodes[:, 0]) == np.bincount(validation.nodes[:, 0])).all()


def test_labels_the_set_does_not_tell(prepared):
  with pytest.raises(UserError, match=r"tiny/1\.0\.0 test: .* labels"):
    open_source(config(prepared), TREE, "test")


class Objects(Tiny):
  """Images of several objects, as Open Images."""

  OBJECTS = ((0, 1, 1), (2,), (), (1, 2, 3), (4, 3))
  NAMES = (*CLASSES, "/m/dog", "unicorn")

  def _info(self):
    objects = tfds.features.Sequence(
      {"label": tfds.features.ClassLabel(names=self.NAMES), "bbox": tfds.features.BBoxFeature()}
    )
    features = {"image": tfds.features.Image(), "objects": objects, "also": tfds.features.Sequence(objects["label"])}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(len(self.OBJECTS))}

  def _generate_examples(self, count):
    box = tfds.features.BBox(ymin=0.0, xmin=0.0, ymax=1.0, xmax=1.0)
    for (i, example), found in zip(super()._generate_examples(count), self.OBJECTS, strict=True):
      objects = [{"label": label, "bbox": box} for label in found]
      yield i, {"image": example["image"], "objects": objects, "also": list(found)}


@pytest.mark.parametrize("label_feature", ["objects/label", "also"])
def test_images_of_several_objects_have_several_paths(tmp_path, label_feature):
  """Without classes that the tree lacks, and without the dog where there is a basenji."""
  Objects(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  tree = LabelTree(TREE.names, TREE.child_offsets, ids=Strings([f"/m/{name}" for name in TREE.names]))
  objects = config(tmp_path, name="objects", label_feature=label_feature)
  with pytest.raises(UserError, match=r"1 of 5 train images has no label, objects/1\.0\.0 train example \d the first"):
    open_source(objects, tree, "train")
  source = open_source(dataclasses.replace(objects, on_no_label="skip"), tree, "train")
  shades = source.read(np.arange(4))[:, 0, 0, 0] // 10
  found = {
    int(shade): sorted(tree.names[node] for node in nodes if node >= 0)
    for shade, nodes in zip(shades, source.nodes, strict=True)
  }
  assert found == {0: ["basenji", "cup"], 1: ["cat"], 3: ["basenji", "cat"], 4: ["dog"]}
  assert source.nodes.shape == (4, 2)
  with pytest.raises(TreeError, match="5 of 5 classes cannot be found"):
    open_source(objects, from_paths([("car",), ("bus",)]), "train")


@pytest.mark.parametrize("label_feature", ["", "objects", "image", "label/part", "labels"])
def test_a_feature_that_is_no_class(prepared, label_feature):
  with pytest.raises(UserError, match=rf"label_feature = '{label_feature}': no class of 'tiny', .* image, label"):
    open_source(config(prepared, label_feature=label_feature), TREE, "train")


def test_a_class_that_the_tree_lacks(prepared):
  with pytest.raises(UserError, match="basenji"):
    open_source(config(prepared), from_paths([("animal", "cat"), ("thing", "cup")]), "train")


def test_a_set_that_is_not_prepared_says_what_prepares_it(tmp_path):
  with pytest.raises(UserError) as error:
    open_source(config(tmp_path, name="places365_small"), TREE, "train")
  command = f"hierjax data prepare places365_small --data-dir={tmp_path}"
  assert command in str(error.value) and 'pip install "hierjax[prepare]"' in str(error.value)
  with pytest.raises(UserError, match="choose from shapes"):
    open_source(config(tmp_path, name="../shapes"), TREE, "train")


def test_a_set_prepared_for_tensorflow_only(prepared, tmp_path):
  info = (prepared / "tiny" / "1.0.0" / "dataset_info.json").read_text()
  folder = tmp_path / "tiny" / "1.0.0"
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text(info.replace('"array_record"', '"tfrecord"'))
  (folder / "features.json").write_text((prepared / "tiny" / "1.0.0" / "features.json").read_text())
  with pytest.raises(UserError, match=r"tfrecord(.|\n)*hierjax data prepare tiny"):
    open_source(config(tmp_path), TREE, "train")


def test_a_broken_record_is_named(prepared, monkeypatch):
  source = open_source(config(prepared, cache_mib=0), TREE, "train").source

  class Broken:
    def __getitems__(self, keys):
      return [{"image": b"\x89PNG broken", "label": 0} for _ in keys]

  monkeypatch.setattr(source, "_records", Broken())
  with pytest.raises(BadImageError, match=r"tiny/1\.0\.0 train example 5"):
    source.read(np.array([5]))


@pytest.mark.skipif(
  not (Path(REAL) / "cifar100").is_dir() or not REAL, reason="TFDS_DATA_DIR names no folder with cifar100 prepared"
)
def test_real_cifar100():
  tree = catalog.load("cifar100")
  source = open_source(DataConfig(name="cifar100", cache_mib=0), tree, "test")
  assert len(source) == 10_000 and source.shape == (32, 32, 3)
  assert (np.bincount(source.nodes[:, 0], minlength=120)[tree.leaves] == 100).all()
  images = source.read(np.arange(500))
  # The published channel means of the training images are 0.507, 0.487 and 0.441.
  np.testing.assert_allclose(images.mean(axis=(0, 1, 2)) / 255, [0.507, 0.487, 0.441], atol=0.03)
  reader = tfds.builder("cifar100", data_dir=REAL).as_data_source("test")
  for i in (0, 7):
    np.testing.assert_array_equal(images[i], reader[i]["image"])
    label = tfds.builder("cifar100", data_dir=REAL).info.features["label"].names[reader[i]["label"]]
    assert tree.names[source.nodes[i, 0]] == label


def test_a_name_near_that_of_another_kind_of_set_gets_a_suggestion(monkeypatch):
  from hierjax.data import open_source
  from hierjax.data.sources import tfds as module

  assert sorted(module.KINDS) == sorted(open_source._KINDS)
  for hidden in (False, True):  # with and without tensorflow_datasets
    if hidden:
      monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError) as error:
      module.tree_of(DataConfig(name="shpes?"))
    assert "'shpes?'" in str(error.value) and "did you mean 'shapes'" in str(error.value)
    assert ("hierjax[tfds]" in str(error.value)) == hidden


@pytest.mark.parametrize(
  "features",
  [
    {"pythonClassName": "os.path"},
    {"type": "evil.Feature", "content": {}},
    {"featuresDict": {"features": {"image": {"pythonClassName": "tensorflow_datasets.community.x.Image"}}}},
    {"pythonClassName": "tensorflow_datasets.core.features.a.B", "x": [{"python_class_name": "antigravity.X"}]},
  ],
)
def test_no_module_that_a_set_names_is_imported(tmp_path, features):
  from hierjax.data.sources import tfds as module

  (tmp_path / "a" / "1.0.0").mkdir(parents=True)
  (tmp_path / "a" / "1.0.0" / "features.json").write_text(json.dumps(features))
  with pytest.raises(UserError, match=r"features\.json names the class '.*no code of a set is run"):
    module.tree_of(DataConfig(name="a", root=str(tmp_path)))
