"""Runs of several seeds in one program: each is what it is when it trains alone."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from configs import common
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop.run import train_and_evaluate
from hierjax.training.loop.seeds import can_train_together, train_seeds
from hierjax.training.loop.setup import set_up
from hierjax.training.loop.steps import Diverged, Steps, Stopped

SEEDS = (3, 4, 5)


def config_of(folder, **changes):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.data.resize = c.data.crop = 16
  c.data.examples = 100  # 5.25 steps an epoch, so that validations are no multiple of each other
  c.backbone = dict(name="small_resnet", widths=(8,), blocks=1)
  c.head = dict(name="path_rnn", width=8, dropout=0.2)
  c.decode.beam = 1
  c.optim.lr_groups = (("^backbone/", None), (".*", 1.0))
  c.frozen.keep, c.frozen.views = True, 1
  c.data.cache_folder = str(folder / "cache")
  c.epochs, c.patience, c.log_every, c.optim.lr = 6.0, 1.5, 3, 0.1
  c.loggers = ("console", "jsonl")
  return c.to_dict() | changes


def folders(path, seeds=SEEDS):
  return {seed: str(path / str(seed)) for seed in seeds}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
  """The folder of three runs, trained together, and what was printed."""
  path, out = tmp_path_factory.mktemp("together"), io.StringIO()
  with contextlib.redirect_stdout(out):
    train_seeds(config_of(path), folders(path))
  return path, out.getvalue()


def end_of(folder):
  """Returns the step of a run's newest checkpoint, its weights, its log, and its evaluation."""
  run = RunFolder(folder)
  step, variables = Run.from_folder(run).restored_variables(run, devices.data_mesh(), run.newest_step())
  lines = [json.loads(line) for line in run.metric_lines()]
  log = [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
  return step, variables, log, json.loads((run.path / "eval" / "test.json").read_text())["path_accuracy"]


def test_seeds_together_are_seeds_alone(together, tmp_path):
  """Dropout, the order of images, the views, the rate and the early end are each seed's own."""
  path, said = together
  assert said.count("epoch 1.1 of 6") == 1, "the console has the lines of the first run alone"
  ended = {}
  for seed, folder in folders(path).items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
      train_and_evaluate({**config_of(path), "seed": seed}, str(tmp_path / str(seed)))
    (step, weights, log, accuracy), alone = end_of(folder), end_of(tmp_path / str(seed))
    assert RunFolder(folder).config() == RunFolder(tmp_path / str(seed)).config()
    assert (step, accuracy) == (alone[0], pytest.approx(alone[3]))
    chex.assert_trees_all_close(weights, alone[1], rtol=1e-4, atol=1e-5)
    assert [line["step"] for line in log] == [line["step"] for line in alone[2]]
    chex.assert_trees_all_close(*([line["loss"] for line in lines] for lines in (log, alone[2])), rtol=1e-4)
    (session,) = json.loads((RunFolder(folder).path / "provenance.json").read_text())["sessions"]
    assert session["together"] == len(SEEDS)
    ended[seed] = [line for line in out.getvalue().splitlines() if "training ends at step" in line]
    assert [f"seed {seed}: {line}" for line in ended[seed]] == [
      line for line in said.splitlines() if line.startswith(f"seed {seed}: validation has not")
    ]
  assert len(set(map(tuple, ended.values()))) > 1, "this config is to show that one seed may end before another"


def test_a_signal_stops_all_at_one_step_and_they_go_on_together(together, tmp_path, monkeypatch):
  """It comes while the last of them logs."""
  path, _ = together
  after = Steps.after

  def sent(self, done, *rest):
    after(self, done, *rest)
    if done == 6 and self.training.run.config.seed == SEEDS[-1]:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch, pytest.raises(Stopped, match="step 7"):
    patch.setattr(Steps, "after", sent)
    train_seeds(config_of(path, calibrate=False), folders(tmp_path))
  assert {RunFolder(folder).newest_step() for folder in folders(tmp_path).values()} == {7}
  train_seeds(config_of(path, calibrate=False), folders(tmp_path))
  for seed in SEEDS:
    (_, *stopped), (_, *whole) = (end_of(folder / str(seed)) for folder in (tmp_path, path))
    jax.tree.map(np.testing.assert_array_equal, stopped[0], whole[0])
    assert stopped[1:] == whole[1:]


def test_runs_at_different_steps_go_on_one_after_the_other(together, tmp_path, monkeypatch):
  path, _ = together
  take = Steps.take

  def sent(self, done, *rest):
    take(self, done, *rest)
    if done == 6:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch, pytest.raises(Stopped, match="step 7"):
    patch.setattr(Steps, "take", sent)
    train_and_evaluate(config_of(path, calibrate=False, seed=SEEDS[1]), str(tmp_path / str(SEEDS[1])))
  train_seeds(config_of(path, calibrate=False), folders(tmp_path, SEEDS[:2]))
  for seed in SEEDS[:2]:
    found, whole = end_of(tmp_path / str(seed)), end_of(path / str(seed))
    assert found[0] == whole[0]
    chex.assert_trees_all_close(found[1], whole[1], rtol=1e-4, atol=1e-5)


def test_several_devices_share_the_batches_of_all_seeds(tmp_path):
  """A neck on kept maps, whose steps are not short."""
  neck = {"name": "context", "cell": "srn", "scales": (1, 2), "hidden": (8,), "channels": 4}
  config = config_of(tmp_path, neck=neck, head={"name": "flat"}, epochs=0.5, log_every=1, calibrate=False)
  train_seeds(config, folders(tmp_path / "both", SEEDS[:2]))
  train_and_evaluate({**config, "seed": SEEDS[1]}, str(tmp_path / "alone"))
  found, alone = end_of(tmp_path / "both" / str(SEEDS[1])), end_of(tmp_path / "alone")
  assert "(4 data)" in "".join(set_up(config, str(tmp_path / "none")).layout.lines)
  chex.assert_trees_all_close(found[1], alone[1], rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(*([line["loss"] for line in end[2]] for end in (found, alone)), rtol=1e-4)


def test_a_run_that_diverges_is_named(tmp_path):
  with pytest.raises(Diverged, match=r"^seed 3: the loss or its gradient was not finite at step"):
    train_seeds(config_of(tmp_path, optim={**config_of(tmp_path)["optim"], "lr": 1e30}), folders(tmp_path, SEEDS[:2]))


@pytest.mark.parametrize(
  ("section", "name", "value", "trains_together"),
  [
    ("frozen", "keep", True, True),
    ("frozen", "keep", False, False),
    ("sharding", "rules", ((".*", "fsdp"),), False),
    ("", "sharding", None, True),
    ("", "loggers", ("console", "wandb"), False),
  ],
)
def test_only_runs_on_kept_features_with_whole_weights_train_together(tmp_path, section, name, value, trains_together):
  config = config_of(tmp_path)
  (config[section] if section else config)[name] = value
  assert can_train_together(config) is trains_together


def test_whether_runs_train_together_is_asked_before_there_are_devices(tmp_path):
  program = f"""
import jax
from hierjax.training.loop.seeds import can_train_together
assert can_train_together({config_of(tmp_path)!r})
jax.config.update("jax_num_cpu_devices", 2)  # refused where the devices are made
assert len(jax.devices()) == 2"""
  environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
