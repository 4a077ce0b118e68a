"""The experiments of Zuo et al., from their configs, on a few photographs of real size: TFDS's sets, and folders."""

import dataclasses
import functools
import importlib.util
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from commands import MESH, evaluate
from PIL import Image, ImageDraw

from configs import chrnn
from hierjax.config import unpack
from hierjax.nn.necks.context import ContextNeck
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop.run import train_and_evaluate
from hierjax.training.optim import OptimConfig, make_optimizer, parameter_names

CONFIGS = Path(__file__).parents[1] / "configs"


def as_it_is(name, variant):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def config_of(name, variant, root, folders=True, **init):
  """Returns an experiment's config, its images and 224 pixels as they are, its network thinner, for a few steps."""
  c = as_it_is(name, variant)
  with c.unlocked():
    c.backbone.widths = (8, 8, 8, 8, 8)
  c.neck.hidden = (8, 8)
  c.neck.scales = (1, 3)  # quicker to compile
  if folders:
    c.tree.source, c.data.name = "images", "folder"
  c.data.root = str(root)
  c.data.validation = 0.34
  c.batch_size, c.epochs, c.log_every = 4, 1.0, 1
  c.init.update(init)
  return c.to_dict()


def photographs(root, scenes, splits):
  """Draws images of 320 x 280 pixels; those of a scene share the shape in the middle."""
  rng = np.random.default_rng(0)
  for split in splits:
    for s, scene in enumerate(scenes):
      for i in range(3 if split == "train" else 4):
        path = root / split / scene / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (280, 320, 3), np.uint8))
        draw = (ImageDraw.Draw(image).rectangle, ImageDraw.Draw(image).ellipse)[s % 2]
        draw((60, 60, 260, 220), fill=(40 * s, 200, 90))
        image.save(path)
  return root


class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Photographs, in folders named by the number of their class, as TFDS prepares the set."""

  VERSION = tfds.core.Version("5.1.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = "photographs"
  CLASSES = "datasets/imagenet2012/labels.txt"

  def _info(self):
    label = tfds.features.ClassLabel(names_file=tfds.core.tfds_path(self.CLASSES))
    features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": label}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {folder.name: self._generate_examples(folder) for folder in dl_manager.manual_dir.iterdir()}

  def _generate_examples(self, folder):
    for path in folder.glob("*/*.jpg"):
      label = int(path.parent.name)
      yield f"{label} {path.name}", {"image": path, "label": label}


class Sun397(Imagenet2012, skip_registration=True):
  """The first of the set's own partitions."""

  VERSION = tfds.core.Version("4.0.0")
  BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="standard-part1-120k"),)
  CLASSES = "image_classification/sun397_labels.txt"


def labels_of(workdir, split):
  """Returns the name of every image's class in a run, and how many leaves its tree has."""
  run = Run.from_folder(RunFolder(workdir))
  return sorted(run.tree.names[node] for node in run.source(split).nodes[:, 0]), len(run.tree.leaves)


def prepare(builder, root, scenes, splits):
  """Prepares photographs as a set of TFDS; returns TFDS's folder."""
  given = tfds.download.DownloadConfig(manual_dir=photographs(root / "photographs", scenes, splits))
  builder(data_dir=root, file_format="array_record").download_and_prepare(download_config=given)
  return root


@pytest.fixture(scope="module")
def first(tmp_path_factory):
  """A run of chrnn_imagenet on photographs of two of the 1000 classes."""
  folder = tmp_path_factory.mktemp("chrnn")
  root = prepare(Imagenet2012, folder / "images", ("0", "253"), ("train", "validation"))
  workdir = folder / "hsrn"
  with mock.patch("hierjax.runs.devices.data_mesh", lambda: MESH):
    metrics = train_and_evaluate(config_of("chrnn_imagenet", "hsrn", root, folders=False), str(workdir))
  return workdir, metrics


def test_imagenet_one_view_and_ten(first):
  workdir, metrics = first
  assert metrics["num_examples"] == 8 and metrics["views"] == 1
  assert 0 <= metrics["leaf_top1"] <= metrics["leaf_top5"] <= 1
  assert labels_of(workdir, "test") == (["basenji"] * 4 + ["tench"] * 4, 1000)
  evaluate(workdir, views=10)
  again = json.loads((workdir / "eval" / "test.json").read_text())
  assert again["views"] == 10 and again["num_examples"] == 8
  assert 0 <= again["leaf_top1"] <= again["leaf_top5"] <= 1


