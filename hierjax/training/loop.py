"""The training loop of every method, in three parts: set up, fit, finish."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from hierjax.config import unpack
from hierjax.data.source import Source
from hierjax.data.summary import summarize
from hierjax.errors import UserError
from hierjax.evaluation.choosing.temperature import calibrate_run
from hierjax.evaluation.console import print_metrics
from hierjax.evaluation.evaluate import eval_step, evaluate_run, measure_split
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Stages
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.choices import kept_temperatures
from hierjax.runs.estimate import Estimate
from hierjax.runs.folder import RunFolder
from hierjax.runs.peers import watched
from hierjax.runs.provenance import session
from hierjax.runs.run import Run, counting_step, judged_split
from hierjax.training.frozen import check_frozen, on_frozen_features
from hierjax.training.initial.extend import Weights
from hierjax.training.initial.from_weights import config_of_run
from hierjax.training.initial.weights import InitConfig, start_weights, started
from hierjax.training.logs.console import Progress
from hierjax.training.logs.loggers import check_loggers
from hierjax.training.logs.metrics_log import ImageRate, MetricsLog
from hierjax.training.minutes import Minutes
from hierjax.training.optim import OptimConfig
from hierjax.training.phases import Phases, PhasesConfig, make_phases
from hierjax.training.schedule import RunLength, ScheduleConfig, make_schedule
from hierjax.training.sharding import Layout, ShardingConfig, layout_of
from hierjax.training.signals import StopSignals, stop_signals
from hierjax.training.start import check_processes, claim, restored_or_new
from hierjax.training.state import TrainState, all_finite, init_state
from hierjax.training.step import StepSettings, TrainStep, make_train_step, parts_of_norms
from hierjax.types import Examples, Variables


class Stopped(Exception):
  """A signal stopped the run before its last step; the same command resumes it."""

  def __init__(self, signal: int, step: int, total_steps: int):
    super().__init__(f"stopped at step {step} of {total_steps}: the same command resumes the run from there")
    self.signal = signal


class Diverged(UserError):
  """The loss, its gradient, a weight or a metric on validation was not finite."""


def train_and_evaluate(config: Mapping[str, Any], workdir: str) -> dict[str, Any]:
  """Trains the model of `config` in `workdir`, or resumes the run that is there, and evaluates it.

  Args:
    config: the resolved config as plain data; see configs/common.py.
    workdir: the run's folder; made if absent.

  Returns:
    The metrics of the test split, or of validation where the data set has no test split; {} where it has neither. With
    `epochs = 0` the initial weights are saved, and the result is {} too.

  Raises:
    UserError: the config, the folder or the data cannot be used; the message gives the reason.
    Diverged: the loss was not finite, in training or on validation.
    Stopped: the process received SIGTERM, SIGINT, SIGHUP or SIGUSR1; a checkpoint was written.
  """
  config, lines = config_of_run(config, RunFolder(workdir))
  _say("\n".join([f"devices: {devices.devices_in_use()}", *lines]))
  check_processes(config, RunFolder(workdir))
  training = _set_up(config, workdir)
  first_step = _fit(training, config)
  devices.return_memory()
  with watched(training.folder):
    return _finish(training, first_step)


@dataclasses.dataclass(frozen=True)
class _Training:
  """A run that is set up, before its folder is opened.

  Attributes:
    run: the data, tree and model of the config.
    folder: the run's folder.
    layout: where the weights lie on the devices.
    init: the section `init` of the config.
    schedule: the section `schedule` of the config.
    train: the training images.
    validation: the validation images; None where there are none.
    judged: the split that is evaluated after training; None where there is none.
    length: of the run.
    make_variables: returns fresh variables; jittable.
    phases: of the run.
    train_steps: the jitted step of each phase.
  """

  run: Run
  folder: RunFolder
  layout: Layout
  init: InitConfig
  schedule: ScheduleConfig
  train: Source
  validation: Source | None
  judged: str | None
  length: RunLength
  make_variables: Callable[[], Variables]
  phases: Phases
  train_steps: list[TrainStep]


# Set up.


def _set_up(config: Mapping[str, Any], workdir: str) -> _Training:
  run = Run.from_config(config)
  settings = run.config
  sharding = unpack(ShardingConfig, settings.sharding or {}, "sharding")
  optim_config = unpack(OptimConfig, settings.optim, "optim")
  init_config = unpack(InitConfig, settings.init, "init")
  check_loggers(settings.loggers)
  devices.check_batch_size(settings.batch_size, sharding.mesh(), optim_config.accumulate)
  if run.data.name == "folder":
    understood = summarize(run.data, run.tree_config)
    _say("\n".join([*understood.lines(), *understood.gravest()]))
  train, validation = _sources(run)
  run = run.learning_ends(train)
  length = RunLength.of(len(train) / settings.batch_size, settings.epochs, (settings.least_steps, settings.most_steps))
  schedule, schedule_config = make_schedule(settings.schedule, optim_config.peak_lr(settings.batch_size), length)
  if settings.class_weights == "balanced" and schedule_config.warmup >= settings.epochs > 0:
    _say(
      f"warning: config.schedule.warmup = {schedule_config.warmup:g} lasts for all of config.epochs: little is learnt"
    )
  if schedule_config.name == "plateau" and validation is None:
    raise UserError("config.schedule.name = plateau needs a validation split: set config.data.validation")
  judged = judged_split(run)  # opened now: labels that are not in the tree must show before the first step

  key = jax.random.key(settings.seed)
  make_variables = partial(run.init_variables, key, train.shape)
  phases_config = unpack(PhasesConfig, settings.phases, "phases")
  shapes = jax.eval_shape(make_variables)
  phases = make_phases(phases_config, optim_config, shapes, length)
  layout = layout_of(sharding, run.method, shapes, phases.all[-1].optimizer)
  parted = parts_of_norms(phases.all[-1], optim_config.accumulate, settings.batch_size, shapes)
  _say("\n".join([*layout.lines, *check_frozen(run, phases, shapes), *parted]))
  step_settings = StepSettings(
    schedule,
    preprocess=run.augment,
    key=jax.random.fold_in(key, 1),
    accumulate=optim_config.accumulate,
    weights=run.class_weights(train),
    layout=layout,
  )
  return _Training(
    run=dataclasses.replace(run, method=layout.reading(run.method)),
    folder=RunFolder(workdir),
    layout=layout,
    init=init_config,
    schedule=schedule_config,
    train=train,
    validation=validation,
    judged=judged,
    length=length,
    make_variables=make_variables,
    phases=phases,
    train_steps=[
      jax.jit(make_train_step(p, step_settings), donate_argnums=1, out_shardings=layout.of_step) for p in phases.all
    ],
  )


def _sources(run: Run) -> tuple[Source, Source | None]:
  """Returns the images to train and to validate on."""
  train, validation = run.source("train"), run.source("validation")
  if train is None or not len(train):
    raise UserError("config.data: the set has no training images")
  if run.config.class_weights == "balanced" and run.data.balanced:
    raise UserError("config.class_weights = balanced and config.data.balanced = True: choose one, both balance classes")
  return train, validation


# Fit.


def _fit(training: _Training, config: Mapping[str, Any]) -> int:
  """Opens the run's folder, takes the steps that are left, and returns the number of steps that were done before."""
  folder, total_steps = training.folder, training.length.total_steps
  resumes = folder.has_checkpoint()
  if resumes:
    counting_step(folder)  # raises where all are damaged: the run does not start anew beside them
  closing = contextlib.closing
  with contextlib.ExitStack() as stack:
    stack.enter_context(closing(folder))
    shapes = jax.eval_shape(training.make_variables)
    taken, origin = ({}, "") if resumes else start_weights(training.init, training.run, shapes, training.layout.mesh)
    claim(folder, config, training.run, training.train)
    stack.enter_context(watched(folder))
    state, checkpoints = _opened(training, taken, origin)
    stack.enter_context(closing(checkpoints))
    start = int(state.step)
    if start < total_steps:
      stack.enter_context(session(folder, start))
      loaded = LoadedRun(folder, training.run, start, training.layout.gathered(state), training.layout.mesh)
      train, validation = on_frozen_features(loaded, training.train, training.validation)
      training = dataclasses.replace(training, train=train, validation=validation)
    steps = _Steps(training, state, checkpoints, config)
    stack.enter_context(closing(steps.log))
    batches = stack.enter_context(closing(training.run.train_batches(training.train, start, total_steps - start)))
    signals = stack.enter_context(stop_signals())
    for done, examples in enumerate(() if steps.ended_early(start) else batches, start + 1):
      steps.take(done, examples, signals)
      if steps.ended_early(done):
        _say(f"validation has not improved for {training.run.config.patience:g} epochs: training ends at step {done}")
        break
    if not total_steps and not resumes:
      steps.checkpoints.save(0, steps.state.model, steps.state.training)
  return start


