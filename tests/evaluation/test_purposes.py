"""`evaluate` and `Predictor` with a purpose, from the images to the files, against numpy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH, evaluate

from hierjax.errors import UserError
from hierjax.functional.costs import COSTS
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.inference.predictor import Predictor
from hierjax.inference.purpose import Purpose
from hierjax.runs.run import Run


@pytest.fixture(scope="module")
def runs(make_run, small_config):
  """Two runs of drawn weights on the same images."""
  config = small_config(
    neck=dict(name="none"), data=dict(resize=8, crop=8, examples=480), batch_size=80,
    backbone=dict(name="small_resnet", widths=(4,), blocks=1),
  )  # fmt: skip
  return [make_run(config, seed=seed, name=f"run{seed}", sharpness=6.0) for seed in (0, 1)]


@pytest.fixture(scope="module")
def answers(runs):
  """Returns the tree, the pixels and label paths of the test images, and each run's node probabilities for them."""
  probs = []
  for folder in runs:
    run = Run.from_folder(folder)
    source, variables = run.source("test"), run.restored_variables(folder, MESH)[1]
    pixels = source.read(np.arange(len(source)))
    look = jax.jit(lambda variables, x, run=run: run.method.predict(variables, x, None, run.options).node_prob)
    probs.append(np.asarray(look(variables, (pixels.astype(np.float32) / 255 - 0.5) / 0.25)))
  return run.tree, pixels, run.tree.encode(source.nodes[:, 0]), probs


def test_the_smallest_expected_cost_in_evaluate_and_predict(runs, answers, capsys):
  tree, pixels, labels, (prob, _) = answers
  best = np.asarray(COSTS["edges"](jnp.asarray(prob), tree_arrays(tree))).argmin(axis=1) - 1
  paths = tree.encode(best)
  evaluate(runs[0].path, minimise="edges")
  found = json.loads((runs[0].path / "eval" / "test-edges.json").read_text())
  assert found["purpose"] == {"minimise": "edges", "level": 0, "only": None}
  right = [np.mean((paths == labels)[labels[:, level] >= 0, level]) for level in range(tree.depth)]
  assert found["level_accuracy"] == pytest.approx(right)
  capsys.readouterr()

  rows = Predictor(runs[0].path, purpose=Purpose(minimise="edges"))(list(pixels[:30]))
  assert [row.path for row in rows] == [tree.path_text(node) if node >= 0 else "" for node in best[:30].tolist()]
  assert {len(row.node_probabilities) for row in rows} > {0}  # some of them have no answer
  assert {row.why["rule"] for row in rows} == {"the smallest expected edges"}


def test_an_ensemble_restricted_to_nodes_answers_at_a_level(runs, answers, tmp_path, capsys):
  tree, _, labels, probs = answers
  allowed = Purpose(only=(tree.path_text(0),)).nodes(tree)
  (tmp_path / "labels.txt").write_text(f"{tree.path_text(0)}\n", encoding="utf-8")
  names = [str(folder.path) for folder in runs]
  evaluate(*names, only=tmp_path / "labels.txt", level=3, out=tmp_path / "both")
  found = json.loads((tmp_path / "both" / "eval" / "test-level3-only.json").read_text())
  ends = [node for node in allowed if len(path := tree.path(node)) == 3 or (len(path) < 3 and tree.is_leaf(node))]
  best = np.array(ends)[np.mean(probs, axis=0)[:, ends].argmax(axis=1)]
  among = labels[:, 0] == 0
  assert found["judged"] == pytest.approx(among.mean()) and 0 < among.mean() < 1
  assert found["path_accuracy"] == pytest.approx(np.mean(best[among] == labels[among, :3].max(axis=1)))
  assert found["ensembles"][-1]["path_error"] == pytest.approx(1 - found["path_accuracy"])
  assert found["ensembles"][0]["path_error"] < 1
  assert found["level_accuracy"][0] == 1 and found["level_accuracy"][3] is None
  assert f"{100 * among.mean():.2f}% of them have a label among those of --only" in capsys.readouterr().out


def test_a_run_is_judged_at_the_level_and_among_the_nodes_that_it_answers_with(runs, answers, tmp_path):
  tree, _, labels, (prob, _) = answers
  (tmp_path / "labels.txt").write_text(f"{tree.path_text(0)}\n", encoding="utf-8")
  evaluate(runs[0].path, only=tmp_path / "labels.txt", level=2)
  found = json.loads((runs[0].path / "eval" / "test-level2-only.json").read_text())
  ends = [node for node in range(tree.num_nodes) if tree.path(node)[0] == 0 and len(tree.path(node)) == 2]
  assert not any(tree.is_leaf(node) for node in (0,))
  best, among = np.array(ends)[prob[:, ends].argmax(axis=1)], labels[:, 0] == 0
  right = best[among] == labels[among, 1]
  assert found["path_accuracy"] == pytest.approx(right.mean()) and found["judged"] == pytest.approx(among.mean())
  low, high = found["intervals"]["path_accuracy"]
  assert low < right.mean() < high and found["level_accuracy"][2:] == [None] * (tree.depth - 2)


def test_a_threshold_holds_for_the_purpose_that_it_was_chosen_for(runs, capsys):
  evaluate(runs[1].path, certify=0.01, of="images", minimise="hf1")
  Predictor(runs[1].path, threshold="certified", purpose=Purpose(minimise="hf1"))
  with pytest.raises(UserError, match="has a certificate for other runs"):
    Predictor(runs[1].path, threshold="certified")


@pytest.mark.parametrize("flags", [dict(known_levels=1), dict(alpha="sweep")])
def test_flags_that_do_not_go_together_are_refused(runs, flags):
  with pytest.raises(UserError, match="are of one set of runs at one alpha"):
    evaluate(runs[0].path, minimise="edges", **flags)


def test_multilabel_heads_have_no_such_answers(make_run, small_config):
  config = small_config(neck=dict(name="none"), head=dict(name="multilabel"), data=dict(resize=8, crop=8))
  folder = make_run(config, name="several")
  for use in (
    lambda: evaluate(folder.path, minimise="edges"),
    lambda: Predictor(folder.path, purpose=Purpose(level=1)),
  ):
    with pytest.raises(UserError, match="a multi-label head answers with all paths"):
      use()
