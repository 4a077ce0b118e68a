"""Runs of one config with several seeds, trained in one program: `jax.vmap` over their states and batches.

On kept features much of a small head's step is overhead, which the seeds share; reading the weights of a large head is
not shared (docs/how_to/studies.md has times). Each run has its own folder, in which all is as if it had been trained
alone, but for rounding.
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

from hierjax.data.open_source import Opened
from hierjax.evaluation.evaluate import evaluate_run
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.processes import say
from hierjax.training.initial.from_weights import config_of_run
from hierjax.training.loop.run import Evaluate, finish, opened, take_steps
from hierjax.training.loop.setup import Training, set_up
from hierjax.training.loop.signals import stop_signals
from hierjax.training.loop.steps import Due, Steps, Stopped
from hierjax.training.phases import Phase
from hierjax.training.state import TrainState
from hierjax.training.step import TrainStep, make_train_step
from hierjax.types import Examples, Method


def can_train_together(config: Mapping[str, Any]) -> bool:
  """Returns whether runs of a config are trained together: on kept features, with whole weights, by one process.

  With `wandb` they are not: it has one run at a time. No device is asked for.
  """
  rules = (config["sharding"] or {}).get("rules")
  alone = jax.distributed.is_initialized() or "wandb" in config["loggers"]
  return bool(config["frozen"]["keep"]) and not rules and not alone


def train_seeds(
  config: Mapping[str, Any],
  workdirs: Mapping[int, str],
  evaluate: Evaluate = evaluate_run,
  opened_set: Opened | None = None,
) -> None:
  """Trains and evaluates runs that differ in nothing but the seed, in one program; resumes those that were begun.

  Runs that have stopped at different steps go on in groups of equal steps, one after the other.

  Args:
    config: of the runs, as plain data; its seed is not read.
    workdirs: the folder of each seed.
    evaluate: as of `train_and_evaluate`.
    opened_set: likewise.

  Raises:
    UserError: as `train_and_evaluate`.
    Diverged: one of the runs diverged; the message names its seed.
    Stopped: the process received a signal; a checkpoint of each run that was training was written.
  """
  seeds = list(workdirs)
  config, lines = config_of_run({**config, "seed": seeds[0]}, RunFolder(workdirs[seeds[0]]))
  say("\n".join([f"devices: {devices.devices_in_use()}", *lines]))
  whole = set_up(config, workdirs[seeds[0]], opened_set)
  first, *others = (whole.with_seed(seed, folder) for seed, folder in workdirs.items())
  runs = [first, *map(_without_console, others)]
  with contextlib.ExitStack() as stack:
    steps = [stack.enter_context(opened(run, {**config, "seed": run.run.config.seed}, len(runs))) for run in runs]
    for start in sorted({one.start for one in steps}):
      _take_steps([one for one in steps if one.start == start])
  devices.return_memory()
  for run, own in zip(runs, steps, strict=True):
    say(f"{run.folder.path}:")
    finish(run, own.start, evaluate)


def _without_console(training: Training) -> Training:
  run = training.run
  loggers = tuple(name for name in run.config.loggers if name != "console")
  return dataclasses.replace(
    training, run=dataclasses.replace(run, config=dataclasses.replace(run.config, loggers=loggers))
  )


def _take_steps(steps: Sequence[Steps]) -> None:
  """Takes the steps that are left of runs that are at one step, until each has ended."""
  if len(steps) == 1:
    take_steps(steps[0])
    return
  start, training = steps[0].start, steps[0].training
  left, states = [one for one in steps if not one.ended_early(start)], _stacked([one.state for one in steps])
  take = [_step_of_seeds([one.training for one in steps], phase) for phase in training.phases.all]
  with contextlib.ExitStack() as stack:
    streams = [stack.enter_context(contextlib.closing(one.batches())) for one in steps]
    signals = stack.enter_context(stop_signals())
    for one in left:
      one.rate.restart(start)  # the others were opened meanwhile
    for done, rows in enumerate(zip(*streams, strict=True) if left else (), start + 1):
      examples = devices.put_batch(jax.tree.map(lambda *own: np.stack(own), *rows), training.layout.mesh, axis=1)
      states, metrics = take[training.phases.at(done - 1)](training.run.method, states, examples)
      left[0].count(metrics["loss"])
      due, signal = left[0].due(done), left[0].stop(done, signals)  # for all, whatever comes while they log and save
      if any(due) or signal:
        for number, one in enumerate(steps):
          one.state = _row(states, number)
        _after(done, left, [_row(metrics, steps.index(one)) for one in left], due, signal)
        states = _stacked([one.state for one in steps])
      left = [one for one in left if not one.ends(done)]
      if not left:
        break


def _after(
  done: int, steps: Sequence[Steps], metrics: Sequence[Mapping[str, jax.Array]], due: Due, signal: int
) -> None:
  """Does what is due for each run; a signal stops all of them, each with its checkpoint."""
  stopped: Stopped | None = None
  for own, found in zip(steps, metrics, strict=True):
    with contextlib.ExitStack() as stack:
      for other in steps:
        if other is not own:
          stack.enter_context(other.rate.paused())
      try:
        own.after(done, found, due, lambda: signal)
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
