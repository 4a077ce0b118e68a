"""Images of a real size, from their files to the mean of ten views."""

import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH
from PIL import Image, ImageDraw

from configs import common
from hierjax.data.images.read_image import read_image
from hierjax.errors import UserError
from hierjax.evaluation.console import print_metrics
from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
from hierjax.inference.predictor import Predictor
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop.run import train_and_evaluate
from hierjax.tree.label_tree import UNKNOWN

SIZES = ((320, 240), (240, 320), (500, 375), (300, 300))
LABELS = ("animal/dog", "animal/cat", "thing")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Twelve JPEGs to train on and four to test on: noise with a figure that tells the label."""
  root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
  for split, count in (("train", 12), ("test", 4)):
    for i in range(count):
      width, height = SIZES[i % len(SIZES)]
      image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
      box = [rng.integers(0, width // 2), rng.integers(0, height // 2), width - 20, height - 20]
      ImageDraw.Draw(image).ellipse([int(x) for x in box], fill=["red", "green", "blue"][i % 3])
      file = root / split / LABELS[i % 3] / f"{i}.jpg"
      file.parent.mkdir(parents=True, exist_ok=True)
      image.save(file)
  return root


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
  """A run of two steps, evaluated with one view."""
  c = common.base()
  c.data.name = "folder"
  c.data.root = str(photos)
  c.data.fit = "stretch"
  c.data.resize, c.data.crop, c.data.pad = 256, 224, 0
  c.data.validation = 0.0
  c.data.cache_mib = 0
  c.batch_size = 8
  c.epochs = 2 * 8 / 12
  c.backbone = dict(name="small_resnet", widths=(8,), blocks=1, stem_stride=4)
  c.head = dict(name="path_rnn", width=8)
  c.decode.beam = 3
  workdir = tmp_path_factory.mktemp("run")
  with mock.patch("hierjax.runs.devices.data_mesh", lambda: MESH):
    metrics = train_and_evaluate(c.to_dict(), str(workdir))
  assert metrics["step"] == 2 and metrics["views"] == 1 and metrics["num_examples"] == 4
  assert "inconsistent_predictions" in metrics
  return RunFolder(workdir)


def test_ten_views_are_averaged_and_predict_agrees(folder, photos, tmp_path, capsys):
  metrics = evaluate_run(folder, MESH, SplitSettings(views=10))
  saved = json.loads((folder.path / "eval" / "test.json").read_text())
  assert saved == metrics and saved["views"] == 10
  assert "inconsistent_predictions" not in saved  # a mean has no raw argmaxes
  print_metrics(folder, metrics)
  assert "4 images of test, 10 views each, step 2" in capsys.readouterr().out

  run = Run.from_folder(folder)
  variables = run.restored_variables(folder, MESH)[1]
  files = sorted((photos / "test").rglob("*.jpg"))
  squares = np.stack([read_image(file, 256, "stretch") for file in files])
  pixels = (squares.astype(np.float32) / 255 - 0.5) / 0.25
  look = jax.jit(lambda variables, pixels: run.method.predict(variables, pixels, None, run.options).node_prob)
  views = []
  for top, left in ((16, 16), (0, 0), (0, 32), (32, 0), (32, 32)):
    crop = pixels[:, top : top + 224, left : left + 224]
    views += [look(variables, jnp.asarray(crop)), look(variables, jnp.asarray(crop[:, :, ::-1]))]
  mean = np.mean(views, axis=0)
  assert np.abs(views - mean).max() > 1e-4  # the views differ
  leaves = run.tree.leaves
  best = leaves[mean[:, leaves].argmax(axis=1)]
  labels = [run.tree.find(file.relative_to(photos / "test").parts[:-1]) for file in files]
  np.testing.assert_allclose(metrics["leaf_top1"], np.mean(best == labels))
  assert metrics["leaf_top5"] == 1.0  # there are three leaves
  assert {e["image"]: e["predicted"] for e in metrics["examples"]} == {
    str(file): run.tree.path_text(int(leaf)) for file, leaf in zip(files, best, strict=True)
  }

  shutil.copytree(folder.path, tmp_path / "run")
  config = folder.config()
  config["decode"]["views"] = 10
  (tmp_path / "run" / "config.json").write_text(json.dumps(config))
  rows = Predictor(tmp_path / "run")(files)
  assert [row.path for row in rows] == [run.tree.path_text(int(leaf)) for leaf in best]
  np.testing.assert_allclose([row.probability for row in rows], mean[np.arange(4), best], rtol=1e-4)


def test_known_levels_are_given_and_the_plain_answer_stays(folder, photos, capsys):
  plain = (folder.path / "eval" / "test.json").read_bytes()
  metrics = evaluate_run(folder, MESH, SplitSettings(known_levels=1))
  saved = json.loads((folder.path / "eval" / "test-known1.json").read_text())
  assert saved == metrics and saved["known_levels"] == 1 and saved["split"] == "test"
  assert (folder.path / "eval" / "test.json").read_bytes() == plain and b"known_levels" not in plain
  print_metrics(folder, metrics)
  assert "4 images of test, known down to level 1, step 2" in capsys.readouterr().out

  run = Run.from_folder(folder)
  variables = run.restored_variables(folder, MESH)[1]
  files = sorted((photos / "test").rglob("*.jpg"))
  pixels = (np.stack([read_image(file, 256, "stretch")[16:240, 16:240] for file in files]) / 255 - 0.5) / 0.25
  labels = run.tree.encode([run.tree.find(file.relative_to(photos / "test").parts[:-1]) for file in files])
  known = labels.copy()
  known[:, 1] = UNKNOWN
  look = jax.jit(lambda variables, pixels, known: run.method.predict(variables, pixels, known, run.options))
  given = look(variables, jnp.asarray(pixels.astype(np.float32)), jnp.asarray(known))
  free = look(variables, jnp.asarray(pixels.astype(np.float32)), jnp.full_like(known, UNKNOWN))
  assert (np.asarray(given.paths[:, 0, 0]) == labels[:, 0]).all()
  assert (np.asarray(free.paths[:, 0, 0]) != labels[:, 0]).any()  # or knowing would change nothing
  deep = labels[:, 1] >= 0
  for name, nodes in (("level_accuracy", given.paths[:, 0]), ("raw_level_accuracy", given.raw_nodes)):
    assert metrics[name] == [None, pytest.approx(np.mean(np.asarray(nodes)[deep, 1] == labels[deep, 1]))]
  ends = [run.tree.path_text(int(end)) for end in run.tree.ends(np.asarray(given.paths[:, 0]))]
  assert {e["image"]: e["predicted"] for e in metrics["examples"]} == dict(zip(map(str, files), ends, strict=True))
  for levels in (-1, 2):
    with pytest.raises(UserError, match=rf"--known-levels {levels}: give 0 to 1; the lowest of the tree's 2 levels"):
      evaluate_run(folder, MESH, SplitSettings(known_levels=levels))


def test_views_that_there_are_not_are_refused_before_training(tmp_path):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.decode.views = 10
  with pytest.raises(UserError, match=r"decode\.views = 10: four corners of 32 pixels need larger images than 32 x 32"):
    train_and_evaluate(c.to_dict(), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()
  c.decode.views = 5
  with pytest.raises(UserError, match=r"config\.decode\.views = 5: choose from 1, 10"):
    Run.from_config(c.to_dict())
