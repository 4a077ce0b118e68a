"""`evaluate` and `predict` with a confidence threshold, against numpy."""

import csv
import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from commands import MESH, evaluate
from PIL import Image

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.evaluation.choosing.selective import GRID, Confidences, best_threshold
from hierjax.inference.predictor import Predictor
from hierjax.runs.choices import keep_choice, read_choices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run


@pytest.fixture(scope="module")
def runs(make_run, small_config):
  """Two runs of drawn weights on the same images: no better than chance, and of varying confidence."""
  config = small_config(
    neck=dict(name="none"), data=dict(resize=8, crop=8, examples=480), batch_size=80,
    backbone=dict(name="small_resnet", widths=(4,), blocks=1),
  )  # fmt: skip
  return [make_run(config, seed=seed, name=f"run{seed}", sharpness=6.0) for seed in (1, 0)]


def surest(tree, prob):
  path = [-1]
  while children := list(tree.children(path[-1])):
    path.append(max(children, key=lambda child: prob[child]))
  return path[1:]


@pytest.fixture(scope="module")
def expected(runs):
  """Returns the share of images with an answer, of right ones among these, and of those that end at each level."""
  opened = [(Run.from_folder(folder), folder) for folder in runs]
  tree, found = opened[0][0].tree, {}
  for (number, (run, folder)), split in itertools.product(enumerate(opened), ("validation", "test")):
    look = jax.jit(lambda variables, x, run=run: run.method.predict(variables, x, None, run.options).node_prob)
    pixels = run.source(split).read(np.arange(len(run.source(split)))).astype(np.float32)
    found[number, split] = look(run.restored_variables(folder, MESH)[1], (pixels / 255 - 0.5) / 0.25)

  def best_paths(members, split):
    """Returns the mean probabilities, and the paths from the top down to the most probable child each time."""
    mean = np.mean([np.asarray(found[member, split], np.float64) for member in members], axis=0)
    return mean, [surest(tree, row) for row in mean]

  def expect(members, split, below):
    ends, right = [], []
    nodes = opened[0][0].source(split).nodes[:, 0].tolist()
    for prob, path, end in zip(*best_paths(members, split), nodes, strict=True):
      named = [node for node in path if prob[node] >= below]
      ends.append(len(named))
      right += [set(named) <= set(tree.path(end))] * bool(named)
    levels = [float(np.mean([end == level for end in ends])) for level in range(1, 5)]
    return [float(np.mean([end > 0 for end in ends])), float(np.mean(right)) if right else None, *levels]

  expect.best_paths = best_paths
  return expect


def shares(found):
  return [found["coverage"], found["selective_accuracy"], *found["level_coverage"]]


@pytest.fixture
def run(runs, tmp_path):
  shutil.copytree(runs[0].path, tmp_path / "run")
  return RunFolder(tmp_path / "run")


