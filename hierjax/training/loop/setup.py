"""The set-up of a run: all that its config describes, before its folder is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from hierjax.config import unpack
from hierjax.data.open_source import Opened
from hierjax.data.source import Source
from hierjax.data.summary import summarize
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.processes import say
from hierjax.runs.run import Run, judged_split
from hierjax.training.initial.weights import InitConfig
from hierjax.training.logs.loggers import check_loggers
from hierjax.training.loop.frozen import check_frozen
from hierjax.training.optim import OptimConfig
from hierjax.training.phases import Phases, PhasesConfig, make_phases
from hierjax.training.schedule import RunLength, ScheduleConfig, make_schedule
from hierjax.training.sharding import Layout, ShardingConfig, layout_of
from hierjax.training.step import StepSettings, parts_of_norms


@dataclasses.dataclass(frozen=True)
class Training:
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
    key: of all random numbers of the run.
    phases: of the run.
    step_settings: of the steps of all phases.
    label: of messages, where one program trains several runs, such as `seed 3: `.
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
  key: PRNGKeyArray
  phases: Phases
  step_settings: StepSettings
  label: str = ""

  def with_seed(self, seed: int, workdir: str) -> Training:
    """Returns the run with another seed, in another folder, on the same opened set; its messages name the seed."""
    run = dataclasses.replace(self.run, config=dataclasses.replace(self.run.config, seed=seed))
    key = jax.random.key(seed)
    return dataclasses.replace(
      self,
      run=run,
      folder=RunFolder(workdir),
      key=key,
      step_settings=dataclasses.replace(self.step_settings, key=_step_key(key)),
      label=f"seed {seed}: ",
    )


def set_up(config: Mapping[str, Any], workdir: str, opened: Opened | None = None) -> Training:
  """Returns the run of a config; its set is opened, and what there is to know of it is printed.

  Args:
    config: as plain data.
    workdir: the run's folder.
    opened: `Run.opened` of a run on the same set and tree; None to open the set anew.

  Raises:
    UserError: the config or its data cannot be used.
  """
  run = Run.from_config(config)
  run = dataclasses.replace(run, opened=opened or run.opened)
  settings = run.config
  sharding = unpack(ShardingConfig, settings.sharding or {}, "sharding")
  optim_config = unpack(OptimConfig, settings.optim, "optim")
  init_config = unpack(InitConfig, settings.init, "init")
  check_loggers(settings.loggers)
  mesh = sharding.mesh(alone=_steps_are_short(run))
  devices.check_batch_size(settings.batch_size, mesh, optim_config.accumulate)
  if run.data.name == "folder":
    understood = summarize(run.data, run.tree_config)
    say("\n".join([*understood.lines(), *understood.gravest()]))
  train, validation = _sources(run)
  run = run.learning_ends(train)
  length = RunLength.of(len(train) / settings.batch_size, settings.epochs, (settings.least_steps, settings.most_steps))
  schedule, schedule_config = make_schedule(settings.schedule, optim_config.peak_lr(settings.batch_size), length)
  if settings.class_weights == "balanced" and schedule_config.warmup >= settings.epochs > 0:
    say(
      f"warning: config.schedule.warmup = {schedule_config.warmup:g} lasts for all of config.epochs: little is learnt"
    )
  if schedule_config.name == "plateau" and validation is None:
    raise UserError("config.schedule.name = plateau needs a validation split: set config.data.validation")
  judged = judged_split(run)  # opened now: labels that are not in the tree must show before the first step

  key = jax.random.key(settings.seed)
  phases_config = unpack(PhasesConfig, settings.phases, "phases")
  shapes = run.variable_shapes
  phases = make_phases(phases_config, optim_config, shapes, length)
  layout = layout_of(sharding, run.method, shapes, phases.all[-1].optimizer, mesh)
  parted = parts_of_norms(phases.all[-1], optim_config.accumulate, settings.batch_size, shapes)
  say("\n".join([*layout.lines, *check_frozen(run, phases, shapes), *parted]))
  step_settings = StepSettings(
    schedule,
    preprocess=run.augment,
    key=_step_key(key),
    accumulate=optim_config.accumulate,
    weights=run.class_weights(train),
    layout=layout,
  )
  return Training(
    run=dataclasses.replace(run, method=layout.reading(run.method)),
    folder=RunFolder(workdir),
    layout=layout,
    init=init_config,
    schedule=schedule_config,
    train=train,
    validation=validation,
    judged=judged,
    length=length,
    key=key,
    phases=phases,
    step_settings=step_settings,
  )


def _steps_are_short(run: Run) -> bool:
  """Returns whether CPU devices that share a batch would wait for each other for most of a step.

  On kept vectors of features they do: a step of `photos` takes 14 ms on one device and 39 on two.
  """
  return bool(run.config.frozen["keep"]) and run.method.module.kept.ndim == 1


def _step_key(key: PRNGKeyArray) -> PRNGKeyArray:
  """Returns the key of augmentation and dropout."""
  return jax.random.fold_in(key, 1)


def _sources(run: Run) -> tuple[Source, Source | None]:
  """Returns the images to train and to validate on."""
  train, validation = run.source("train"), run.source("validation")
  if train is None or not len(train):
    raise UserError("config.data: the set has no training images")
  if run.config.class_weights == "balanced" and run.data.balanced:
    raise UserError("config.class_weights = balanced and config.data.balanced = True: choose one, both balance classes")
  return train, validation
