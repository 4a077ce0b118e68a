"""The start of a run: the claim of its folder, and the state that it starts or resumes from."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hierjax import __version__
from hierjax.data.source import Source, data_checksum
from hierjax.errors import UserError
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.folder import RunFolder
from hierjax.runs.processes import agree, check_shared
from hierjax.runs.run import Run
from hierjax.training.state import TrainState


def claim(folder: RunFolder, config: Mapping[str, Any], run: Run, train: Source) -> None:
  """Claims the folder for this run; a failure on the first process fails on all.

  Raises:
    UserError: as `RunFolder.begin` does.
  """
  error: UserError | OSError | None = None
  if jax.process_index() == 0:
    try:
      folder.lock()
      trained_on = data_checksum(train, run.data.all_bytes)
      splits = [split for split in ("validation", "test") if run.source(split) is not None]
      judged_on = {split: run.images_of(split)["checksum"] for split in splits}
      for line in folder.begin(config, run.tree, trained_on, judged_on):
        print(line, flush=True)
    except (UserError, OSError) as refused:
      folder.close()
      error = refused
  if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(error is not None)) and error is None:
    error = UserError("the first process cannot use the folder; its message gives the reason")
  if error is not None:
    raise error
  if jax.process_count() > 1:
    check_shared(folder.path)
    agree({"training images": data_checksum(train, run.data.all_bytes), "label tree": run.tree.checksum})


def check_processes(config: Mapping[str, Any], folder: RunFolder) -> None:
  """Raises UserError, on all processes of a run, where one has another config or code, or sees another checkpoint."""
  code = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "numpy")}
  code |= {"hierjax": __version__, "python": platform.python_version()}
  agree({"config": config, "versions": code, "newest checkpoint": str(folder.newest_step())})


def restored_or_new(checkpoints: Checkpoints, shapes: TrainState, fresh: Callable[[], TrainState]) -> TrainState:
  """Returns the state of the latest checkpoint that is whole, or else a fresh one.

  Args:
    checkpoints: of the run.
    shapes: of the state, each with its sharding.
    fresh: returns the state before the first step.

  Raises:
    UserError: no checkpoint is whole, or the disk has no room for those of the run.
  """
  if checkpoints.latest is None and not checkpoints.damaged:
    checkpoints.check_room_for((shapes.model, shapes.training))
    return fresh()
  model, training, remarks = checkpoints.restore_latest(shapes.model, shapes.training)
  for remark in remarks if jax.process_index() == 0 else ():
    print(remark, flush=True)
  return dataclasses.replace(shapes, **model, **training)
