"""The start of a run: the claim of its folder, and the state that it starts or resumes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from hierjax.data.source import Source, data_checksum
from hierjax.data.split_names import CALIBRATION
from hierjax.errors import UserError
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.folder import RunFolder
from hierjax.runs.processes import agree, check_shared, gathered
from hierjax.runs.provenance import commit, versions
from hierjax.runs.run import Run
from hierjax.training.state import TrainState


def claim(folder: RunFolder, config: Mapping[str, Any], run: Run, train: Source) -> None:
  """Claims the folder for this run; a failure on one process fails on all.

  Raises:
    UserError: as `RunFolder.begin` does, or as the images cannot be read; or a process has other images or another
      tree than the first one.
  """
  error: UserError | OSError | None = None
  checksums: dict[str, str] = {}
  try:
    if jax.process_index() == 0:
      folder.lock()
    checksums = _checksums(run, train)
    if jax.process_index() == 0:
      judged_on = {split: checksum for split, checksum in checksums.items() if split != "train"}
      for line in folder.begin(config, run.tree, checksums["train"], judged_on):
        print(line, flush=True)
  except (UserError, OSError) as refused:
    error = refused
  failed = gathered(error is not None)
  if any(failed) and error is None:
    error = UserError(f"process {failed.index(True)} cannot use the folder or its images; its message gives the reason")
  if error is not None:
    folder.close()
    raise error
  check_shared(folder.path)
  agree({"label tree": run.tree.checksum, **{f"{split} images": checksum for split, checksum in checksums.items()}})


def _checksums(run: Run, train: Source) -> dict[str, str]:
  """Returns the checksums of the images of all splits that the set has, by split."""
  opened = {"train": train} | {split: run.source(split) for split in ("validation", CALIBRATION, "test")}
  return {split: data_checksum(images, run.data.all_bytes) for split, images in opened.items() if images is not None}


def check_processes(config: Mapping[str, Any], folder: RunFolder) -> None:
  """Raises UserError, on all processes of a run, where one has another config or code, or sees another checkpoint.

  A commit that a process does not know, as where hierjax was installed without its history, differs from none.
  """
  if jax.process_count() == 1:
    return
  own = commit()
  known = [found for found in gathered(own) if found]
  code = {"versions": versions(), "source commit": own or "".join(known[:1])}
  agree({"config": config, **code, "newest checkpoint": str(folder.newest_step())})


def restored_or_new(checkpoints: Checkpoints, shapes: TrainState, fresh: Callable[[], TrainState]) -> TrainState:
  """Returns the state of the latest checkpoint that is whole, or else a fresh one.

  Args:
    checkpoints: of the run.
    shapes: of the state, each with its sharding.
    fresh: returns the state before the first step.

  Raises:
    UserError: no checkpoint is whole.
  """
  if checkpoints.latest is None and not checkpoints.damaged:
    return fresh()
  model, training, remarks = checkpoints.restore_latest(shapes.model, shapes.training)
  for remark in remarks if jax.process_index() == 0 else ():
    print(remark, flush=True)
  return dataclasses.replace(shapes, **model, **training)