def _opened(training: _Training, taken: Weights, origin: str) -> tuple[TrainState, Checkpoints]:
  """Returns the state that the run starts from, with weights that are taken, or resumes from, and its checkpoints."""
  run, folder, layout = training.run, training.folder, training.layout
  checkpoints = Checkpoints(folder.checkpoints, select_best=training.validation is not None, create=True)
  optimizer = training.phases.all[-1].optimizer
  state = restored_or_new(
    checkpoints, lambda taken: init_state(started(training.make_variables(), taken), optimizer), taken, layout.state
  )
  if origin:
    _say(origin)
  if int(state.step) < training.length.total_steps:
    _say(_summary(training, state.params, int(state.step)))
    for remark in run.describe():
      _say(remark)
  return state, checkpoints


class _Steps:
  """The steps of a run, each with the log line, the validation and the checkpoint that are due after it."""

  def __init__(self, training: _Training, state: TrainState, checkpoints: Checkpoints, config: Mapping[str, Any]):
    self._training, self.state, self.checkpoints = training, state, checkpoints
    length, batch_size, start = training.length, training.run.config.batch_size, int(state.step)
    progress = Progress(length.total_steps, batch_size, start, length.steps_per_epoch)
    self.log = MetricsLog(training.folder, progress, training.run.config.loggers, config)
    self._rate = ImageRate(batch_size, start)
    self._whole = training.layout.whole
    # While training, validation uses 1 view: 10 would cost 10 times as much.
    options = dataclasses.replace(training.run.options, views=1)
    further = tuple(training.run.config.metrics)
    self._validation_step = eval_step(training.run.data.transform, Stages(options), metrics=further)
    self._minutes = Minutes(training.run.config.checkpoint_minutes)
    self._pending: list[jax.Array] = []
    self._estimate = Estimate(f"training for {length.total_steps:,} steps", length.total_steps - start)

  def take(self, done: int, examples: Examples, signals: StopSignals) -> None:
    """Takes step `done` of the run; raises Stopped after the checkpoint if the process received a signal."""
    settings, length = self._training.run.config, self._training.length
    metrics = self._train(done, examples)
    if done % settings.log_every == 0 or done == length.total_steps:
      self._log(done, metrics)
    scores = None
    if self._training.validation is not None and length.due(done, settings.eval_every):
      with self._rate.paused():
        scores = self._validate(done, self._training.validation)
    stop = signals.received is not None or self.checkpoints.should_stop(done)
    if scores or stop or length.due(done, settings.checkpoint_every) or self._minutes.due(done):
      self._save(done, _headline(scores) if scores else None)
    if stop and done < length.total_steps:
      raise Stopped(signals.received or 15, done, length.total_steps)

  def _train(self, done: int, examples: Examples) -> Mapping[str, jax.Array]:
    train_step = self._training.train_steps[self._training.phases.at(done - 1)]
    batch = devices.put_batch(examples, self._training.layout.mesh)
    self.state, metrics = train_step(self._training.run.method, self.state, batch)
    self._pending.append(metrics["loss"])
    if len(self._pending) > 2:  # at most two steps in flight: batches must not pile up on the device
      jax.block_until_ready(self._pending.pop(0))
    self.log.advance()
    if jax.process_index() == 0:
      self._estimate.count(1)
    return metrics

  def ended_early(self, done: int) -> bool:
    """Returns whether validation has not improved for `config.patience` epochs."""
    patience = self._training.run.config.patience * self._training.length.steps_per_epoch
    if not patience or self._training.validation is None:
      return False
    best = self.checkpoints.best
    return best is not None and done - best >= patience

  def _log(self, done: int, metrics: Mapping[str, jax.Array]) -> None:
    self._check_finite()
    values = {"loss": float(self.state.loss_sum) / int(self.state.loss_count)}
    values["images_per_second"] = self._rate.per_second(done)
    self.log.write(done, "train", {name: float(value) for name, value in metrics.items()} | values)
    zeros = {"loss_sum": np.float32(0), "loss_count": np.int32(0)}
    self.state = dataclasses.replace(self.state, **jax.device_put(zeros, self._whole))
    self._rate.restart(done)

  def _validate(self, done: int, validation: Source) -> dict[str, Any]:
    self._check_finite()
    training, layout = self._training, self._training.layout
    loaded = LoadedRun(training.folder, training.run, done, layout.gathered(self.state), layout.mesh)
    devices.return_memory()
    scores, _ = measure_split(self._validation_step, loaded, validation)
    devices.return_memory()
    for name, value in scores.items():
      if not all(map(math.isfinite, jax.tree.leaves(value))):
        raise _diverged(f"the {name} on validation", done, self.checkpoints)
    self.log.write(done, "validation", scores)
    schedule = self._training.schedule
    if schedule.name == "plateau":
      plateau = self.state.plateau.after(_monitored(scores, schedule.monitor), schedule)
      self.state = dataclasses.replace(self.state, plateau=jax.device_put(plateau, self._whole))
    return scores

  def _save(self, done: int, score: float | None) -> None:
    self._check_finite()
    if not all_finite(self.state.model):
      raise _diverged("a weight", done, self.checkpoints)
    self.checkpoints.save(done, self.state.model, self.state.training, score)
    self._minutes.restart()

  def _check_finite(self) -> None:
    bad_step = int(self.state.bad_step)
    if bad_step >= 0:
      raise _diverged("the loss or its gradient", bad_step, self.checkpoints)


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


