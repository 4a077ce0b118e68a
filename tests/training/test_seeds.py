"""Runs of several seeds in one program: each is what it is when it trains alone."""

import json
import os
import signal

import chex
import jax
import pytest

from configs import common
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop.run import train_and_evaluate
from hierjax.training.loop.seeds import fits, train_seeds
from hierjax.training.loop.steps import Steps, Stopped

SEEDS = (3, 4, 5)


@pytest.fixture
def config(tmp_path):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.data.examples = 96
  c.backbone = dict(name="small_resnet", widths=(8,), blocks=1)
  c.head = dict(name="path_rnn", width=8, dropout=0.2)
  c.decode.beam = 1
  c.optim.lr_groups = (("^backbone/", None), (".*", 1.0))
  c.frozen.keep, c.frozen.views = True, 1
  c.data.cache_folder = str(tmp_path / "cache")
  c.epochs, c.patience, c.log_every, c.optim.lr = 6.0, 2.0, 2, 0.3
  return c.to_dict()


def folders(tmp_path, name):
  return {seed: str(tmp_path / name / str(seed)) for seed in SEEDS}


def end_of(folder):
  """Returns the step of a run's newest checkpoint, its weights, its log, and its evaluation."""
  run = RunFolder(folder)
  step, variables = Run.from_folder(run).restored_variables(run, devices.data_mesh(), run.newest_step())
  lines = [json.loads(line) for line in run.metric_lines()]
  log = [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
  return step, variables, log, json.loads((run.path / "eval" / "test.json").read_text())["path_accuracy"]


def test_seeds_together_are_seeds_alone(tmp_path, config, capsys):
  """Dropout, the order of images, the views, the rate and the early end are each seed's own."""
  train_seeds(config, folders(tmp_path, "together"))
  assert capsys.readouterr().out.count("epoch 1.0 of 6") == 1, "the console has the lines of the first run alone"
  ends = []
  for seed, folder in folders(tmp_path, "together").items():
    train_and_evaluate({**config, "seed": seed}, str(tmp_path / str(seed)))
    (step, weights, log, accuracy), alone = end_of(folder), end_of(tmp_path / str(seed))
    assert RunFolder(folder).config() == RunFolder(tmp_path / str(seed)).config()
    assert (step, accuracy) == (alone[0], pytest.approx(alone[3]))
    chex.assert_trees_all_close(weights, alone[1], rtol=1e-4, atol=1e-5)
    assert [line["step"] for line in log] == [line["step"] for line in alone[2]]
    chex.assert_trees_all_close(*([line["loss"] for line in lines] for lines in (log, alone[2])), rtol=1e-4)
    (session,) = json.loads((RunFolder(folder).path / "provenance.json").read_text())["sessions"]
    assert session["together"] == len(SEEDS)
    ends.append(step)
  assert len(set(ends)) > 1, "this config is to show that one seed may end before another"


def test_a_signal_stops_all_and_they_go_on_together(tmp_path, config, monkeypatch):
  config |= {"patience": 0.0, "epochs": 2.0}
  config["neck"] = {"name": "context", "scales": (1, 2), "hidden": (8,), "channels": 4}  # which all devices train
  train_seeds(config, folders(tmp_path, "whole"))
  after = Steps.after

  def sent(self, done, *rest):
    if done == 4 and self.training.run.config.seed == SEEDS[0]:
      os.kill(os.getpid(), signal.SIGTERM)
    after(self, done, *rest)

  with monkeypatch.context() as patch, pytest.raises(Stopped, match="step 4"):
    patch.setattr(Steps, "after", sent)
    train_seeds(config, folders(tmp_path, "stopped"))
  assert {RunFolder(folder).newest_step() for folder in folders(tmp_path, "stopped").values()} == {4}
  train_seeds(config, folders(tmp_path, "stopped"))
  for seed in SEEDS:
    (_, *stopped), (_, *whole) = (end_of(tmp_path / name / str(seed)) for name in ("stopped", "whole"))
    jax.tree.map(lambda a, b: chex.assert_trees_all_equal(a, b), stopped[0], whole[0])
    assert stopped[1:] == whole[1:]


def test_runs_that_stopped_at_different_steps_train_each_by_itself(tmp_path, config):
  train_and_evaluate({**config, "epochs": 0.0, "seed": SEEDS[1]}, folders(tmp_path, "some")[SEEDS[1]])
  config |= {"epochs": 1.0}
  train_and_evaluate({**config, "seed": SEEDS[0]}, folders(tmp_path, "some")[SEEDS[0]])
  with pytest.raises(UserError):
    train_seeds(config, folders(tmp_path, "some"))


@pytest.mark.parametrize(
  ("section", "name", "value", "together"),
  [("frozen", "keep", True, True), ("frozen", "keep", False, False), ("sharding", "rules", ((".*", "fsdp"),), False)],
)
def test_only_runs_on_kept_features_with_whole_weights_train_together(config, section, name, value, together):
  config[section][name] = value
  assert fits(config) is together
