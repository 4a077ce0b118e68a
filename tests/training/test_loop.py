"""What the loop makes of what validation says, which is given here."""

import functools
import itertools
import json
import shutil
from types import SimpleNamespace

import pytest
from commands import MESH

from configs import common
from hierjax import disk
from hierjax.errors import UserError
from hierjax.runs import checkpoint, devices
from hierjax.runs.choices import kept_temperatures
from hierjax.runs.folder import RunFolder
from hierjax.training.logs.metrics_log import ImageRate
from hierjax.training.loop import run as loop
from hierjax.training.loop import steps


@pytest.fixture
def train(tmp_path, monkeypatch):
  """Trains steps of an epoch each; after each, validation says the next of `scores`, or raises it."""

  def train(
    scores, decay=0.0, eval_every=1.0, early=0.0, log_every=1, folder="run", minutes=None, calibrate=False, **schedule
  ):
    c = common.base()
    c.patience, c.calibrate = early, calibrate
    if minutes is not None:
      c.checkpoint_minutes, c.checkpoint_every = minutes, 20.0
    c.tree.source = c.data.name = "shapes"
    c.data.examples, c.data.resize, c.data.crop = 16, 16, 16
    c.epochs, c.batch_size, c.log_every, c.optim.lr, c.data.validation = 9.0, 16, log_every, 1e-3, 0.1
    c.backbone = dict(name="small_resnet", widths=(4,), blocks=1)
    c.head = dict(name="flat")
    c.optim.decay = ((".*", decay),)
    c.schedule.update(schedule)
    c.eval_every = eval_every
    left = iter(scores)

    def evaluate(*_):
      found = next(left)
      if isinstance(found, Exception):
        raise found
      return {"num_examples": 2, "loss": found[0], "path_accuracy": found[1], "level_accuracy": [found[1], None]}, {}

    monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
    monkeypatch.setattr(steps, "measure_split", evaluate)
    loop.train_and_evaluate(c.to_dict(), str(tmp_path / folder))

  return train


@pytest.fixture
def lines(tmp_path):
  """Returns the lines of metrics.jsonl of a split."""

  def lines(split, folder="run"):
    found = map(json.loads, RunFolder(tmp_path / folder).metric_lines())
    return [line for line in found if line["split"] == split]

  return lines


def test_a_run_that_ended_before_its_temperature_was_fitted_fits_it_when_it_goes_on(train, tmp_path, monkeypatch):
  def end(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(loop, "calibrate_run", end)
    with pytest.raises(KeyboardInterrupt):
      train(9 * [(0.5, 0.1)], calibrate=True)
  folder = RunFolder(tmp_path / "run")
  assert kept_temperatures(folder) == {}
  train([], calibrate=True)
  (temperature,) = kept_temperatures(folder).values()
  assert json.loads((folder.path / "eval" / "test.json").read_text())["temperature"] == pytest.approx(temperature)
  monkeypatch.setattr(loop, "calibrate_run", end)
  train([], calibrate=True)  # it has one


def test_a_logged_loss_is_the_mean_of_the_steps_since_the_line_before(train, lines):
  train(9 * [(0.5, 0.1)])
  train(9 * [(0.5, 0.1)], log_every=3, folder="thirds")
  losses = [line["loss"] for line in lines("train")]
  thirds = [line["loss"] for line in lines("train", "thirds")]
  assert [line["step"] for line in lines("train", "thirds")] == [3, 6, 9]
  assert thirds == pytest.approx([sum(losses[first : first + 3]) / 3 for first in (0, 3, 6)], rel=1e-5)


@pytest.mark.parametrize(
  ("scores", "name"), [((float("nan"), 0.1), "loss"), ((0.5, float("inf")), "path_accuracy")], ids=str
)
def test_validation_that_is_not_finite_stops_the_run(train, lines, scores, name):
  message = f"the {name} on validation was not finite at step 2; the last good checkpoint is of step 1"
  with pytest.raises(steps.Diverged, match=message):
    train([(0.5, None), scores])
  assert [line["path_accuracy"] for line in lines("validation")] == [None]


def test_weights_that_are_not_finite_are_not_kept(train, tmp_path):
  """The loss of a step is of the weights before it, and validation, which is given here, says nothing either."""
  with pytest.raises(steps.Diverged, match=r"not finite at step 1\b"):
    train([(0.5, 0.1)] * 9, decay=3e38, name="constant")
  assert not RunFolder(tmp_path / "run").has_checkpoint()


def test_the_plateau_watches_the_accuracy_where_it_is_asked_to_and_a_stopped_run_goes_on_with_it(train, lines):
  """The loss never falls; the accuracy last rises in the third evaluation."""
  settings = dict(name="plateau", monitor="accuracy", patience=2, factor=0.5, min_delta=0.01)
  stop, end = steps.Stopped(15, 4, 9), (float("nan"), 0.0)
  with pytest.raises(steps.Stopped):
    train([(1.0, None), (1.0, 0.1), (2.0, 0.2), (2.0, 0.205), stop], **settings)
  with pytest.raises(steps.Diverged):
    train([(2.0, 0.2), (2.0, 0.2), (2.0, 0.4), (2.0, 0.4), end], **settings)
  rates = [line["lr"] for line in lines("train")]
  assert [rate / rates[0] for rate in rates] == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]


