"""The progress of training on the console."""

import io
import sys

import pytest

from hierjax.runs.folder import RunFolder
from hierjax.training.logs.console import Console, Progress
from hierjax.training.logs.metrics_log import MetricsLog

PROGRESS = Progress(total_steps=100, batch_size=8, steps_per_epoch=40.0)


class Clock:
  def __init__(self):
    self.now = 50.0

  def __call__(self):
    return self.now


def test_without_a_terminal_there_is_a_line_every_10_seconds_and_each_validation(capsys):
  clock = Clock()
  console = Console(PROGRESS, clock=clock)
  for step in range(1, 101):
    clock.now += 0.5
    console.advance()
    console.write(step, "train", {"loss": 1 / step, "lr": 0.1})
    if step in (40, 80):
      console.write(step, "validation", {"path_accuracy": 0.9 - step / 200, "loss": 0.5})
  console.close()
  lines = capsys.readouterr().out.splitlines()
  assert [int(line.split()[1]) for line in lines if "train:" in line] == [1, 21, 41, 61, 81, 100]
  assert [int(line.split()[1]) for line in lines if "validation:" in line] == [40, 80]
  assert lines[1].startswith("step 21 (epoch 0.5 of 2.5, 40 seconds left)  train: loss 0.04762  lr 0.1")
  assert lines[-1].startswith("step 100 (epoch 2.5 of 2.5)  train:")
  assert "best" not in lines[1] and all(line.endswith("best path accuracy 70.00%") for line in lines[2:])


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_the_bar_has_epoch_time_left_loss_and_best_metric(monkeypatch, capsys):
  terminal = Terminal()
  monkeypatch.setattr(sys, "stderr", terminal)
  console = Console(PROGRESS)
  for _ in range(60):
    console.advance()
  console.write(60, "validation", {"path_f1": 0.5, "loss": 0.5})
  console.write(60, "train", {"loss": 0.25})
  console.close()
  shown = terminal.getvalue()
  assert "epoch 1.5 of 2.5:  60%" in shown and "480/800" in shown and "<00:0" in shown
  assert "loss 0.250  best path F1 50.00%" in shown
  assert "train" not in capsys.readouterr().out


def test_a_resumed_run_knows_the_best_metric_of_before(tmp_path, capsys):
  folder = RunFolder(tmp_path)
  for start, scores in ((0, [(10, 0.5), (20, 0.75), (30, 0.9)]), (20, [(30, 0.6)])):
    log = MetricsLog(folder, Progress(100, 8, start))
    for step, score in scores:
      log.write(step, "validation", {"path_accuracy": score})
    log.close()
  assert capsys.readouterr().out.splitlines()[-1].endswith("best path accuracy 75.00%")  # step 30 was cut off


@pytest.mark.parametrize(
  ("steps", "per_epoch", "text"), [(100, 25.0, "epoch 1.0 of 4"), (33, 25.0, "epoch 1.0 of 1.3")]
)
def test_epochs_are_whole_or_have_a_digit(steps, per_epoch, text):
  assert Progress(steps, 8, 0, per_epoch).epoch(25) == text
