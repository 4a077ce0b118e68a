"""Features written by a run: they are what its head reads, and a head on them is the whole model again."""

import json
import shutil
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hierjax.cli.main import main
from hierjax.data.open_source import open_source
from hierjax.errors import UserError
from hierjax.evaluation.evaluate import evaluate_run
from hierjax.evaluation.several_runs.compare import compare
from hierjax.inference import features as module
from hierjax.inference.features import write_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.predictor import Predictor
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.logs.metrics_log import MetricsLog
from hierjax.training.loop import run as loop
from hierjax.tree.label_tree import LabelTree

WIDTH = 8
NONE = dict(name="none")


def opened(folder):
  return LoadedRun.open(folder, data_mesh(), views=1)


@pytest.fixture(scope="module")
def maker(make_run, small_config):
  """The folder of a run with a neck."""
  return make_run(small_config(neck=dict(name="context", cell="none", scales=(2,), hidden=(WIDTH,))), name="maker")


@pytest.fixture(scope="module")
def written(maker, tmp_path_factory):
  """The features of that run, and what is said of them."""
  out = tmp_path_factory.mktemp("features") / "made"
  return out, write_features(opened(maker), out)


@pytest.fixture(scope="module")
def on_features(small_config, written):
  """Returns the config of a flat head on those features; arguments change whole sections."""

  def config(**changes):
    backbone = dict(name="features", width=WIDTH)
    data = dict(name="features", root=str(written[0]), resize=40) | changes.pop("data", {})  # images are the maker's
    return small_config(**dict(backbone=backbone, neck=NONE, data=data, tree=dict(source="images")) | changes)

  return config


@pytest.fixture(scope="module")
def head_run(make_run, on_features):
  """A run on the features whose head has the weights of the first run's: its seed and its names are the same."""
  return make_run(on_features(), name="head")


def test_features_are_what_the_head_of_the_run_reads(written, maker):
  out, about = written
  run = Run.from_folder(maker)
  _, variables = run.restored_variables(maker, data_mesh())
  source = run.source("train")  # three batches, the last of 16 images and padding
  pixels = (source.read(np.arange(96))[:, 2:18, 2:18].astype(np.float32) / 255 - 0.5) / 0.25
  expected = jax.jit(partial(run.method.module.apply, method="features"))(variables, pixels).pooled
  found = np.load(out / "train" / "features.npy")
  assert found.dtype == np.float32 and found.shape == (96, WIDTH)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  for split in ("train", "validation", "test"):
    np.testing.assert_array_equal(np.load(out / split / "nodes.npy"), run.source(split).nodes)
  assert LabelTree.load(out / "tree.json") == run.tree
  assert json.loads((out / "features.json").read_text()) == json.loads(json.dumps(about))
  assert about["examples"] == {"train": 96, "validation": 16, "test": 16} and about["width"] == WIDTH
  assert about["run"] == str(maker.path) and about["step"] == 1
  assert [p.name for p in out.parent.iterdir()] == [out.name], "nothing half done is left"


def test_a_head_on_features_is_the_whole_model(head_run, maker, tmp_path, rng):
  weights = [Run.from_folder(f).restored_variables(f, data_mesh())[1]["params"]["head"] for f in (head_run, maker)]
  chex.assert_trees_all_equal(*weights)
  ours, whole = (evaluate_run(folder, data_mesh()) for folder in (head_run, maker))
  assert ours["num_examples"] == 16
  for key in ("loss", "path_accuracy", "node_accuracy", "level_accuracy", "leaf_top5"):
    np.testing.assert_allclose(ours[key], whole[key], rtol=1e-5)
  for i in range(3):
    Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
  images = [*sorted(tmp_path.iterdir()), tmp_path / "nowhere.png"]
  rows, expected = (Predictor(folder.path, top=2)(images) for folder in (head_run, maker))
  assert [(r.image, r.path, r.rank, r.error) for r in rows] == [(r.image, r.path, r.rank, r.error) for r in expected]
  for row, other in zip(rows[:-1], expected[:-1], strict=True):
    np.testing.assert_allclose(row.node_probabilities, other.node_probabilities, rtol=1e-4)


def test_it_is_compared_with_a_run_on_images(head_run, maker):
  found = compare(opened(head_run), opened(maker))
  assert found.names == ("head", "maker") and found.counts()[0, 1] == found.counts()[1, 0] == 0
  assert len(found.source.shape) == 3, "a picture needs the images"
  np.testing.assert_array_equal(found.predictions[0].ends, found.predictions[1].ends)