def test_validation_comes_every_eval_every_epochs_and_its_time_is_not_that_of_training(train, lines, monkeypatch):
  """The clock goes on by a second whenever it is read, which a validation does once more than a step without one."""
  ticks = itertools.count()
  monkeypatch.setattr(steps, "ImageRate", functools.partial(ImageRate, clock=lambda: float(next(ticks))))
  with pytest.raises(steps.Diverged):
    train([(0.5, 0.1)] * 4 + [(float("nan"), 0.1)], eval_every=2.0)
  assert [line["step"] for line in lines("validation")] == [2, 4, 6, 8]
  rates = {line["step"]: line["images_per_second"] for line in lines("train")}
  assert rates == {step: 8.0 if step in (3, 5, 7, 9) else 16.0 for step in range(1, 10)}


@pytest.mark.parametrize(
  ("weights", "warmup", "warned"), [("balanced", 9.0, 1), ("balanced", 2.0, 0), ("none", 9.0, 0)]
)
def test_a_warm_up_as_long_as_the_run_is_warned_of_with_balanced_classes(
  weights, warmup, warned, tmp_path, monkeypatch, capsys
):
  c = common.base()
  c.tree.source = c.data.name = "shapes"
  c.data.examples, c.data.resize, c.data.crop, c.batch_size, c.epochs = 16, 16, 16, 16, 9.0
  c.backbone, c.head = dict(name="small_resnet", widths=(4,)), dict(name="flat")
  c.class_weights, c.schedule.name, c.schedule.warmup = weights, "constant", warmup
  monkeypatch.setattr(loop, "_fit", lambda *_: 0)
  monkeypatch.setattr(loop, "finish", lambda *_: {})
  loop.train_and_evaluate(c.to_dict(), str(tmp_path))
  assert capsys.readouterr().out.count("warning: config.schedule.warmup = 9 lasts for all of config.epochs") == warned


def test_training_ends_when_validation_has_not_improved_for_so_long_and_does_not_go_on(train, lines, tmp_path, capsys):
  train([(1.0, 0.1), (1.0, 0.5), (1.0, 0.4), (1.0, 0.4), (1.0, 0.45)], early=3.0)
  assert [line["step"] for line in lines("validation")] == [1, 2, 3, 4, 5]
  assert "validation has not improved for 3 epochs: training ends at step 5" in capsys.readouterr().out
  train([], early=3.0)  # the same command: no step, no validation
  assert [line["step"] for line in lines("validation")] == [1, 2, 3, 4, 5]
  assert RunFolder(tmp_path / "run").evaluation("test")["step"] == 2


def test_a_run_saves_by_the_clock_between_its_checkpoints(train, tmp_path, monkeypatch):
  saved = []
  original = checkpoint.Checkpoints.save
  monkeypatch.setattr(
    checkpoint.Checkpoints, "save", lambda self, step, *rest: saved.append(step) or original(self, step, *rest)
  )
  train([(1.0, 0.5)], eval_every=20.0, minutes=0.0, folder="without")
  assert saved == [9]
  saved.clear()
  train([(1.0, 0.5)], eval_every=20.0, minutes=1e-6)
  assert saved == list(range(1, 10))


def test_a_run_that_goes_on_needs_room_for_its_checkpoints_and_one_that_has_ended_does_not(
  train, tmp_path, monkeypatch
):
  train([(1.0, 0.5)] * 9)
  monkeypatch.setattr(disk, "WAIT_S", 0)
  monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
  train([])
  shutil.rmtree(RunFolder(tmp_path / "run").checkpoints / "9")
  with pytest.raises(UserError, match=r"10 are free.* a run keeps up to 4 checkpoints"):
    train([])
