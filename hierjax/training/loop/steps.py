"""The steps of a run: each with the log line, the validation and the checkpoint that are due after it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.evaluate import eval_step, measure_split
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Stages
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.estimate import Estimate
from hierjax.runs.processes import say
from hierjax.training.logs.console import Progress
from hierjax.training.logs.metrics_log import ImageRate, MetricsLog
from hierjax.training.loop.minutes import Minutes
from hierjax.training.loop.setup import Training
from hierjax.training.loop.signals import StopSignals
from hierjax.training.state import TrainState, all_finite
from hierjax.training.step import make_train_step
from hierjax.types import Examples


class Stopped(Exception):
  """A signal stopped the run before its last step; the same command resumes it."""

  def __init__(self, signal: int, step: int, total_steps: int):
    super().__init__(f"stopped at step {step} of {total_steps}: the same command resumes the run from there")
    self.signal = signal


class Diverged(UserError):
  """The loss, its gradient, a weight or a metric on validation was not finite."""


class Due(NamedTuple):
  """What is due after a step.

  Attributes:
    log: a line of the log.
    validation: a validation.
    save: a checkpoint.
  """

  log: bool
  validation: bool
  save: bool


class Steps:
  """The steps of a run, each with the log line, the validation and the checkpoint that are due after it.

  Attributes:
    training: the run.
    start: the number of steps that were done before.
    state: after the newest step.
    checkpoints: of the run.
    log: of the run's metrics.
    rate: of training images.
  """

  def __init__(self, training: Training, state: TrainState, checkpoints: Checkpoints, config: Mapping[str, Any]):
    self._label = training.label
    self.training, self.state, self.checkpoints, self.start = training, state, checkpoints, int(state.step)
    length, batch_size = training.length, training.run.config.batch_size
    progress = Progress(length.total_steps, batch_size, self.start, length.steps_per_epoch)
    self.log = MetricsLog(training.folder, progress, training.run.config.loggers, config)
    self.rate = ImageRate(batch_size, self.start)
    layout = training.layout
    self._train_steps = [
      jax.jit(make_train_step(phase, training.step_settings), donate_argnums=1, out_shardings=layout.of_step)
      for phase in training.phases.all
    ]
    # While training, validation uses 1 view: 10 would cost 10 times as much.
    options = dataclasses.replace(training.run.options, views=1)
    further = tuple(training.run.config.metrics)
    self._validation_step = eval_step(training.run.data.transform, Stages(options), metrics=further)
    self._minutes = Minutes(training.run.config.checkpoint_minutes)
    self._pending: list[jax.Array] = []
    self._estimate = Estimate(f"training for {length.total_steps:,} steps", length.total_steps - self.start)

  def batches(self) -> Generator[Examples, None, None]:
    """Returns the batches of the steps that are left."""
    left = self.training.length.total_steps - self.start
    return self.training.run.train_batches(self.training.train, self.start, left)

  def take(self, done: int, examples: Examples, signals: StopSignals) -> None:
    """Takes step `done` of the run; raises Stopped after the checkpoint if the process received a signal."""
    train_step = self._train_steps[self.training.phases.at(done - 1)]
    batch = devices.put_batch(examples, self.training.layout.mesh)
    self.state, metrics = train_step(self.training.run.method, self.state, batch)
    self.count(metrics["loss"])
    self.after(done, metrics, self.due(done), lambda: self.stop(done, signals))

  def count(self, loss: jax.Array) -> None:
    """Counts a step, given its loss, and waits for the one two steps before: batches must not pile up on the device."""
    self._pending.append(loss)
    if len(self._pending) > 2:
      jax.block_until_ready(self._pending.pop(0))
    self.log.advance()
    if jax.process_index() == 0:
      self._estimate.count(1)

  def due(self, done: int) -> Due:
    """Returns what is due after step `done`."""
    settings, length = self.training.run.config, self.training.length
    validation = self.training.validation is not None and length.due(done, settings.eval_every)
    save = validation or length.due(done, settings.checkpoint_every) or self._minutes.due(done)
    return Due(done % settings.log_every == 0 or done == length.total_steps, validation, save)

  def stop(self, done: int, signals: StopSignals) -> int:
    """Returns the number of the signal that stops the run after step `done`; 0 for none."""
    received = signals.received is not None or self.checkpoints.should_stop(done)
    return (signals.received or 15) if received else 0

  def after(self, done: int, metrics: Mapping[str, jax.Array], due: Due, stop: Callable[[], int]) -> None:
    """Does what is due after step `done`; raises as `take` where `stop`, asked after validation, is a signal."""
    if due.log:
      self._log(done, metrics)
    scores = None
    if due.validation and self.training.validation is not None:
      with self.rate.paused():
        scores = self._validate(done, self.training.validation)
    signal = stop()
    if due.save or signal:
      self._save(done, _headline(scores) if scores else None)
    if signal and done < self.training.length.total_steps:
      raise Stopped(signal, done, self.training.length.total_steps)

  def ends(self, done: int) -> bool:
    """Returns `ended_early`, and says so."""
    if not self.ended_early(done):
      return False
    epochs = self.training.run.config.patience
    say(f"{self._label}validation has not improved for {epochs:g} epochs: training ends at step {done}")
    return True

  def ended_early(self, done: int) -> bool:
    """Returns whether validation has not improved for `config.patience` epochs."""
    patience = self.training.run.config.patience * self.training.length.steps_per_epoch
    if not patience or self.training.validation is None:
      return False
    best = self.checkpoints.best
    return best is not None and done - best >= patience

  def _log(self, done: int, metrics: Mapping[str, jax.Array]) -> None:
    self._check_finite()
    values = {"loss": float(self.state.loss_sum) / int(self.state.loss_count)}
    values["images_per_second"] = self.rate.per_second(done)
    self.log.write(done, "train", {name: float(value) for name, value in metrics.items()} | values)
    zeros = {"loss_sum": np.float32(0), "loss_count": np.int32(0)}
    self.state = dataclasses.replace(self.state, **jax.device_put(zeros, self.training.layout.whole))
    self.rate.restart(done)

  def _validate(self, done: int, validation: Source) -> dict[str, Any]:
    self._check_finite()
    training, layout = self.training, self.training.layout
    loaded = LoadedRun(training.folder, training.run, done, layout.gathered(self.state), layout.mesh)
    devices.return_memory()
    scores, _ = measure_split(self._validation_step, loaded, validation)
    devices.return_memory()
    for name, value in scores.items():
      if not all(map(math.isfinite, jax.tree.leaves(value))):
        raise _diverged(f"{self._label}the {name} on validation", done, self.checkpoints)
    self.log.write(done, "validation", scores)
    schedule = self.training.schedule
    if schedule.name == "plateau":
      plateau = self.state.plateau.after(_monitored(scores, schedule.monitor), schedule)
      self.state = dataclasses.replace(self.state, plateau=jax.device_put(plateau, self.training.layout.whole))
    return scores

  def _save(self, done: int, score: float | None) -> None:
    self._check_finite()
    if not all_finite(self.state.model):
      raise _diverged(f"{self._label}a weight", done, self.checkpoints)
    self.checkpoints.save(done, self.state.model, self.state.training, score)
    self._minutes.restart()

  def _check_finite(self) -> None:
    bad_step = int(self.state.bad_step)
    if bad_step >= 0:
      raise _diverged(f"{self._label}the loss or its gradient", bad_step, self.checkpoints)


def _diverged(what: str, step: int, checkpoints: Checkpoints) -> Diverged:
  checkpoints.wait()
  last = f"the last good checkpoint is of step {checkpoints.latest}" if checkpoints.latest else "there is no checkpoint"
  return Diverged(
    f"{what} was not finite at step {step}; {last}. "
    "In a new --workdir, try a lower config.optim.lr, epochs of config.schedule.warmup, or config.optim.clip_norm"
  )


def _monitored(scores: Mapping[str, Any], monitor: str) -> float:
  """Returns the value that the plateau watches, lower being better; infinity where no example counted."""
  found = scores["loss"] if monitor == "loss" else _headline(scores)
  if found is None:
    return math.inf
  return found if monitor == "loss" else 1 - found


def _headline(scores: Mapping[str, Any]) -> float | None:
  """Returns the metric by which the best weights are chosen."""
  found: float | None = scores["path_accuracy" if "path_accuracy" in scores else "path_f1"]
  return found
