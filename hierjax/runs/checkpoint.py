"""Checkpoints of a run, kept by orbax: the two latest, and the best on validation.

A checkpoint has two items: `model`, the variables that evaluation needs, and `training`, the rest of the train state.
Its record (`checkpoint_record.py`) has checksums of both, which are compared when they are read.

A checkpoint gets its name when it is written, and loses it before it is removed: what is there by the name of a step
is whole. It has reached the disk before an older one is removed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from hierjax.disk import NoRoom, check_room, is_full, room, sync, when_there_is_room
from hierjax.errors import UserError
from hierjax.runs.checkpoint_record import KEY, DamagedCheckpoint, Record, content, layout, read_record
from hierjax.runs.devices import fetched
from hierjax.runs.folder import is_checkpoint

_KEPT = 2  # of the latest

# Orbax logs the tracebacks of errors in its threads, which are raised by the next call as well.
_OF_THREADS = ("background save thread", "_SignalingThread.run() raised an exception")
logging.getLogger("absl").addFilter(lambda record: not any(text in record.getMessage() for text in _OF_THREADS))


def _is_of_a_remaining_read(record: logging.LogRecord) -> bool:
  """Returns whether asyncio logs an orbax read that failed after the first one, whose error is raised."""
  text = record.getMessage()
  return "was never retrieved" in text and any(part in text for part in ("/orbax/checkpoint/", "tensorstore_spec="))


logging.getLogger("asyncio").addFilter(lambda record: not _is_of_a_remaining_read(record))
_report_unraisable = sys.unraisablehook


def _report_others(unraisable: Any) -> None:
  """Reports an error of another thread, but for those after a failed read, whose event loop orbax has closed."""
  error = unraisable.exc_value
  full = isinstance(error, OSError) and error.errno == errno.ENOSPC  # at exit, of which there is a sentence already
  dropped = isinstance(getattr(error, "__cause__", None), GeneratorExit)
  if not full and not dropped and not str(error).endswith(("Event loop is closed", "was never awaited")):
    _report_unraisable(unraisable)


sys.unraisablehook = _report_others
warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)


class VanishedCheckpoint(UserError):
  """A checkpoint was removed while it was read."""


class Checkpoints:
  """The checkpoints under one folder, by step."""

  def __init__(self, folder: Path, *, select_best: bool, create: bool = False):
    """Opens the folder.

    Args:
      folder: `workdir/checkpoints`.
      select_best: keep the step with the best validation metric in addition to the latest.
      create: to save; the folder is made if it is not there, and what a killed process left in it is removed.
    """
    self._folder = folder
    self._select_best = select_best
    if create:
      folder.mkdir(parents=True, exist_ok=True)
      if jax.process_index() == 0:
        _remove_leftovers(folder)
    self._records, self.damaged = _found(folder)
    handlers = {name: ocp.StandardCheckpointHandler() for name in ("model", "training")}
    self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(**handlers))
    self._unsettled: int | None = None
    self._needed = 0  # bytes of the last save
    self._failed = False  # whether a save could not be written

  def save(self, step: int, model: Any, training: Any, score: float | None = None) -> None:
    """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

    Args:
      step: steps done.
      model: the item that evaluation needs, a pytree of arrays.
      training: the other item.
      score: the metric on validation, higher being better; None where it was not measured.

    While there is no room on the disk, this waits for it. Where one process alone finds that the checkpoint before had
    no room, it is left out.

    Raises:
      UserError: there was no room for too long, or the checkpoint before could not be written.
    """
    if step in self._records:  # at the end of a run that saved its last step already
      return
    try:
      self.wait()
    except NoRoom as error:
      if jax.process_count() > 1:
        raise
      print(f"warning: {error.what}; the run goes on without this checkpoint", file=sys.stderr)
    # Orbax copies numpy arrays before it returns; of an array on several devices it would compile a slice for each.
    items = dict(zip(("model", "training"), fetched((model, training)), strict=True))
    self._needed = num_bytes(items)
    when_there_is_room(lambda: check_room(self._folder / str(step), self._needed, self._goes_on()))
    record = Record.of(step, score, items)
    args = ocp.args.Composite(**{name: ocp.args.StandardSave(item) for name, item in items.items()})
    self._unsettled = step
    with self._written(step):
      self._orbax.save(self._folder / str(step), args=args, force=True, custom_metadata={KEY: record.to_json()})
    self._records[step] = record

  def check_room_for(self, items: Any) -> None:
    """Raises UserError where the disk has no room for the checkpoints that a run of such items, trees, keeps."""
    most = _KEPT + 1 + self._select_best  # one is written before another goes
    missing = most - len(self._records)
    check_room(self._folder, max(missing, 1) * num_bytes(items), f"a run keeps up to {most} checkpoints in this folder")

  def restore_latest(self, model: Any, training: Any) -> tuple[Any, Any, list[str]]:
    """Reads both items of the newest checkpoint that is whole, and sets those aside that are newer and damaged.

    The arguments are as in `restore`. The last value returned is a line about each that was set aside.

    Raises:
      DamagedCheckpoint: none is whole; the error is that of the newest, and all are left as they are.
    """
    errors: dict[int, DamagedCheckpoint] = {}
    for step in sorted({*self._records, *self.damaged}, reverse=True):
      try:
        if step in self.damaged:
          raise self.damaged[step]
        restored = self.restore(step, model, training)
      except DamagedCheckpoint as error:
        errors[step] = error
        continue
      return *restored, self._set_aside(errors, step)
    raise next(iter(errors.values()))

  def _set_aside(self, errors: Mapping[int, DamagedCheckpoint], step: int) -> list[str]:
    if errors and jax.process_count() > 1:
      multihost_utils.sync_global_devices("checkpoints are read")
    lines = []
    for other, error in errors.items():
      self._records.pop(other, None)
      self.damaged.pop(other, None)
      kept = self._folder / f"damaged-{other}"
      if jax.process_index() == 0:
        shutil.rmtree(kept, ignore_errors=True)
        (self._folder / str(other)).rename(kept)
      lines.append(f"warning: {error.what}: it is {kept.name} now, and the run goes on from step {step}")
    return lines

  def restore(self, step: int, model: Any, training: Any) -> tuple[Any, Any]:
    """Reads both items; the arguments are templates: trees of arrays, or of shapes with shardings.

    Raises:
      DamagedCheckpoint: an item is not what was saved.
      VanishedCheckpoint: it was removed meanwhile.
      UserError: it is of a model of other shapes.
    """
    restored = self._restore(step, {"model": model, "training": training})
    return restored["model"], restored["training"]

  def restore_model(self, step: int, model: Any) -> Any:
    """Reads the model's variables alone; raises as `restore` does."""
    return self._restore(step, {"model": model})["model"]

  def _restore(self, step: int, items: Mapping[str, Any]) -> Any:
    folder = self._folder / str(step)
    before = _identity(folder)
    try:
      return self._checked(step, items)
    except DamagedCheckpoint:
      if before is None or _identity(folder) != before:
        raise VanishedCheckpoint(f"checkpoint {folder} was removed while it was read") from None
      raise

  def _checked(self, step: int, items: Mapping[str, Any]) -> Any:
    folder, args = self._folder / str(step), {n: ocp.args.StandardRestore(item) for n, item in items.items()}
    record = read_record(folder)
    try:
      restored = self._orbax.restore(folder, args=ocp.args.Composite(**args))
    except Exception as error:  # for damaged files tensorstore and orbax raise many types
      if any(record.layouts[name] != layout(item) for name, item in items.items()):
        self._check_fits(step, items)
      lines = str(error).strip().splitlines() or [type(error).__name__]
      raise DamagedCheckpoint(folder, lines[0].split(". ")[0][:200]) from error
    for name in items:
      if record.contents[name] != content(restored[name]):
        what = "weights are" if name == "model" else "state of training is"
        raise DamagedCheckpoint(folder, f"its {what} not what was saved")
    return restored

  def _check_fits(self, step: int, items: Mapping[str, Any]) -> None:
    """Raises UserError where a checkpoint has other shapes than those that are expected."""
    for name, item in items.items():
      try:
        stored = _shapes(ocp.StandardCheckpointHandler().metadata(self._folder / str(step) / name).tree)
      except Exception:  # damaged
        return
      wanted = _shapes(item)
      for key in sorted(stored | wanted):
        has, wants = (shapes.get(key, "not there") for shapes in (stored, wanted))
        if has != wants:
          raise UserError(
            f"checkpoint {self._folder / str(step)} is of another model than config.json and tree.json in "
            f"{self._folder.parent} describe: {key} is {has} in the checkpoint, and {wants} by these files; put back "
            "the two files of the run, the checkpoint may be whole"
          )

  def counting(self) -> int | None:
    """Returns `best`; raises DamagedCheckpoint where there are damaged ones alone."""
    if not self._records and self.damaged:
      raise self.damaged[max(self.damaged)]
    return self.best

  @property
  def latest(self) -> int | None:
    """The newest step, or None."""
    return max(self._records, default=None)

  @property
  def best(self) -> int | None:
    """The step that was best on validation; the latest where nothing was selected; None where there is none."""
    scores = [(r.score, step) for step, r in self._records.items() if r.score is not None]
    return max(scores)[1] if scores and self._select_best else self.latest

  def should_stop(self, step: int) -> bool:
    """Returns whether a process of a multi-process run received a signal; True on all of them at the same step."""
    return bool(ocp.multihost.reached_preemption(step))

  def wait(self) -> None:
    """Waits until every save has reached the disk, and removes checkpoints that are not kept.

    Raises:
      UserError: the last one could not be written.
    """
    if self._unsettled is None:
      return
    step, self._unsettled = self._unsettled, None
    with self._written(step):
      self._orbax.wait_until_finished()
      if jax.process_index() == 0:
        sync(self._folder / str(step))
    kept = {*sorted(self._records)[-_KEPT:], self.best}
    for other in sorted(self._records.keys() - kept):
      del self._records[other]
      if jax.process_index() == 0:
        _remove(self._folder / str(other))

  @contextlib.contextmanager
  def _written(self, step: int) -> Iterator[None]:
    """Raises UserError where the block could not write a checkpoint."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:  # orbax and tensorstore raise all of these
      self._unsettled = None
      self._records.pop(step, None)
      self._failed = True
      if jax.process_index() == 0:
        _remove_leftovers(self._folder)  # they take the room that is missing
      path = self._folder / str(step)
      if is_full(error):
        raise NoRoom(path, self._needed, self._goes_on()) from error
      lines = str(error).strip().splitlines() or [type(error).__name__]
      raise UserError(
        f"{path} could not be written ({lines[0][:200]}); {room(path):,} bytes of the disk are free; {self._goes_on()}"
      ) from error

  def _goes_on(self) -> str:
    start = "the start" if self.latest is None else f"step {self.latest}"
    return f"make room, and the same command goes on from {start}"

  def close(self) -> None:
    """Waits for the saves and lets go of the folder."""
    try:
      self.wait()
    finally:
      self._orbax.close()
      if self._failed and jax.process_index() == 0:
        _remove_leftovers(self._folder)


def template(tree: Any, sharding: Any) -> Any:
  """Returns the shapes of `tree` with a sharding, the template with which `restore` places arrays on any devices.

  `sharding` is one for all arrays, or a tree like `tree` with one for each.
  """
  each = jax.tree.map(lambda _: sharding, tree) if isinstance(sharding, jax.sharding.Sharding) else sharding
  return jax.tree.map(lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own), tree, each)


def num_bytes(tree: Any) -> int:
  """Returns the size of a tree of arrays, or of `jax.ShapeDtypeStruct`."""
  return sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _found(folder: Path) -> tuple[dict[int, Record], dict[int, DamagedCheckpoint]]:
  """Returns the checkpoints of a folder by step: the records of those that have one, and the errors of the others."""
  records: dict[int, Record] = {}
  errors: dict[int, DamagedCheckpoint] = {}
  for path in filter(is_checkpoint, folder.glob("*")):
    try:
      records[int(path.name)] = read_record(path)
    except DamagedCheckpoint as error:
      if path.exists():  # a trainer beside this process may have removed it
        errors[int(path.name)] = error
  return records, errors


def _identity(folder: Path) -> tuple[int, int] | None:
  """Returns what two folders that had the same name in turn differ in; None where there is none."""
  try:
    found = folder.stat()
  except OSError:
    return None
  return found.st_ino, found.st_ctime_ns


def _remove(folder: Path) -> None:
  """Removes a checkpoint; a reader finds all of it or nothing."""
  gone = folder.with_name(f".removed-{folder.name}")
  shutil.rmtree(gone, ignore_errors=True)
  folder.rename(gone)
  shutil.rmtree(gone, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
  """Removes what saves that failed have left; a thread of orbax may write on there for a moment after an error."""
  for _ in range(20):
    left = [p for p in folder.iterdir() if p.name.startswith(".removed-") or "orbax-checkpoint-tmp" in p.name]
    if not left:
      return
    for path in left:
      shutil.rmtree(path, ignore_errors=True)
    if any(path.exists() for path in left):
      time.sleep(0.05)


def _shapes(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape) for path, leaf in leaves}