def test_the_choice_is_the_smallest_on_validation_that_is_right_enough(run, expected, capsys):
  each = [expected([0], "validation", below)[1] for below in GRID]
  wanted = 0.9 * max(share for share in each if share is not None)
  evaluate(run.path, threshold="sweep", selective_accuracy=wanted)
  printed, (saved,) = capsys.readouterr().out, read_choices(run)
  below = saved.value
  assert below == next(b for b, share in zip(GRID, each, strict=True) if share is not None and share >= wanted) > 0
  assert (saved.about["threshold"], saved.about["certified"], saved.about["sure"]) == (below, None, None)
  for split in ("validation", "test"):
    about = {name: saved.about[name][split] for name in ("coverage", "selective_accuracy", "level_coverage")}
    np.testing.assert_allclose(shares(about), expected([0], split, below))

  found = json.loads((run.path / "eval" / "test-threshold.json").read_text())
  answered, right, *levels = expected([0], "test", below)
  np.testing.assert_allclose(shares(found), [answered, right, *levels])
  assert 0 < answered < 1 and sum(share > 0 for share in levels) > 1  # answers that end at different levels
  assert f"threshold = {below:g} is chosen on validation" in printed and f"{100 * right:.2f}%" in printed

  rows = list(csv.DictReader((run.path / "pictures" / "selective.csv").read_text().splitlines()))
  assert [row["split"] for row in rows] == ["validation"] * len(GRID) + ["test"] * len(GRID)
  for row in rows[:: len(GRID) // 4]:
    answered, right, *levels = expected([0], row["split"], float(row["threshold"]))
    cells = [float(row["coverage"]), *(float(row[f"ends at level {level}"]) for level in range(1, 5))]
    np.testing.assert_allclose(cells, [answered, *levels], atol=1e-6)
    accuracy = row["selective_accuracy"]
    assert accuracy == "" if right is None else float(accuracy) == pytest.approx(right, abs=1e-6)
  with Image.open(run.path / "pictures" / "selective.png") as picture:
    assert picture.width > 1000

  (run.path / "eval" / "test-threshold.json").unlink()
  evaluate(run.path, threshold="chosen")
  assert json.loads((run.path / "eval" / "test-threshold.json").read_text()) == found


def test_predict_ends_where_evaluate_does(run, expected, tmp_path, capsys):
  opened = Run.from_folder(run)
  files = [tmp_path / f"{i}.png" for i in range(12)]
  for file, pixels in zip(files, opened.source("test").read(np.arange(12)), strict=True):
    Image.fromarray(pixels).save(file)
  prob, best = (of_all[:12] for of_all in expected.best_paths([0], "test"))
  below = float(np.median([prob[i, best[i][0]] for i in range(12)]))  # half of the images have no answer
  rows = Predictor(run.path, threshold=str(below))(files)
  assert [row.image for row in rows] == list(map(str, files))
  for i, row in enumerate(rows):
    named = [node for node in best[i] if prob[i, node] >= below]
    assert row.path == opened.tree.nodes_text(named)
    assert len(row.node_probabilities) == len(named) and (row.probability is None) == (not named)
    assert row.why["rule"] == "the deepest node that is probable enough" and row.why["threshold"] == below
    assert list(row.why["nodes"]) == [opened.tree.path_text(node) for node in best[i]]  # what was cut off, too
    np.testing.assert_allclose(list(row.why["nodes"].values()), prob[i, best[i]], rtol=1e-4)
  assert 0 < sum(row.path == "" for row in rows) < 12
  three = Predictor(run.path, top=3, threshold="0.2")
  for file in files:
    several = [row for row in three(file) if row.path]
    assert len({row.path for row in several}) == len(several)
    assert [row.rank for row in several] == list(range(1, len(several) + 1))
  assert main(["predict", str(run.path), *map(str, files), "--threshold", "1"]) == 0
  assert capsys.readouterr().out.splitlines() == [f"{file}: abstained" for file in files]


def test_an_ensemble_abstains_by_its_mean_probability(runs, expected, tmp_path):
  names = [str(folder.path) for folder in runs]
  evaluate(*names, threshold="sweep", selective_accuracy=0.1, out=tmp_path / "both")
  (saved,) = read_choices(RunFolder(tmp_path / "both"))
  found = json.loads((tmp_path / "both" / "eval" / "test-threshold.json").read_text())
  np.testing.assert_allclose(shares(found), expected([0, 1], "test", saved.value))
  assert shares(found) != expected([0], "test", saved.value)
  assert len(found["members"]) == len(saved.made_for["members"]) == 2
  with pytest.raises(UserError, match="of several runs needs a folder of their own"):
    evaluate(*names, threshold="chosen")


def test_what_was_chosen_otherwise_does_not_count(run):
  message = r"--threshold chosen: \S*choices\.json has none; `hierjax evaluate .* --threshold sweep` chooses it"
  with pytest.raises(UserError, match=message):
    Predictor(run.path, threshold="chosen")
  evaluate(run.path, threshold="sweep", selective_accuracy=0.1)
  (saved,) = read_choices(run)
  for change in ({"views": [10]}, {"alpha": 0.5}, {"members": [{"run": ".", "step": 7}]}):
    (run.path / "choices.json").unlink()
    keep_choice(run, dataclasses.replace(saved, made_for={**saved.made_for, **change}))
    with pytest.raises(UserError, match=r"has a choice for other runs, weights, views or alpha; .* again"):
      evaluate(run.path, threshold="chosen")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (dict(threshold="much"), "--threshold much: give a number"),
    (dict(threshold="1.5"), r"--threshold 1\.5: a probability is from 0 to 1"),
    (dict(threshold="nan"), "--threshold nan: a probability is from 0 to 1"),
    (dict(threshold="0.5", selective_accuracy=0.9), "--selective-accuracy is the goal of --threshold sweep"),
    (dict(selective_accuracy=0.9), "--selective-accuracy is the goal of --threshold sweep"),
    (dict(threshold="sweep", selective_accuracy=0.0), "--selective-accuracy 0: must be above 0, and at most 1"),
    (dict(threshold="0.5", known_levels=1), "--known-levels is for a single run, without"),
    (dict(threshold="0.5", alpha="sweep"), "--threshold needs one set of runs at one alpha"),
    (dict(threshold="0.5", against=["x"]), "--threshold needs one set of runs at one alpha"),
  ],
)
def test_flags_that_do_not_go_together_are_refused(runs, flags, message):
  with pytest.raises(UserError, match=message):
    evaluate(runs[0].path, **flags)