def _summary(training: _Training, params: Any, start: int) -> str:
  run, images, batch = training.run, len(training.train), training.run.config.batch_size
  count = sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))
  verb = f"going on at step {start} of" if start else "training for"
  return (
    f"{images:,} images, {len(run.tree.leaves)} leaves on {run.tree.depth} levels, {count:,} weights; batches of "
    f"{batch}, {verb} {training.length.in_words(images / batch)}"
  )


# Finish.


def _finish(training: _Training, first_step: int) -> dict[str, Any]:
  """Evaluates the run, unless its folder holds the evaluation of its best checkpoint already; prints the accuracy."""
  run, folder, total_steps = training.run, training.folder, training.length.total_steps
  if not total_steps:
    _say(f"the initial weights are in {folder.path}; with epochs = 0 the run is neither trained nor evaluated")
    return {}
  step, mesh = counting_step(folder), training.layout.mesh
  fitted = None if step in kept_temperatures(folder) else calibrate_run(run, folder, mesh)
  if fitted:
    _say(str(fitted))
  if training.judged is None:
    _say(f"trained {total_steps} steps in {folder.path}; the set has no test or validation images to evaluate on")
    return {}
  found = folder.evaluation(folder.evaluation_name(training.judged, training.judged, run.images_of(training.judged)))
  new = fitted is not None or first_step < total_steps
  if new or found is None or (found["step"], found["views"]) != (step, run.options.views):
    found = evaluate_run(folder, mesh, opened=run.opened)
  if jax.process_index() == 0:
    print_metrics(folder, found)
  return found


def _say(text: str) -> None:
  if jax.process_index() == 0:
    print(text, flush=True)
