"""Training on the kept features of a frozen backbone."""

from __future__ import annotations

import jax

from hierjax.config import unpack
from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.inference.frozen import frozen_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.run import FrozenConfig, Run
from hierjax.training.phases import Phases


def check_frozen(run: Run, phases: Phases) -> None:
  """Raises UserError where a config keeps features that training would change, or that its model does not read."""
  if not unpack(FrozenConfig, run.config.frozen, "frozen").keep:
    return
  if any(not all(jax.tree.leaves(phase.optimizer.frozen["backbone"])) for phase in phases.all):
    raise UserError(
      "config.frozen.keep = True: the backbone trains, so its features change; freeze it by config.optim.lr_groups = "
      "(('^backbone/', None), ('.*', 1.0)), or set config.frozen.keep = False"
    )
  if run.method.module.neck is not None or run.config.merged["shared"] >= 0:
    raise UserError(
      "config.frozen.keep = True: a neck and a merged network read maps of the backbone, which are not kept; set False"
    )


def on_frozen_features(loaded: LoadedRun, train: Source, validation: Source | None) -> tuple[Source, Source | None]:
  """Returns the features of the images to train and to validate on, where the config keeps them, or else the images."""
  features = frozen_features(loaded, train, loaded.run.config.frozen["views"])
  return features, None if validation is None else frozen_features(loaded, validation)
