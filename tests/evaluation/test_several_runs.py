"""Runs with a multi-label head: each command answers, or says why it cannot."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import evaluate
from compiled_programs import FLAGS

from hierjax.cli.main import main
from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
from hierjax.functional.multilabel import label_nodes
from hierjax.inference.answers import Row
from hierjax.inference.predictor import Predictor
from hierjax.runs.choices import read_choices
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run

SEVERAL = {"objects": 3, "mirror": False}


@pytest.fixture(scope="module")
def runs(make_run, small_config):
  """Two runs that have just begun, of one head each."""
  config = small_config(data=SEVERAL, neck=dict(name="none"), head=dict(name="multilabel"))
  return [make_run(config, seed, name) for seed, name in enumerate("ab")]


@pytest.fixture
def run(runs, tmp_path):
  """A copy of the first, so that what is written into it does no harm."""
  shutil.copytree(runs[0].path, tmp_path / "run")
  return RunFolder(tmp_path / "run")


def weighted_f1(predicted, true):
  right, wrong, missed = (predicted & true).sum(0), (predicted & ~true).sum(0), (~predicted & true).sum(0)
  return ((right + missed) * 2 * right / np.maximum(2 * right + wrong + missed, 1)).sum() / (right + missed).sum()


def test_the_scores_of_ten_views_are_averaged_and_have_thresholds_of_their_own(run):
  plain = evaluate_run(run, data_mesh())
  (kept,) = read_choices(run)
  metrics = evaluate_run(run, data_mesh(), SplitSettings(views=10))
  first, ten = read_choices(run)
  assert first == kept
  assert metrics["views"] == ten.made_for["views"] == 10 and metrics["thresholds"] == ten.value
  asked = Run.from_folder(run)
  variables = asked.restored_variables(run, data_mesh())[1]
  (examples,) = asked.eval_batches(asked.source("test"))
  look = jax.jit(lambda x: asked.method.predict(variables, x, None, asked.options).node_score)
  views = np.stack([look(asked.preprocess(examples, view).inputs) for view in range(10)])
  assert np.abs(views - views[0]).max() > 1e-4
  own = views.mean(0) > metrics["thresholds"][0]
  passes, parent, offsets = own.copy(), asked.tree.parent, asked.tree.level_offsets
  for node in range(int(offsets[1]), asked.tree.num_nodes):
    passes[:, node] &= passes[:, parent[node]]
  true = np.asarray(label_nodes(jax.numpy.asarray(examples.paths), asked.method.tree)[0])
  real = examples.mask > 0
  np.testing.assert_allclose(metrics["path_f1"], weighted_f1(passes[real], true[real]), rtol=1e-5)
  np.testing.assert_allclose(metrics["node_f1"], weighted_f1(own[real], true[real]), rtol=1e-5)
  assert plain["views"] == 1


@pytest.mark.parametrize(
  ("command", "message"),
  [
    (["evaluate", "{a}", "{b}", "--alpha", "1"], "--alpha: several runs with a multi-label head are measured each by"),
    (["evaluate", "{a}", "{b}", "--level", "1"], "a multi-label head answers with all paths that pass its thresholds"),
    (["evaluate", "{a}", "{a}"], "is named twice"),
    (["evaluate", "{a}", "{b}", "--against", "{b}", "{a}"], "an ensemble predicts one path an image"),
    (
      ["evaluate", "{a}", "--known-levels", "1"],
      "a multi-label head predicts several paths an image, and the known levels would be of one of them",
    ),
    (
      ["plot", "predictions", "{a}"],
      "this picture shows one path an image; commands for such a run are `evaluate`, `predict`",
    ),
    (["compare", "{a}", "{b}"], "runs are compared by one path an image"),
    (["data", "pseudo-label", "{a}"], "pseudo-labels complete one path an image"),
    (["plot", "states", "{a}"], "this head has no states to draw; `path_rnn` has, one a step"),
    (["plot", "neighbours", "{a}"], "this run has no regions to compare; a run whose neck is `context` has"),
  ],
)
def test_what_is_not_there_for_such_a_run_ends_in_a_sentence(runs, command, message, capsys):
  assert main([word.format(a=runs[0].path, b=runs[1].path) for word in command]) == 1
  printed = capsys.readouterr().err
  assert message in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_several_runs_have_means_and_deviations_of_what_each_has_by_itself(runs, tmp_path, capsys):
  """Table 3 of Koo et al.: numpy's mean and sample deviation of the numbers that `evaluate` of each run gives."""
  copies = [RunFolder(tmp_path / name) for name in "ab"]
  for run, copied in zip(runs, copies, strict=True):
    shutil.copytree(run.path, copied.path)
  alone = []
  for folder in copies:
    evaluate(folder.path, split="test")
    alone.append(folder.evaluation("test", ("path_f1",)))
  capsys.readouterr()
  evaluate(*(folder.path for folder in copies), split="test", out=tmp_path / "out")
  printed = capsys.readouterr().out
  found = json.loads((tmp_path / "out" / "eval" / "test.json").read_text())
  for name in ("path_f1", "node_f1", "end_f1"):
    numbers = np.array([metrics[name] for metrics in alone])
    assert [member[name] for member in found["members"]] == numbers.tolist()
    mean, deviation = numbers.mean(), numbers.std(ddof=1)
    assert found["means"][name] == pytest.approx(mean) and found["deviations"][name] == pytest.approx(deviation)
    assert f"{100 * mean:.2f} ({100 * deviation:.2f})" in printed
  assert [member["thresholds"] for member in found["members"]] == [metrics["thresholds"] for metrics in alone]


