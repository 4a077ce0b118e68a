"""A training run of any method, from its config to its evaluation: set-up, steps, end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from hierjax.data.open_source import Opened
from hierjax.evaluation.choosing.temperature import calibrate_run
from hierjax.evaluation.console import print_metrics
from hierjax.evaluation.evaluate import evaluate_run
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints, template
from hierjax.runs.choices import kept_temperatures
from hierjax.runs.folder import RunFolder
from hierjax.runs.peers import watched
from hierjax.runs.processes import say
from hierjax.runs.provenance import session
from hierjax.runs.run import counting_step
from hierjax.training.initial.extend import Weights
from hierjax.training.initial.from_weights import config_of_run
from hierjax.training.initial.weights import start_weights, started
from hierjax.training.loop.frozen import on_frozen_features
from hierjax.training.loop.setup import Training, set_up
from hierjax.training.loop.signals import stop_signals
from hierjax.training.loop.start import check_processes, claim, restored_or_new
from hierjax.training.loop.steps import Steps
from hierjax.training.state import TrainState, init_state


@runtime_checkable
class Evaluate(Protocol):
  """The evaluation of a trained run, such as `evaluate_run`."""

  def __call__(self, folder: RunFolder, mesh: Mesh, *, opened: Opened) -> dict[str, Any]:
    """Returns the metrics, which it has written.

    Args:
      folder: the run's.
      mesh: the devices.
      opened: `Run.opened` of the run.
    """
    ...


def train_and_evaluate(
  config: Mapping[str, Any], workdir: str, evaluate: Evaluate = evaluate_run, opened_set: Opened | None = None
) -> dict[str, Any]:
  """Trains the model of `config` in `workdir`, or resumes the run that is there, and evaluates it.

  Args:
    config: the resolved config as plain data; see configs/common.py.
    workdir: the run's folder; made if absent.
    evaluate: the evaluation at the end.
    opened_set: `opened` of `set_up`.

  Returns:
    The metrics of the test split, or of validation where the data set has no test split; {} where it has neither. With
    `epochs = 0` the initial weights are saved, and the result is {} too.

  Raises:
    UserError: the config, the folder or the data cannot be used; the message gives the reason.
    Diverged: the loss was not finite, in training or on validation.
    Stopped: the process received SIGTERM, SIGINT, SIGHUP or SIGUSR1; a checkpoint was written.
  """
  config, lines = config_of_run(config, RunFolder(workdir))
  say("\n".join([f"devices: {devices.devices_in_use()}", *lines]))
  check_processes(config, RunFolder(workdir))
  training = set_up(config, workdir, opened_set)
  first_step = _fit(training, config)
  devices.return_memory()
  with watched(training.folder):
    return finish(training, first_step, evaluate)


# Fit.


def _fit(training: Training, config: Mapping[str, Any]) -> int:
  """Opens the run's folder, takes the steps that are left, and returns the number of steps that were done before."""
  with opened(training, config) as steps:
    take_steps(steps)
  return steps.start


def take_steps(steps: Steps) -> None:
  """Takes the steps of a run that are left."""
  with contextlib.closing(steps.batches()) as batches, stop_signals() as signals:
    for done, examples in enumerate(() if steps.ended_early(steps.start) else batches, steps.start + 1):
      steps.take(done, examples, signals)
      if steps.ends(done):
        break


