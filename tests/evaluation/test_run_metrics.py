"""`hierjax evaluate` of a run: its file has the metrics of the table, the same as of its predictions by the library."""

import json

import numpy as np
import pytest
from commands import MESH, evaluate

import hierjax as hj
from hierjax.errors import UserError
from hierjax.evaluation.evaluate import eval_step, measure_split
from hierjax.evaluation.metrics.rows import ScoredRows
from hierjax.evaluation.metrics.table import METRICS
from hierjax.functional.metrics import BATCH_METRICS
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Stages


def test_the_file_has_every_metric_and_its_interval(context_run, capsys):
  evaluate(context_run.path, every_metric=[])
  printed = capsys.readouterr().out
  found = json.loads((context_run.path / "eval" / "test.json").read_text())
  names = set(METRICS) - {"inconsistent_predictions"}  # of a flat softmax they can only be paths
  assert names <= set(found) and set(found["intervals"]) == names
  assert "information-weighted coverage at 95%" in printed and "95% interval" in printed
  lines = (context_run.path / "eval" / "test-classes.csv").read_text().splitlines()
  assert lines[0].startswith("class,level,is_leaf,images") and len(lines) > 3

  loaded = LoadedRun.open(context_run, MESH)
  run, rows = loaded.run, ScoredRows(loaded.run.tree)
  step, source, seen = eval_step(run.data.transform, Stages(run.options)), run.source("test"), []
  record = lambda *args: seen.append(step(*args)) or seen[-1]  # noqa: E731
  values, _ = measure_split(rows.kept(record), loaded, source)
  for name in BATCH_METRICS:
    if name in values:
      numbers = (np.array(every[name], np.float64) for every in (found, values))
      np.testing.assert_allclose(*numbers, rtol=1e-5, err_msg=name)
  assert len(rows.facts.predictions.labels) == found["num_examples"] == len(source)

  leaves = np.concatenate([np.asarray(one.prediction.node_prob) for one in seen])[: len(source), run.tree.leaves]
  given = hj.metrics(hj.Prediction.from_leaf_probs(leaves, run.tree), source.nodes[:, 0], run.tree)
  for name in names:
    numbers = (np.array(values[name], np.float64) for values in (found, given))
    np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-5, err_msg=name)


def test_weights_that_are_not_finite_are_said_to_be(make_run, small_config):
  folder = make_run(small_config(), name="bad", sharpness=float("nan"))
  with pytest.raises(UserError, match="do not give finite numbers"):
    evaluate(folder.path)