def test_runs_of_one_path_and_of_several_have_no_mean(runs, make_run, small_config, capsys):
  other = make_run(small_config(neck=dict(name="none")), name="single")
  assert main(["evaluate", str(runs[0].path), str(other.path)]) == 1
  assert "predicts several paths an image and" in capsys.readouterr().err


@pytest.mark.parametrize("head", [dict(name="multilabel"), dict(name="dhnn_s2s", output="sigmoid", width=4, size=16)])
def test_a_head_of_several_is_refused_for_images_of_one_label_too(make_run, small_config, head, capsys):
  folder = make_run(small_config(neck=dict(name="none"), head=head))
  assert main(["plot", "predictions", str(folder.path)]) == 1
  assert "is a multi-label head" in capsys.readouterr().err


def test_alpha_changes_nothing_and_says_so(run, capsys):
  assert main(["evaluate", str(run.path), "--alpha", "1"]) == 0
  printed = capsys.readouterr().out
  assert printed.startswith("A multi-label head has no distribution over a level that could be adapted")
  assert "path F1" in printed and not list((run.path / "eval").glob("*alpha*"))


def test_neighbours_and_features_do_not_care(make_run, small_config, tmp_path, capsys):
  folder = make_run(small_config(data=SEVERAL, head=dict(name="multilabel")))
  assert main(["plot", "neighbours", str(folder.path), "--queries", "2", "--scale", "3"]) == 0
  assert main(["data", "features", str(folder.path), str(tmp_path / "out"), "--splits", "test"]) == 0
  nodes = np.load(tmp_path / "out" / "test" / "nodes.npy")
  np.testing.assert_array_equal(nodes, Run.from_folder(folder).source("test").nodes)
  assert nodes.shape == (16, 3)


def test_predict_says_where_no_path_passes_and_which_thresholds_are_none(run, tmp_path, monkeypatch, capsys):
  (tmp_path / "a.png").write_bytes(b"")
  rows = [Row("a.png"), Row("b.png", "thing/cup", 0.5, 1)]
  monkeypatch.setattr(Predictor, "rows", lambda *_: iter(rows))
  assert main(["predict", str(run.path), str(tmp_path)]) == 0
  printed = capsys.readouterr()
  assert printed.out.splitlines() == ["a.png: no path passes", "b.png: thing/cup  0.500"]
  assert "thresholds: none were chosen for step 1, so each is 0.5" in printed.err


EVALUATE = """
import sys
from hierjax.runs import devices
devices.join(sys.argv[2])
from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
from hierjax.runs.folder import RunFolder
evaluate_run(RunFolder(sys.argv[1]), devices.data_mesh(), SplitSettings("train"))
"""


def test_two_processes_choose_what_one_does(runs, tmp_path):
  """Of 16 validation images each sees a part, and the last batch is padded."""
  ours, theirs = (RunFolder(tmp_path / name) for name in ("one", "two"))
  for folder in (ours, theirs):
    shutil.copytree(runs[0].path, folder.path)
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{s.getsockname()[1]}"
  environment = os.environ | {"XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-c", EVALUATE, str(theirs.path)]
  processes = [
    subprocess.Popen(
      [*command, f"{address},2,{i}"],
      cwd=Path(__file__).parents[2], env=environment, stderr=subprocess.PIPE, text=True,
    )
    for i in range(2)
  ]  # fmt: skip
  evaluate_run(ours, data_mesh(), SplitSettings("train"))
  errors = [process.communicate(timeout=300)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], errors
  (one,), (two,) = (read_choices(folder) for folder in (ours, theirs))
  assert one.about["images"] == two.about["images"] == 16 and one.value == two.value
  np.testing.assert_allclose(two.about["path_f1"], one.about["path_f1"], rtol=1e-6)
  one, two = (folder.evaluation("train") for folder in (ours, theirs))
  assert one["num_examples"] == two["num_examples"] == 96
  np.testing.assert_allclose([two["path_f1"], two["node_f1"]], [one["path_f1"], one["node_f1"]], rtol=1e-5)