@contextlib.contextmanager
def opened(training: Training, config: Mapping[str, Any], together: int = 1) -> Iterator[Steps]:
  """Opens a run's folder, and yields the steps that are left; features of a frozen backbone take the images' place.

  Args:
    training: the run.
    config: of the run, as plain data.
    together: the number of runs that one program trains.

  Raises:
    UserError: the folder cannot be used, or not by this run; or as `start_weights`.
  """
  folder, total_steps = training.folder, training.length.total_steps
  resumes = folder.has_checkpoint()
  if resumes:
    counting_step(folder)  # raises where all are damaged: the run does not start anew beside them
  closing = contextlib.closing
  with contextlib.ExitStack() as stack:
    stack.enter_context(closing(folder))
    shapes, mesh = training.run.variable_shapes, training.layout.mesh
    taken, origin = ({}, "") if resumes else start_weights(training.init, training.run, shapes, mesh)
    claim(folder, config, training.run, training.train)
    stack.enter_context(watched(folder))
    state, checkpoints = _begun(training, taken, origin)
    stack.enter_context(closing(checkpoints))
    start = int(state.step)
    if start < total_steps:
      stack.enter_context(session(folder, start, together))
      loaded = LoadedRun(folder, training.run, start, training.layout.gathered(state), training.layout.mesh)
      train, validation = on_frozen_features(loaded, training.train, training.validation)
      training = dataclasses.replace(training, train=train, validation=validation)
    steps = Steps(training, state, checkpoints, config)
    stack.enter_context(closing(steps.log))
    yield steps
    if not total_steps and not resumes:
      checkpoints.save(0, state.model, state.training)


def _begun(training: Training, taken: Weights, origin: str) -> tuple[TrainState, Checkpoints]:
  """Returns the state that the run starts from, with weights that are taken, or resumes from, and its checkpoints."""
  run, folder, layout = training.run, training.folder, training.layout
  checkpoints = Checkpoints(folder.checkpoints, select_best=training.validation is not None, create=True)
  optimizer = training.phases.all[-1].optimizer

  def make(key: PRNGKeyArray, taken: Weights) -> TrainState:
    return init_state(started(run.init_variables(key, training.train.shape), taken), optimizer)

  def fresh() -> TrainState:
    # Random numbers take a CPU's compiler half a second a shape; unoptimised, a tenth, and this runs once.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(make, out_shardings=layout.state, compiler_options=options)(training.key, taken)

  shapes = jax.eval_shape(lambda: init_state(run.variable_shapes, optimizer))
  state = restored_or_new(checkpoints, template(shapes, layout.state), fresh)
  if origin:
    say(origin)
  if int(state.step) < training.length.total_steps or checkpoints.latest is None:  # it will save
    checkpoints.check_room_for((shapes.model, shapes.training))
  if int(state.step) < training.length.total_steps:
    say(_summary(training, state.params, int(state.step)))
    for remark in run.describe():
      say(remark)
  return state, checkpoints


def _summary(training: Training, params: Any, start: int) -> str:
  run, images, batch = training.run, len(training.train), training.run.config.batch_size
  count = sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))
  verb = f"going on at step {start} of" if start else "training for"
  return (
    f"{images:,} images, {len(run.tree.leaves)} leaves on {run.tree.depth} levels, {count:,} weights; batches of "
    f"{batch}, {verb} {training.length.in_words(images / batch)}"
  )


# Finish.


def finish(training: Training, first_step: int, evaluate: Evaluate = evaluate_run) -> dict[str, Any]:
  """Evaluates the run, unless its folder holds the evaluation of its best checkpoint already; prints the accuracy."""
  run, folder, total_steps = training.run, training.folder, training.length.total_steps
  if not total_steps:
    say(f"the initial weights are in {folder.path}; with epochs = 0 the run is neither trained nor evaluated")
    return {}
  step, mesh = counting_step(folder), training.layout.mesh
  fitted = None if step in kept_temperatures(folder) else calibrate_run(run, folder, mesh)
  if fitted:
    say(str(fitted))
  if training.judged is None:
    say(f"trained {total_steps} steps in {folder.path}; the set has no test or validation images to evaluate on")
    return {}
  found = folder.evaluation(folder.evaluation_name(training.judged, training.judged, run.images_of(training.judged)))
  new = fitted is not None or first_step < total_steps
  if new or found is None or (found["step"], found["views"]) != (step, run.options.views):
    found = evaluate(folder, mesh, opened=run.opened)
  if jax.process_index() == 0:
    print_metrics(folder, found)
  return found
