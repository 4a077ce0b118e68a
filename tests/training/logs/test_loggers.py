"""TensorBoard, Weights & Biases and other loggers."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from hierjax.errors import UserError
from hierjax.runs.folder import RunFolder
from hierjax.training.logs.console import Progress
from hierjax.training.logs.loggers import check_loggers, scalars
from hierjax.training.logs.metrics_log import MetricsLog

METRICS = {"loss": 0.5, "level_accuracy": [0.75, None, 0.25], "exact_match": None}


class FakeWandB(types.ModuleType):
  """What hierjax uses of wandb, kept in lists."""

  def __init__(self):
    super().__init__("wandb")
    self.__spec__ = types.SimpleNamespace(name="wandb")
    self.begun, self.logged, self.finished, self.fails = [], [], 0, False

  def init(self, **settings):
    self.begun.append(settings)
    return self

  def log(self, values, step):
    if self.fails:
      raise OSError("no network")
    self.logged.append((step, values))

  def finish(self):
    self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
  fake = FakeWandB()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  return fake


def write(folder, *loggers, start=0, steps=(1, 2)):
  folder.path.mkdir(exist_ok=True)
  log = MetricsLog(folder, Progress(4, 8, start), loggers, {"epochs": 2.0})
  for step in steps:
    log.write(step, "train", METRICS)
  log.close()


def test_wandb_gets_the_metrics_the_config_and_the_same_run_after_a_break(wandb, tmp_path, capsys):
  folder = RunFolder(tmp_path / "mine")
  folder.path.mkdir()
  write(folder, "jsonl", "wandb")
  write(folder, "jsonl", "wandb", start=2, steps=(3,))
  wanted = {"train/loss": 0.5, "train/level_accuracy/1": 0.75, "train/level_accuracy/3": 0.25}
  assert wandb.logged == [(1, wanted), (2, wanted), (3, wanted)] and wandb.finished == 2
  first, second = wandb.begun
  assert first == second and first["config"] == {"epochs": 2.0} and first["project"] == "hierjax"
  assert (first["name"], first["resume"], first["dir"]) == ("mine", "allow", str(folder.path))
  assert capsys.readouterr().out == ""  # console is not among the loggers
  assert len(folder.metrics.read_text().splitlines()) == 3 and not folder.tensorboard.exists()


def test_training_goes_on_without_a_wandb_that_fails(wandb, tmp_path, capsys):
  wandb.fails = True
  write(RunFolder(tmp_path), "jsonl", "wandb")
  assert capsys.readouterr().err == "training goes on without wandb: no network\n" and wandb.finished == 0


def test_a_wandb_that_does_not_start_is_one_sentence(wandb, tmp_path, monkeypatch):
  monkeypatch.setattr(wandb, "init", lambda **settings: (_ for _ in ()).throw(RuntimeError("no API key")))
  with pytest.raises(UserError, match=r"wandb does not start \(no API key\): `wandb login`, or WANDB_MODE=offline"):
    write(RunFolder(tmp_path), "jsonl", "wandb")


def test_wandb_itself_offline(tmp_path):
  pytest.importorskip("wandb", reason="the extra wandb is not installed")
  code = "from training.logs.test_loggers import *; write(RunFolder(sys.argv[1]), 'jsonl', 'wandb')"
  environment = os.environ | {"WANDB_MODE": "offline", "PYTHONPATH": str(Path(__file__).parents[2])}
  subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True, timeout=300)
  assert list(tmp_path.glob("wandb/offline-run-*"))


def test_tensorboard_gets_the_metrics(tmp_path):
  pytest.importorskip("tensorboardX")
  write(RunFolder(tmp_path), "jsonl", "tensorboard")
  (events,) = (tmp_path / "tensorboard").iterdir()
  assert b"train/level_accuracy/3" in events.read_bytes()


class Lines:
  """A logger of others."""

  def __init__(self, run, config, start_step):
    self._file = (run.path / "lines").open("a")

  def write(self, step, split, values):
    self._file.write(f"{step} {split} {json.dumps(values)}\n")

  def close(self):
    self._file.close()


def test_a_logger_of_others_is_imported(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(Lines=Lines, __name__="mine", __spec__=None))
  check_loggers(("jsonl", "mine:Lines"))
  write(RunFolder(tmp_path), "jsonl", "mine:Lines")
  assert (tmp_path / "lines").read_text().splitlines()[1] == f"2 train {json.dumps(scalars(METRICS))}"


def test_the_logger_of_the_documentation_is_one(tmp_path, monkeypatch, capsys):
  page = (Path(__file__).parents[3] / "docs" / "how_to" / "logging.md").read_text(encoding="utf-8")
  names = {}
  exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)  # noqa: S102 (our own page)
  monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(**names))
  write(RunFolder(tmp_path / "run"), "jsonl", "mine:ToPrinter")
  assert capsys.readouterr().out == "run 1 train 0.5\nrun 2 train 0.5\n"


@pytest.mark.parametrize(
  ("names", "sentence"),
  [
    (("console",), "jsonl must be among them: metrics.jsonl is the record of the run"),
    (("jsonl", "tensorbord"), "did you mean 'tensorboard'"),
    (("jsonl", "jsonl"), "jsonl is there twice"),
    (("jsonl", "nowhere:Logger"), "nowhere"),
  ],
)
def test_what_is_refused(names, sentence):
  with pytest.raises(UserError, match=r"config\.loggers") as error:
    check_loggers(names)
  assert sentence in str(error.value)


def test_wandb_that_is_not_installed_names_its_extra(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r'pip install "hierjax\[wandb\]"'):
    check_loggers(("jsonl", "wandb"))