@pytest.mark.parametrize(
  ("name", "builder", "folders", "scenes", "leaves"),
  [
    ("chrnn_sun397", Sun397, ("0", "7", "396"), ("/a/abbey", "/a/anechoic_chamber", "/y/youth_hostel"), 397),
    ("chrnn_mit67", None, ("cellar", "hall", "pantry"), ("cellar", "hall", "pantry"), 3),
  ],
  ids=["chrnn_sun397", "chrnn_mit67"],
)
def test_scenes_are_fine_tuned_from_a_run(first, tmp_path, name, builder, folders, scenes, leaves, capsys, monkeypatch):
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  write = functools.partial(prepare, builder) if builder else photographs
  images = write(tmp_path / "images", folders, ("train", "test"))
  config = config_of(name, "hsrn", images, folders=builder is None, run=str(first[0]))
  config["optim"]["lr"], config["calibrate"] = 0.0, False
  metrics = train_and_evaluate(config, str(tmp_path / "run"))
  assert metrics["num_examples"] == 12 and metrics["split"] == "test"
  assert labels_of(tmp_path / "run", "test") == ([scene for scene in scenes for _ in range(4)], leaves)
  assert "head/" in capsys.readouterr().out  # what starts afresh is named
  before, after = (weights(folder) for folder in (first[0], tmp_path / "run"))
  kept = {key for key in before if not key.startswith("head/")}
  assert any("neck/context/" in key for key in kept)
  for key in kept:
    np.testing.assert_array_equal(before[key], after[key], err_msg=key)


@pytest.mark.parametrize("name", ["chrnn_sun397", "chrnn_mit67"])
def test_fine_tuning_learns_10_times_as_fast_between_the_scales_and_in_them(name, tmp_path, toy_tree):
  config = config_of(name, "hlstm", tmp_path)
  run = Run.from_config(config, toy_tree)
  params = jax.eval_shape(lambda: run.init_variables(jax.random.key(0), (224, 224, 3)))["params"]
  optimizer = make_optimizer(unpack(OptimConfig, config["optim"], "optim"), params)
  names, factors = jax.tree.leaves(parameter_names(params)), jax.tree.leaves(optimizer.factors)
  assert {"neck/context/link_0_1/kernel", "neck/context/scale_1/row_kernel"} <= set(names)
  assert {"neck/hidden_0/kernel", "head/output/kernel"} <= set(names)
  expected = {name: 10.0 if name.startswith("neck/context/") else 1.0 for name in names}
  assert dict(zip(names, factors, strict=True)) == expected
  assert not any(jax.tree.leaves(optimizer.frozen))


def test_a_command_line_can_change_every_field_of_the_neck():
  fields = {field.name for field in dataclasses.fields(ContextNeck)} - {"dtype", "parent", "name"}
  assert set(chrnn.neck()) - {"name"} == fields


def weights(workdir):
  folder = RunFolder(workdir)
  _, variables = Run.from_folder(folder).restored_variables(folder, devices.data_mesh())
  flat, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
  return {"/".join(str(p.key) for p in path): np.asarray(leaf) for path, leaf in flat}


@pytest.mark.slow  # the head, the neck and `data.test_split` have tests of their own
def test_places_from_folders_with_a_cnn_rnn_head(tmp_path):
  root = photographs(tmp_path / "images", ("beach", "street"), ("train", "val"))
  metrics = train_and_evaluate(config_of("chrnn_places205", "hsrn,path", root), str(tmp_path / "run"))
  assert metrics["num_examples"] == 8 and metrics["split"] == "test"


@pytest.mark.parametrize("name", ["chrnn_imagenet", "chrnn_places205", "chrnn_sun397", "chrnn_mit67"])
def test_training_is_that_of_section_iv_a(name):
  c = as_it_is(name, "hsrn")
  assert (c.batch_size, c.optim.lr, c.optim.lr_batch, c.optim.momentum, c.optim.nesterov) == (
    256,
    0.01,
    256,
    0.9,
    False,
  )
  assert (c.schedule.name, c.schedule.factor) == ("plateau", 0.1)
  assert (c.data.resize, c.data.crop, c.data.fit) == (256, 224, "stretch")
  assert len(set(c.data.std)) == 1  # the mean alone is taken away
  assert (c.neck.cell, c.neck.scales, c.neck.hidden) == ("srn", (1, 2, 3, 6), (4096, 4096))


@pytest.mark.parametrize(
  ("variant", "maps", "first_dense"),
  [
    ("spp", [55, 13, 13, 13, 13], 12_800),
    ("hlstm", [55, 13, 13, 13, 13], 12_800),
    ("alex", [27, 13, 13, 13, 13], 9216),
  ],
)
def test_networks_are_those_of_table_i(variant, maps, first_dense):
  c = as_it_is("chrnn_imagenet", variant)
  module = Run.from_config(c.to_dict()).method.module
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
  features = jax.eval_shape(lambda v, x: module.apply(v, x, method="features"), {"params": shapes}, images)
  assert [stage.shape[1] for stage in features.stages] == [*maps, 1]  # the neck's own output is the last
  dense = shapes["neck"]["hidden_0"]["kernel"].shape, shapes["neck"]["hidden_1"]["kernel"].shape
  assert dense == ((first_dense, 4096), (4096, 4096))
  assert shapes["head"]["output"]["kernel"].shape == (4096, 1000)
