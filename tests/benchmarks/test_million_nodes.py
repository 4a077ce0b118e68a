"""A large tree through `hierjax train`, its output layer divided; a small one goes on in another layout."""

import json
import signal

import jax
import numpy as np
import pytest

from benchmarks.million_nodes import LAYOUTS, arguments, main, trained, write_set
from hierjax.cli.main import main as hierjax
from hierjax.training.logs.metrics_log import MetricsLog

NODES, WIDTH = 3000, 8


def losses(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [line["loss"] for line in lines if line["split"] == "train"]


def test_a_run_goes_on_in_another_layout(tmp_path, monkeypatch, capsys):
  """Four steps with whole weights; and two with a divided output layer, and two with all weights divided."""
  write_set(tmp_path, NODES, WIDTH)
  words = arguments(tmp_path, WIDTH, "sibling_softmax")
  assert hierjax([*words, f"--workdir={tmp_path / 'whole'}"]) == 0
  assert "a device (4 data) holds 0.1 MiB of weights" in capsys.readouterr().out

  def write(log, at, split, metrics, write=MetricsLog.write):
    write(log, at, split, metrics)
    if (at, split) == (2, "train"):
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(MetricsLog, "write", write)
    assert hierjax([*words, *LAYOUTS["nodes"], f"--workdir={tmp_path / 'parts'}"]) == 128 + signal.SIGTERM
  out = capsys.readouterr().out
  assert (
    "a device (2 data x 2 model) holds 0.1 of 0.1 MiB of weights and 0.1 of 0.2 MiB of the optimiser's state" in out
  )
  fsdp = ["--config.sharding.rules=(('.*','fsdp'),)", "--config.sharding.least=1", "--config.remat=('head',)"]
  assert hierjax([*words, *fsdp, f"--workdir={tmp_path / 'parts'}"]) == 0
  assert "going on at step 2 of 4" in capsys.readouterr().out
  np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=1e-5)
  found = [json.loads((tmp_path / name / "eval" / "test.json").read_text()) for name in ("whole", "parts")]
  np.testing.assert_allclose(found[0]["leaf_nll"], found[1]["leaf_nll"], rtol=1e-5)


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--config.sharding.rules=(('^tail/','fsdp'),)"], "config.sharding.rules: '^tail/' matches no parameter's name"),
    (["--config.sharding.model=3"], "config.sharding.model = 3: they make no grid of the 4 devices in use"),
    (["--config.remat=('stages',)"], "config.remat = ('stages',): name backbone, neck or head"),
  ],
)
def test_a_wrong_layout_stops_before_training(tmp_path, capsys, words, message):
  write_set(tmp_path, 30, WIDTH)
  assert jax.device_count() == 4
  assert hierjax([*arguments(tmp_path, WIDTH, "flat"), *words, f"--workdir={tmp_path / 'run'}"]) == 1
  assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_million_nodes(tmp_path):
  write_set(tmp_path, 1_000_000, 64)
  words = arguments(tmp_path, 64, "sibling_softmax")
  found = trained([*words, *LAYOUTS["nodes"], f"--workdir={tmp_path / 'run'}"])
  assert "a device (1 data x 2 model) holds 124.0 of 248.0 MiB of weights" in "\n".join(found.lines)
  assert found.gib < 8 and (tmp_path / "run" / "eval" / "test.json").exists()
  first, *_, last = losses(tmp_path / "run")
  assert abs(first - np.log(1000 * 999)) < 2 and np.isfinite(last)


def test_its_table(monkeypatch, capsys):
  monkeypatch.setattr(
    "sys.argv", ["million_nodes", "--nodes", "300", "--width", "8", "--heads", "flat", "--layouts", "nodes"]
  )
  main()
  row = capsys.readouterr().out.splitlines()[-1]
  assert row.startswith("| `flat` | nodes | 0.0 | 0.0 |")
