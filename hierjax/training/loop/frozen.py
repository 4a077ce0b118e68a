"""Training on the kept features of a frozen backbone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hierjax.config import unpack
from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.inference.frozen import frozen_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.processes import say
from hierjax.runs.run import FrozenConfig, Run
from hierjax.training.phases import Phases
from hierjax.types import Features, Variables


def check_frozen(run: Run, phases: Phases, shapes: Variables) -> list[str]:
  """Returns lines about the features that a config keeps; `shapes` are those of the variables.

  Raises:
    UserError: training would change the features, or the model does not read them, or images are to be mixed.
  """
  keep = unpack(FrozenConfig, run.config.frozen, "frozen").keep
  mixing = run.data.transform.mixing
  if (mixing.mixup or mixing.cutmix) and (keep or len(run.example_shape) == 1):
    raise UserError("config.data.mixup and cutmix mix images, and this run trains on features: set both to 0")
  if not keep:
    return []
  if any(not all(jax.tree.leaves(phase.optimizer.frozen["backbone"])) for phase in phases.all):
    raise UserError(
      "config.frozen.keep = True: the backbone trains, so its features change; freeze it by config.optim.lr_groups = "
      "(('^backbone/', None), ('.*', 1.0)), or set config.frozen.keep = False"
    )
  if run.config.merged["shared"] >= 0:
    raise UserError("config.frozen.keep = True: a merged network has several last maps, which are not kept; set False")
  module = run.method.module
  if module.neck is not None and hasattr(module.head, "kept"):
    raise UserError(
      f"config.frozen.keep = True keeps the last map for the neck, and {run.config.head['name']} reads those of all "
      "stages; set config.neck.name = none or config.frozen.keep = False"
    )
  _check_head(run, shapes)
  if jax.process_count() > 1:
    return ["config.frozen.keep: a run of several processes keeps no features: images pass the backbone at each step"]
  return []


def _check_head(run: Run, shapes: Variables) -> None:
  """Raises UserError where the head reads more than can be kept; see `hierjax.nn.kept`."""
  images = jax.ShapeDtypeStruct((1, *run.example_shape), jnp.float32)
  paths = jax.ShapeDtypeStruct((1, 1, run.tree.depth), jnp.int32)

  def outputs(variables: Variables, images: jax.Array, paths: jax.Array) -> object:
    module = run.method.module
    kept: Any = module.apply(variables, images, method="kept_array")
    return module.apply(variables, Features((), kept), paths)

  try:
    jax.eval_shape(outputs, shapes, images, paths)
  except UserError as error:
    raise UserError(f"config.frozen.keep = True does not keep what the head reads; set False: {error}") from None


def on_frozen_features(loaded: LoadedRun, train: Source, validation: Source | None) -> tuple[Source, Source | None]:
  """Returns the features of the images to train and to validate on, where the config keeps them, or else the images."""
  config = unpack(FrozenConfig, loaded.run.config.frozen, "frozen")
  views = config.views_of(len(train))
  features = frozen_features(loaded, train, views)
  if features is not train and views < config.views:
    say(
      f"{len(train):,} images have {views} augmented views each, and not the {config.views} of config.frozen.views: "
      f"config.frozen.most keeps {config.most:,} views in all"
    )
  return features, None if validation is None else frozen_features(loaded, validation)