def test_without_validation_nothing_is_chosen(run):
  config = run.config()
  config["data"]["validation"] = 0.0
  (run.path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match="it chooses on validation, and 'shapes' has no such split"):
    evaluate(run.path, threshold="sweep")
  assert not (run.path / "choices.json").exists()


def test_more_than_can_be_right_is_refused():
  found = Confidences(np.float32([[0.9, 0.5], [0.8, 0.4]]), np.array([[True, False], [False, False]]), np.array([2, 2]))
  assert best_threshold(found, 0.5) == 0.51 and best_threshold(found, 1.0) == 0.81
  never = Confidences(found.confidence, np.zeros_like(found.right), found.length)
  with pytest.raises(
    UserError,
    match=r"--selective-accuracy 0\.9: no threshold reaches it on the 2 validation images; the most is 0\.00%",
  ):
    best_threshold(never, 0.9)


def test_multilabel_heads_have_thresholds_of_their_own(make_run, small_config):
  config = small_config(neck=dict(name="none"), head=dict(name="multilabel"), data=dict(resize=8, crop=8))
  folder = make_run(config, name="several")
  with pytest.raises(UserError, match=r"a multi-label head has thresholds of its own, config\.decode\.thresholds"):
    Predictor(folder.path, threshold="0.5")
  with pytest.raises(UserError, match="is a multi-label head"):
    evaluate(folder.path, threshold=0.5)


@pytest.mark.parametrize("alpha", ["", "0.7"])
def test_predict_and_evaluate_agree_for_heads_whose_levels_do_not(make_run, small_config, tmp_path, alpha):
  config = small_config(
    neck=dict(name="none"), head=dict(name="coarse_fine"), tree=dict(levels=2), data=dict(resize=8, crop=8),
    backbone=dict(name="small_resnet", widths=(4,), blocks=1),
  )  # fmt: skip
  folder = make_run(config, name="levels", sharpness=6.0)
  source = Run.from_folder(folder).source("test")
  files = [tmp_path / f"{i}.png" for i in range(len(source))]
  for file, pixels in zip(files, source.read(np.arange(len(source))), strict=True):
    Image.fromarray(pixels).save(file)
  evaluate(folder.path, threshold="sweep", selective_accuracy=0.05, alpha=alpha)
  found = folder.selective_evaluation("test")
  rows = Predictor(folder.path, alpha=alpha, threshold="chosen")(files)
  lengths = [len(row.node_probabilities) for row in rows]
  assert found["level_coverage"] == pytest.approx([np.mean(np.equal(lengths, level)) for level in (1, 2)])
  tree = folder.tree()
  label_of = [tree.path_text(node) for node in source.nodes[:, 0].tolist()]
  right = [f"{label}/".startswith(f"{row.path}/") for label, row in zip(label_of, rows, strict=True) if row.path]
  assert found["selective_accuracy"] == pytest.approx(np.mean(right)) and len(right) > 0
  with pytest.raises(UserError, match="has a choice for other runs, weights, views or alpha"):
    Predictor(folder.path, alpha="0.3", threshold="chosen")
