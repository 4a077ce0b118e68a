"""`evaluate` and `predict` with paths that end where the run is not sure, against numpy."""

import csv
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from PIL import Image

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.evaluation.evaluate import Question, evaluate
from hierjax.evaluation.selective import GRID, Answers, choose
from hierjax.inference.predictor import predict
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))


@pytest.fixture(scope="module")
def runs(make_run, small_config):
  """Two runs of drawn weights on the same images: no better than chance, and of varying sureness."""
  config = small_config(
    neck=dict(name="none"), data=dict(resize=8, crop=8, examples=480), batch_size=80,
    backbone=dict(name="small_resnet", widths=(4,), blocks=1),
  )  # fmt: skip
  return [make_run(config, seed=seed, name=f"run{seed}", sharpness=6.0) for seed in (0, 1)]


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
    mean = np.mean([np.asarray(found[member, split], np.float64) for member in members], axis=0)
    return mean, [tree.path(int(tree.leaves[row[tree.leaves].argmax()])) for row in mean]

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
  return [found["answered"], found["right"], *found["ends_at_level"]]


@pytest.fixture
def run(runs, tmp_path):
  shutil.copytree(runs[0].path, tmp_path / "run")
  return RunFolder(tmp_path / "run")


def test_the_choice_is_the_smallest_on_validation_that_is_right_enough(run, expected, capsys):
  each = [expected([0], "validation", below)[1] for below in GRID]
  wanted = 0.9 * max(share for share in each if share is not None)
  evaluate(Question([str(run.path)], stop_below="sweep", right=wanted), MESH)
  printed, saved = capsys.readouterr().out, json.loads((run.path / "stop.json").read_text())
  below = saved["stop_below"]
  assert below == next(b for b, share in zip(GRID, each, strict=True) if share is not None and share >= wanted) > 0
  np.testing.assert_allclose(shares(saved), expected([0], "validation", below))

  found = json.loads((run.path / "eval" / "test-stop.json").read_text())
  answered, right, *levels = expected([0], "test", below)
  np.testing.assert_allclose(shares(found), [answered, right, *levels])
  assert 0 < answered < 1 and sum(share > 0 for share in levels) > 1  # answers that end at different levels
  assert f"{below:g} is chosen on validation" in printed and f"{100 * right:.2f}%" in printed

  rows = list(csv.DictReader((run.path / "pictures" / "stopping.csv").read_text().splitlines()))
  assert [row["split"] for row in rows] == ["validation"] * len(GRID) + ["test"] * len(GRID)
  for row in rows[:: len(GRID) // 4]:
    answered, right, *levels = expected([0], row["split"], float(row["stop_below"]))
    cells = [float(row["answered"]), *(float(row[f"ends at level {level}"]) for level in range(1, 5))]
    np.testing.assert_allclose(cells, [answered, *levels], atol=1e-6)
    assert row["right"] == "" if right is None else float(row["right"]) == pytest.approx(right, abs=1e-6)
  with Image.open(run.path / "pictures" / "stopping.png") as picture:
    assert picture.width > 1000

  (run.path / "eval" / "test-stop.json").unlink()
  evaluate(Question([str(run.path)], stop_below="chosen"), MESH)
  assert json.loads((run.path / "eval" / "test-stop.json").read_text()) == found


def test_predict_ends_where_evaluate_does(run, expected, tmp_path, capsys):
  opened = Run.from_folder(run)
  files = [tmp_path / f"{i}.png" for i in range(12)]
  for file, pixels in zip(files, opened.source("test").read(np.arange(12)), strict=True):
    Image.fromarray(pixels).save(file)
  prob, best = (of_all[:12] for of_all in expected.best_paths([0], "test"))
  below = float(np.median([prob[i, best[i][0]] for i in range(12)]))  # half of the images have no answer
  rows = list(predict(str(run.path), files, stop_below=str(below)))
  assert [row.image for row in rows] == list(map(str, files))
  for i, row in enumerate(rows):
    named = [node for node in best[i] if prob[i, node] >= below]
    assert row.path == opened.tree.nodes_text(named)
    assert len(row.node_probabilities) == len(named) and (row.probability is None) == (not named)
  assert 0 < sum(row.path == "" for row in rows) < 12
  for file in files:
    several = [row for row in predict(str(run.path), [file], top=3, stop_below="0.2") if row.path]
    assert len({row.path for row in several}) == len(several)
    assert [row.rank for row in several] == list(range(1, len(several) + 1))
  assert main(["predict", str(run.path), *map(str, files), "--stop-below", "1"]) == 0
  assert capsys.readouterr().out.splitlines() == [f"{file}: not sure" for file in files]


def test_an_ensemble_stops_by_its_mean_probability(runs, expected, tmp_path):
  names = [str(folder.path) for folder in runs]
  evaluate(Question(names, stop_below="sweep", right=0.1, out=str(tmp_path / "both")), MESH)
  saved = json.loads((tmp_path / "both" / "stop.json").read_text())
  found = json.loads((tmp_path / "both" / "eval" / "test-stop.json").read_text())
  np.testing.assert_allclose(shares(found), expected([0, 1], "test", saved["stop_below"]))
  assert shares(found) != expected([0], "test", saved["stop_below"])
  assert len(found["members"]) == len(saved["members"]) == 2
  with pytest.raises(UserError, match="of several runs needs a folder of their own"):
    evaluate(Question(names, stop_below="chosen"), MESH)


def test_what_was_chosen_otherwise_does_not_count(run):
  message = r"there is no \S*stop\.json; `evaluate \.\.\. --stop-below sweep` chooses it on validation"
  with pytest.raises(UserError, match=message):
    list(predict(str(run.path), [], stop_below="chosen"))
  evaluate(Question([str(run.path)], stop_below="sweep", right=0.1), MESH)
  saved = json.loads((run.path / "stop.json").read_text())
  for change in ({"views": [10]}, {"alpha": 0.5}, {"members": [{"run": ".", "step": 7}]}):
    run.write_stop(saved | change)
    with pytest.raises(UserError, match="was chosen for other runs or weights, views or alpha; choose again"):
      evaluate(Question([str(run.path)], stop_below="chosen"), MESH)
  (run.path / "stop.json").write_text('{"stop_below": "high"}')
  with pytest.raises(UserError, match=r"stop\.json is not what a sweep of --stop-below writes"):
    evaluate(Question([str(run.path)], stop_below="chosen"), MESH)


@pytest.mark.parametrize(
  ("question", "message"),
  [
    (dict(stop_below="much"), "--stop-below much: give a number"),
    (dict(stop_below="1.5"), r"--stop-below 1\.5: a probability is from 0 to 1"),
    (dict(stop_below="nan"), "--stop-below nan: a probability is from 0 to 1"),
    (dict(stop_below="0.5", right=0.9), "--right is what --stop-below sweep looks for"),
    (dict(right=0.9), "--right is what --stop-below sweep looks for"),
    (dict(stop_below="sweep", right=0.0), "--right 0: a share of the answers is more than 0, and at most 1"),
    (dict(stop_below="0.5", known_levels=1), "--known-levels is for a single run, without"),
    (dict(stop_below="0.5", alpha="sweep"), "--stop-below is of one set of runs, at one alpha"),
    (dict(stop_below="0.5", against=["x"]), "--stop-below is of one set of runs, at one alpha"),
  ],
)
def test_bad_questions_get_a_clear_sentence(runs, question, message):
  with pytest.raises(UserError, match=message):
    evaluate(Question([str(runs[0].path)], **question), MESH)


def test_without_validation_nothing_is_chosen(run):
  config = run.config()
  config["data"]["validation"] = 0.0
  (run.path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match="it chooses on validation, and 'shapes' has no such split"):
    evaluate(Question([str(run.path)], stop_below="sweep"), MESH)
  assert not (run.path / "stop.json").exists()


def test_more_than_can_be_right_is_refused():
  answers = Answers(np.float32([[0.9, 0.5], [0.8, 0.4]]), np.array([[True, False], [False, False]]), np.array([2, 2]))
  assert choose(answers, 0.5) == 0.51 and choose(answers, 1.0) == 0.81
  never = Answers(answers.sure, np.zeros_like(answers.right), answers.length)
  with pytest.raises(UserError, match=r"--right 0\.9: wherever paths end, no more than 0\.00% of the 2 answers"):
    choose(never, 0.9)


def test_heads_of_several_paths_have_thresholds(make_run, small_config):
  config = small_config(neck=dict(name="none"), head=dict(name="multilabel"), data=dict(resize=8, crop=8))
  folder = make_run(config, name="several")
  with pytest.raises(UserError, match="predicts several paths an image, whose thresholds say the same"):
    list(predict(str(folder.path), [], stop_below="0.5"))
  with pytest.raises(UserError, match="predicts several paths an image"):
    evaluate(Question([str(folder.path)], stop_below="0.5"), MESH)


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
  evaluate(Question([str(folder.path)], stop_below="sweep", right=0.05, alpha=alpha), MESH)
  found = folder.stopped_evaluation("test")
  rows = list(predict(str(folder.path), files, alpha=alpha, stop_below="chosen"))
  lengths = [len(row.node_probabilities) for row in rows]
  assert found["ends_at_level"] == pytest.approx([np.mean(np.equal(lengths, level)) for level in (1, 2)])
  tree = folder.tree()
  label_of = [tree.path_text(node) for node in source.nodes[:, 0].tolist()]
  right = [f"{label}/".startswith(f"{row.path}/") for label, row in zip(label_of, rows, strict=True) if row.path]
  assert found["right"] == pytest.approx(np.mean(right)) and len(right) > 0
  with pytest.raises(UserError, match="was chosen for other runs or weights, views or alpha"):
    list(predict(str(folder.path), [], alpha="0.3", stop_below="chosen"))
