"""The one training loop. Every method goes through it: methods differ in backbone, neck, head and phases."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from hierjax.config import unpack
from hierjax.data.source import Source, data_checksum
from hierjax.errors import UserError
from hierjax.evaluation.console import print_metrics
from hierjax.evaluation.evaluate import eval_step, evaluate_run, measure_split
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Stages
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints, template
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run, counting_step, judged_split
from hierjax.training import optim
from hierjax.training.init import InitConfig, Weights, start_weights, started
from hierjax.training.log import MetricsLog
from hierjax.training.optim import OptimConfig
from hierjax.training.phases import Phase, PhasesConfig, make_phases
from hierjax.training.signals import StopSignals
from hierjax.training.state import TrainState, init_state
from hierjax.training.step import make_train_step


class Stopped(Exception):
  """A signal ended the run early; the same command goes on with it."""

  def __init__(self, signal: int, step: int, total_steps: int):
    super().__init__(f"stopped at step {step} of {total_steps}: the same command goes on from there")
    self.signal = signal


class Diverged(UserError):
  """The loss, the gradient or a metric on validation was not finite."""


def train_and_evaluate(config: Mapping[str, Any], workdir: str) -> dict[str, Any]:
  """Trains the model of `config` in `workdir`, or goes on where the folder was left, and evaluates it.

  Args:
    config: the resolved config as plain data; see configs/common.py.
    workdir: the run's folder; made if absent.

  Returns:
    The metrics of the split that the run is judged on: test, or validation where the set has no test split; none where
    it has neither, or for no epochs, when the weights that it starts from are kept.

  Raises:
    UserError: the config, the folder or the data cannot be used; the message says why.
    Diverged: the loss was not finite, in training or on validation.
    Stopped: SIGTERM or SIGINT came; a checkpoint was written.
  """
  mesh = devices.data_mesh()
  _say(f"devices: {devices.describe()}")
  run = Run.from_config(config)
  settings, folder = run.config, RunFolder(workdir)
  optim_config = unpack(OptimConfig, settings.optim, "optim")
  init_config = unpack(InitConfig, settings.init, "init")
  devices.check_batch_size(settings.batch_size, mesh, optim_config.accumulate)
  train = run.source("train")
  validation = run.source("validation")
  if train is None or not len(train):
    raise UserError("config.data: the set has no training images")
  if settings.class_weights == "balanced" and run.data.balanced:
    raise UserError("config.class_weights = balanced and config.data.balanced = True: choose one, both balance classes")
  steps_per_epoch = len(train) / settings.batch_size
  total_steps = math.ceil(settings.epochs * len(train) / settings.batch_size)
  schedule, schedule_config = optim.make_schedule(
    settings.schedule,
    peak=optim_config.peak_lr(settings.batch_size),
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
  )
  if schedule_config.name == "plateau" and validation is None:
    raise UserError("config.schedule.name = plateau needs a validation split: set config.data.validation")
  judged = judged_split(run)  # opened now: labels that are not in the tree must show before the first step

  key = jax.random.key(settings.seed)
  make_variables = partial(run.init_variables, key, train.shape)
  shapes = jax.eval_shape(make_variables)
  phases = make_phases(
    unpack(PhasesConfig, settings.phases, "phases"),
    optim_config,
    shapes,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
  )
  whole = devices.replicated(mesh)

  def jitted_step(phase: Phase) -> Any:
    step = make_train_step(
      phase.optimizer,
      schedule,
      preprocess=run.augment,
      key=jax.random.fold_in(key, 1),
      accumulate=optim_config.accumulate,
      weights=run.class_weights(train),
      frozen_parts=phase.frozen_parts,
      frozen_collections=phase.frozen_collections,
    )
    return jax.jit(step, donate_argnums=1, out_shardings=whole)

  train_steps = [jitted_step(phase) for phase in phases.all]
  # While training, validation sees 1 view: 10 would cost 10 times as much.
  validate = eval_step(run.data.transform, Stages(dataclasses.replace(run.options, views=1)))

  goes_on = folder.has_checkpoint()
  if goes_on and counting_step(folder) is None:
    raise UserError(
      f"{folder.checkpoints} holds no whole checkpoint to go on from, and the run does not start anew beside what is "
      "there: remove that folder, or choose another --workdir"
    )
  taken, origin = ({}, "") if goes_on else start_weights(init_config, run, shapes, mesh)
  _begin(folder, config, run, train)
  checkpoints = Checkpoints(folder.checkpoints, select_best=validation is not None, create=True)
  state = _restored_or_new(
    checkpoints, lambda taken: init_state(started(make_variables(), taken), phases.all[-1].optimizer), taken, whole
  )
  del taken  # the state has them
  start = int(state.step)
  if origin:
    _say(origin)
  if start < total_steps:
    _say(_summary(run, len(train), shapes["params"], total_steps, start))
    for remark in run.describe():
      _say(remark)
  log = MetricsLog(folder, start_step=start, total_steps=total_steps, batch_size=settings.batch_size)
  pending: list[jax.Array] = []
  resumed = time.perf_counter()  # images a second are counted from here; evaluation moves it on
  since = start

  batches = run.train_batches(train, start, total_steps - start)
  closing = contextlib.closing
  with closing(folder), closing(log), closing(checkpoints), closing(batches), _stop_signals() as signals:
    for done, examples in enumerate(batches, start + 1):
      train_step = train_steps[phases.at(done - 1)]
      state, metrics = train_step(run.method, state, devices.put_batch(examples, mesh))
      pending.append(metrics["loss"])
      if len(pending) > 2:  # at most two steps in flight: batches must not pile up on the device
        jax.block_until_ready(pending.pop(0))
      log.advance()

      if done % settings.log_every == 0 or done == total_steps:
        _check_finite(state, checkpoints)
        speed = (done - since) * settings.batch_size / (time.perf_counter() - resumed)
        loss = float(state.loss_sum) / int(state.loss_count)
        values = {name: float(value) for name, value in metrics.items()}
        log.write(done, "train", values | {"loss": loss, "images_per_second": speed})
        state = state.replace(**jax.device_put({"loss_sum": np.float32(0), "loss_count": np.int32(0)}, whole))
        resumed, since = time.perf_counter(), done

      scores = None
      if validation is not None and _due(done, settings.eval_every * steps_per_epoch, total_steps):
        _check_finite(state, checkpoints)
        paused = time.perf_counter()
        scores, _ = measure_split(validate, LoadedRun(folder, run, done, state.variables, mesh), validation)
        for name, value in scores.items():
          if not all(map(math.isfinite, jax.tree.leaves(value))):
            raise _diverged(f"the {name} on validation", done, checkpoints)
        log.write(done, "validation", scores)
        if schedule_config.name == "plateau":
          value = _monitored(scores, schedule_config.monitor)
          state = state.replace(plateau=jax.device_put(state.plateau.after(value, schedule_config), whole))
        resumed += time.perf_counter() - paused

      stop = signals.received is not None or checkpoints.told_to_stop(done)
      if scores or stop or _due(done, settings.checkpoint_every * steps_per_epoch, total_steps):
        _check_finite(state, checkpoints)
        if not _all_finite(state.model):
          raise _diverged("a weight", done, checkpoints)
        checkpoints.save(done, state.model, state.training, _headline(scores) if scores else None)
      if stop and done < total_steps:
        raise Stopped(signals.received or 15, done, total_steps)
    if not total_steps and not goes_on:
      checkpoints.save(0, state.model, state.training)

  if not total_steps:
    _say(f"the weights that a run starts from are in {folder.path}; nothing is trained or judged with epochs = 0")
    return {}
  if judged is None:
    _say(f"trained {total_steps} steps in {folder.path}; the set has no test or validation images to judge it on")
    return {}
  found = folder.evaluation(judged)
  wanted = (counting_step(folder), run.options.views)
  if start < total_steps or found is None or (found["step"], found["views"]) != wanted:
    found = evaluate_run(folder, mesh, opened=run.opened)
  if jax.process_index() == 0:
    print_metrics(folder, found)
  return found


def _begin(folder: RunFolder, config: Mapping[str, Any], run: Run, train: Source) -> None:
  """Claims the folder; where that fails on the first process, it fails on all."""
  error: UserError | OSError | None = None
  if jax.process_index() == 0:
    try:
      folder.lock()
      folder.begin(config, run.tree, data_checksum(train))
    except (UserError, OSError) as refused:
      error = refused
  if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(error is not None)) and error is None:
    error = UserError("the first process refuses the folder, and says why")
  if error is not None:
    raise error


def _due(done: int, every: float, total: int) -> bool:
  """Whether a multiple of `every` steps, which need not be whole, was reached with this step, or the end."""
  return done == total or int(done / every) > int((done - 1) / every)


def _check_finite(state: TrainState, checkpoints: Checkpoints) -> None:
  bad_step = int(state.bad_step)
  if bad_step >= 0:
    raise _diverged("the loss or its gradient", bad_step, checkpoints)


@jax.jit
def _all_finite(model: Any) -> jax.Array:
  """Returns whether weights and statistics are finite: the loss of a step is of the weights before it."""
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(model)]).all()


def _diverged(what: str, step: int, checkpoints: Checkpoints) -> Diverged:
  checkpoints.wait()
  last = f"the last good checkpoint is of step {checkpoints.latest}" if checkpoints.latest else "there is no checkpoint"
  return Diverged(
    f"{what} was not finite at step {step}; {last}. "
    "In a new --workdir, try a lower config.optim.lr, epochs of config.schedule.warmup, or config.optim.clip_norm"
  )


def _restored_or_new(checkpoints: Checkpoints, make: Any, taken: Weights, sharding: Any) -> TrainState:
  if checkpoints.latest is None:
    # Random numbers take a CPU's compiler half a second a shape; unoptimised, a tenth, and this runs once.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(make, out_shardings=sharding, compiler_options=options)(taken)
  shapes = template(jax.eval_shape(make, taken), sharding)
  model, training = checkpoints.restore(checkpoints.latest, shapes.model, shapes.training)
  return shapes.replace(**model, **training)


@contextlib.contextmanager
def _stop_signals() -> Iterator[StopSignals]:
  if jax.process_count() > 1:  # jax.distributed listens itself, and tells all processes at one step
    yield StopSignals()
    return
  with StopSignals() as signals:
    yield signals


def _monitored(scores: Mapping[str, Any], monitor: str) -> float:
  """Returns what the plateau watches, lower being better; infinity where nothing counted."""
  found = scores["loss"] if monitor == "loss" else _headline(scores)
  if found is None:
    return math.inf
  return found if monitor == "loss" else 1 - found


def _headline(scores: Mapping[str, Any]) -> float | None:
  """Returns the metric by which the best weights are chosen."""
  found: float | None = scores["path_accuracy" if "path_accuracy" in scores else "path_f1"]
  return found


def _summary(run: Run, num_images: int, params: Any, total_steps: int, start: int) -> str:
  count = sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))
  verb = f"going on at step {start} of" if start else "training for"
  return (
    f"{num_images:,} images, {len(run.tree.leaves)} leaves on {run.tree.depth} levels, "
    f"{count:,} weights; {verb} {total_steps} steps of {run.config.batch_size}"
  )


def _say(text: str) -> None:
  if jax.process_index() == 0:
    print(text, flush=True)
