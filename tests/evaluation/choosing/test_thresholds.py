"""Thresholds of multi-label heads: chosen on validation, kept in the run's folder, used by predict."""

import dataclasses
import importlib
import itertools
import json
import shutil
from functools import partial
from unittest import mock

import numpy as np
import pytest
from commands import MESH

from hierjax.errors import UserError
from hierjax.evaluation.choosing import thresholds
from hierjax.evaluation.evaluate import evaluate_run
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.predictor import Predictor
from hierjax.inference.settings import kept_thresholds
from hierjax.runs.choices import keep_choice, read_choices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop import run as loop
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions

TREE = LabelTree.from_children(list("ABabcd"), [2, 2, 2, 0, 0, 0, 0])


@pytest.fixture
def judged(rng):
  """Scores that are better than chance, of labels that end on both levels."""
  ends = np.zeros((60, 6), bool)
  ends[np.arange(60), rng.integers(0, 6, 60)] = True
  ends[np.arange(60), rng.integers(2, 6, 60)] = True
  present = ends.copy()
  for node in range(2, 6):
    present[:, int(TREE.parent[node])] |= ends[:, node]
  scores = 0.6 * rng.random((60, 6)) + np.where(present, [0.3, 0.3, 0.15, 0.15, 0.15, 0.15], 0.0)
  return thresholds.ValidationScores(scores.astype(np.float32), present, np.ones_like(ends))


def path_f1(judged, levels):
  """Returns the path F1 by a loop over images and classes."""
  own = np.float32([levels[0]] * 2 + [levels[-1]] * 4)
  right, wrong, missed = np.zeros((3, 6))
  for row, present in zip(judged.scores, judged.present, strict=True):
    for node in range(6):
      path = [node] if node < 2 else [int(TREE.parent[node]), node]
      selected = all(row[n] > own[n] for n in path)
      kind = (right if selected else missed) if present[node] else wrong
      kind[node] += selected or present[node]
  support = right + missed
  return float((support * 2 * right / np.maximum(2 * right + wrong + missed, 1)).sum() / support.sum())


def test_the_best_threshold_of_the_grid_is_chosen(judged):  # READINGS K11
  (chosen,), f1 = thresholds.best_thresholds(judged, tree_arrays(TREE), "tree")
  tries = {t: path_f1(judged, [t]) for t in np.round(np.arange(0, 1, 0.01), 2).tolist()}
  assert chosen == max(tries, key=tries.get)
  np.testing.assert_allclose(f1, tries[chosen], rtol=1e-6)


def test_a_threshold_a_level_is_at_least_as_good_and_a_local_best(judged):
  _, f1 = thresholds.best_thresholds(judged, tree_arrays(TREE), "tree")
  levels, better = thresholds.best_thresholds(judged, tree_arrays(TREE), "level")
  assert len(levels) == 2 and better > f1
  np.testing.assert_allclose(better, path_f1(judged, levels), rtol=1e-6)
  for t in np.round(np.arange(0, 1, 0.01), 2).tolist():
    assert path_f1(judged, [t, levels[1]]) <= better + 1e-9
    assert path_f1(judged, [levels[0], t]) <= better + 1e-9


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  config = importlib.import_module("configs.dhnn_shapes").get_config("smoke,cnn").to_dict()
  config["backbone"]["widths"] = (4, 8)
  config["data"] |= {"resize": 16, "crop": 16}
  folder = RunFolder(tmp_path_factory.mktemp("several"))
  with mock.patch("hierjax.runs.devices.data_mesh", lambda: MESH):
    return folder, config, loop.train_and_evaluate(config, str(folder.path))


def test_a_run_keeps_its_thresholds_and_predict_uses_them(trained, tmp_path, capsys):
  folder, _, metrics = trained
  (kept,) = read_choices(folder)
  assert metrics["thresholds"] == kept.value and kept.about["split"] == "validation"
  assert kept.made_for == {"step": metrics["step"], "per": "tree", "views": 1}
  assert 0 < metrics["path_f1"] <= 1 and 0 < metrics["node_f1"] <= 1

  importlib.import_module("hierjax.data.sources.shapes").write_folders(tmp_path / "images", 3, 16)
  files = sorted((tmp_path / "images").rglob("*.png"))
  rows = Predictor(folder.path)(files)
  assert {row.image for row in rows} == set(map(str, files))
  for row in rows:
    assert not row.path or min(row.node_probabilities) > kept.value[0]

  keep_choice(folder, dataclasses.replace(kept, value=[0.99]))
  assert [(row.image, row.path, row.probability) for row in Predictor(folder.path)(files)] == [
    (str(file), "", None) for file in files
  ]
  found = evaluate_run(folder, MESH)
  assert found["thresholds"] == [0.99] and found["path_f1"] < metrics["path_f1"]
  keep_choice(folder, kept)


def test_thresholds_for_other_images_are_used_and_not_kept(trained, tmp_path, capsys):
  folder, _, metrics = trained
  copy = RunFolder(shutil.copytree(folder.path, tmp_path / "run", ignore=shutil.ignore_patterns("choices.json")))
  about = json.loads((copy.path / "data.json").read_text())
  for validation, kept in (("1-2-3", False), (about["judged_on"]["validation"], True)):
    (copy.path / "data.json").write_text(json.dumps(about | {"judged_on": {"validation": validation}}))
    assert evaluate_run(copy, MESH)["thresholds"] == metrics["thresholds"]
    assert ("of other validation images" not in capsys.readouterr().err) == kept == bool(read_choices(copy))


def test_thresholds_of_other_weights_or_of_another_kind_do_not_count(trained):
  folder = trained[0]
  step = trained[2]["step"]
  kept = partial(kept_thresholds, folder)
  assert kept(step, DecodeOptions()) == tuple(trained[2]["thresholds"])
  assert kept(step + 1, DecodeOptions()) == kept(step, DecodeOptions(threshold_per="level")) == ()
  assert kept(step, DecodeOptions(views=10)) == ()


def test_labels_that_are_not_there_get_a_sentence(trained):
  run = Run.from_folder(trained[0])
  nothing = thresholds.ValidationScores(*(np.zeros((4, run.tree.num_nodes), kind) for kind in (np.float32, bool, bool)))
  with pytest.raises(UserError, match="no validation image has a label, so no threshold can be chosen"):
    thresholds.unseen_ends(run, nothing)
  top = dataclasses.replace(nothing, present=np.arange(run.tree.num_nodes)[None] == 0)
  by_level = dataclasses.replace(run, options=dataclasses.replace(run.options, threshold_per="level"))
  with pytest.raises(UserError, match=r"a label on level 2; set config\.decode\.threshold_per = tree"):
    thresholds.unseen_ends(by_level, top)
  assert len(thresholds.unseen_ends(run, top)) == len(run.tree.leaves)


def test_without_validation_thresholds_must_be_given(trained):
  folder, config, _ = trained
  run = Run.from_config(config | {"data": config["data"] | {"name": "noise", "validation": 0.0, "objects": 1}})
  _, variables = run.restored_variables(folder, MESH)
  with pytest.raises(UserError, match=r"the set has no such split; set config\.data\.validation, or give them"):
    thresholds.options_with_thresholds(LoadedRun(RunFolder(folder.path / "other"), run, 1, variables, MESH))


def test_the_grid_ends_below_one():
  assert all(a < b for a, b in itertools.pairwise(thresholds.GRID)) and thresholds.GRID[-1] < 1