def test_labels_are_those_of_the_whole_tree(make_run, small_config, tmp_path):
  config = small_config(tree=dict(levels=1), neck=NONE)
  folder = make_run(config)
  about = write_features(opened(folder), tmp_path / "out", splits=("test",))
  whole = Run.from_config(small_config())
  np.testing.assert_array_equal(np.load(tmp_path / "out" / "test" / "nodes.npy"), whole.source("test").nodes)
  assert LabelTree.load(tmp_path / "out" / "tree.json") == whole.tree and list(about["examples"]) == ["test"]


def test_training_on_features_goes_on_to_the_same_bits(on_features, tmp_path, monkeypatch):
  config = on_features(data=dict(validation=0.0)) | {"epochs": 5.0, "checkpoint_every": 0.4}
  loop.train_and_evaluate(config, str(tmp_path / "whole"))
  advance, steps = MetricsLog.advance, []

  def stopped(log):
    steps.append(advance(log))
    if len(steps) == 7:
      raise KeyboardInterrupt

  monkeypatch.setattr(MetricsLog, "advance", stopped)
  with pytest.raises(KeyboardInterrupt):
    loop.train_and_evaluate(config, str(tmp_path / "stopped"))
  loop.train_and_evaluate(config, str(tmp_path / "stopped"))
  folders = [RunFolder(tmp_path / name) for name in ("whole", "stopped")]
  run = Run.from_folder(folders[0])
  assert len(steps) < 7 + 12, "it went on from a checkpoint"
  chex.assert_trees_all_equal(*(run.restored_variables(f, data_mesh(), 12)[1] for f in folders))


def test_the_command_says_what_comes_next(maker, tmp_path, capsys):
  assert main(["data", "features", str(maker.path), str(tmp_path / "out"), "--splits", "test"]) == 0
  printed = capsys.readouterr().out
  assert "16 of test: 8 features each, of step 1" in printed
  command = f"hierjax train features --config.data.root={tmp_path / 'out'} "
  assert command + "--config.backbone.width=8" in printed
  assert main(["data", "features", str(maker.path), str(tmp_path / "out"), "--splits", "test"]) == 1
  assert "is there already" in capsys.readouterr().err


def test_what_goes_wrong_leaves_nothing(maker, tmp_path, monkeypatch):
  features_of_images = module.features_of_images

  def broken(*arguments):
    batch = features_of_images(*arguments)
    return batch.replace(inputs=jnp.where(arguments[2].draw[:, 1:] == 11, jnp.nan, batch.inputs))

  monkeypatch.setattr(module, "features_of_images", broken)
  with pytest.raises(UserError, match=r"shapes test example 11 .*not finite"):
    write_features(opened(maker), tmp_path / "out", splits=("test",))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(backbone=dict(name="small_resnet")), r"'features' has vectors of 8 features, and .*'small_resnet' reads im"),
    (dict(data=dict(name="shapes")), r"'features' reads precomputed features, and .*'shapes' has images"),
    (dict(backbone=dict(name="features", width=9)), r"config\.backbone\.width = 9: .* has vectors of 8 features"),
    (dict(decode=dict(views=10)), "precomputed features have 1 view"),
    (dict(neck=dict(name="context", scales=(1,))), "these are precomputed features, which have none"),
  ],
)
def test_parts_that_do_not_go_together_get_a_sentence(on_features, changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    loop.train_and_evaluate(on_features(**changes), str(tmp_path / "run"))


def test_images_are_not_seen_without_the_run_that_made_the_features(make_run, on_features, written, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(written[0], copy)
  folder = make_run(on_features(data=dict(root=str(copy))))
  about = json.loads((copy / "features.json").read_text())
  for changes, message in (
    ({"step": 7}, "of step 7 of .*, which has that checkpoint no more"),
    ({"run": str(tmp_path / "gone")}, "gone is not a run folder"),
    ({"run": str(folder.path)}, "of other features, not of images"),
    ({"run": 3}, r"features\.json is damaged"),
  ):
    (copy / "features.json").write_text(json.dumps(about | changes))
    with pytest.raises(UserError, match=message):
      Predictor(folder.path)
  (copy / "features.json").unlink()
  with pytest.raises(UserError, match=r"no run is known that makes them of images"):
    Predictor(folder.path)
  assert open_source(Run.from_folder(folder).data, LabelTree.load(copy / "tree.json"), "test") is not None
