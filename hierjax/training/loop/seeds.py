"""Runs of one config with several seeds, trained in one program: `jax.vmap` over their states and batches.

On features that are kept, a step of one head is so small that most of its time is not arithmetic; a step of five takes
little longer. Each run has its own folder, in which all is as if it had been trained alone, but for rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.processes import say
from hierjax.training.initial.from_weights import config_of_run
from hierjax.training.loop.run import finish, opened
from hierjax.training.loop.setup import Training, set_up
from hierjax.training.loop.signals import StopSignals, stop_signals
from hierjax.training.loop.steps import Steps, Stopped
from hierjax.training.phases import Phase
from hierjax.training.state import TrainState
from hierjax.training.step import TrainStep, make_train_step
from hierjax.types import Examples, Method


def fits(config: Mapping[str, Any]) -> bool:
  """Returns whether runs of a config are trained together: on kept features, by one process, with whole weights."""
  return bool(config["frozen"]["keep"]) and jax.process_count() == 1 and not config["sharding"]["rules"]


def train_seeds(config: Mapping[str, Any], workdirs: Mapping[int, str]) -> None:
  """Trains and evaluates runs that differ in nothing but the seed; those that stopped at one step go on together.

  Args:
    config: of the runs, as plain data; its seed is not read.
    workdirs: the folder of each seed.

  Raises:
    UserError: as `train_and_evaluate`; or the runs have not stopped at the same step.
    Diverged: one of the runs diverged.
    Stopped: the process received a signal; a checkpoint of each run was written.
  """
  seeds = list(workdirs)
  config, lines = config_of_run({**config, "seed": seeds[0]}, RunFolder(workdirs[seeds[0]]))
  say("\n".join([f"devices: {devices.devices_in_use()}", *lines]))
  first = set_up(config, workdirs[seeds[0]])
  runs = [first, *(_without_console(first.with_seed(seed, workdirs[seed])) for seed in seeds[1:])]
  with contextlib.ExitStack() as stack:
    steps = [stack.enter_context(opened(run, {**config, "seed": run.run.config.seed}, len(runs))) for run in runs]
    _fit(steps, stack)
  devices.return_memory()
  for run, own in zip(runs, steps, strict=True):
    finish(run, own.start)


def _without_console(training: Training) -> Training:
  run = training.run
  loggers = tuple(name for name in run.config.loggers if name != "console")
  return dataclasses.replace(
    training, run=dataclasses.replace(run, config=dataclasses.replace(run.config, loggers=loggers))
  )


def _fit(steps: Sequence[Steps], stack: contextlib.ExitStack) -> None:
  """Takes the steps that are left, until each run has ended."""
  starts = sorted({one.start for one in steps})
  if len(starts) > 1:
    raise UserError(f"the runs of these seeds have stopped at different steps, {starts}: train each by itself")
  streams = [stack.enter_context(contextlib.closing(one.batches())) for one in steps]
  signals = stack.enter_context(stop_signals())
  left = [one for one in steps if not one.ended_early(one.start)]
  training, states = steps[0].training, _stacked([one.state for one in steps])
  take = [_step_of_seeds([one.training for one in steps], phase) for phase in training.phases.all]
  for done, rows in enumerate(zip(*streams, strict=True) if left else (), starts[0] + 1):
    examples = devices.put_batch(jax.tree.map(lambda *own: np.stack(own), *rows), training.layout.mesh, axis=1)
    states, metrics = take[training.phases.at(done - 1)](training.run.method, states, examples)
    left[0].count(metrics["loss"])
    if any(one.due(done, signals) for one in left):
      for number, one in enumerate(steps):
        one.state = _row(states, number)
      _after(done, left, [_row(metrics, steps.index(one)) for one in left], signals)
      states = _stacked([one.state for one in steps])
      left = [one for one in left if not one.ended_early(done)]
    if not left:
      break


def _after(done: int, steps: Sequence[Steps], metrics: Sequence[Mapping[str, jax.Array]], signals: StopSignals) -> None:
  """Does what is due for each run; a signal stops all of them, each with its checkpoint."""
  stopped: Stopped | None = None
  for own, found in zip(steps, metrics, strict=True):
    with contextlib.ExitStack() as stack:
      for other in steps:
        if other is not own:
          stack.enter_context(other.rate.paused())
      try:
        own.after(done, found, signals)
      except Stopped as error:
        stopped = error
  if stopped is not None:
    raise stopped


def _step_of_seeds(runs: Sequence[Training], phase: Phase) -> TrainStep:
  """Returns a train step of all runs at once: each state, example and metric has an axis of seeds before all others."""
  settings = runs[0].step_settings
  keys = jnp.stack([run.step_settings.key for run in runs])

  def step(key: PRNGKeyArray, method: Method, state: TrainState, examples: Examples) -> Any:
    return make_train_step(phase, dataclasses.replace(settings, key=key))(method, state, examples)

  jitted = jax.jit(jax.vmap(step, in_axes=(0, None, 0, 0)), donate_argnums=2, out_shardings=runs[0].layout.whole)
  return partial(jitted, keys)


@jax.jit
def _stacked(states: Sequence[TrainState]) -> TrainState:
  return jax.tree.map(lambda *own: jnp.stack(own), *states)


@jax.jit
def _row(tree: Any, number: ArrayLike) -> Any:
  return jax.tree.map(lambda x: x[number], tree)
