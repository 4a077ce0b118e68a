"""Checkpoints of a run, kept by orbax: the latest, and the best on validation.

A checkpoint has two items: `model`, the variables that evaluation needs, and `training`, the rest of the train state.
It has a checksum of the first, which is compared when it is read.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from hierjax.config import read_json
from hierjax.errors import UserError

_SCORE, _CHECKSUM = "score", "model_crc32"

# Orbax warns of every checkpoint that has no score, which those between two evaluations never have.
logging.getLogger("absl").addFilter(lambda record: "did not provide metrics" not in record.getMessage())


def _score(metrics: Mapping[str, float]) -> float:
  return metrics[_SCORE]


class Checkpoints:
  """The checkpoints under one folder, by step."""

  def __init__(self, folder: Path, *, select_best: bool, create: bool = False):
    """Opens the folder.

    Args:
      folder: `workdir/checkpoints`.
      select_best: keep the step with the best validation metric in addition to the latest.
      create: make the folder if it is not there.
    """
    self._folder = folder
    latest = preservation_policy.LatestN(1)
    best = preservation_policy.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
    # max_to_keep with best_fn would delete the newest checkpoint when its metric is bad (orbax#526).
    policy = preservation_policy.AnyPreservationPolicy([latest, best] if select_best else [latest])
    self._manager = self._open(policy, select_best, create)

  def _open(self, policy: Any, select_best: bool, create: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policy,
      best_fn=_score if select_best else None,
      create=create,
      cleanup_tmp_directories=create,
      enable_async_checkpointing=True,
    )
    try:
      return ocp.CheckpointManager(self._folder, item_names=("model", "training"), options=options)
    except (ValueError, KeyError) as error:  # json.JSONDecodeError among them
      raise UserError(f"{self._folder} holds a damaged checkpoint ({error}); move its folder away") from error

  def save(self, step: int, model: Any, training: Any, score: float | None = None) -> None:
    """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

    Args:
      step: steps done.
      model: the item that evaluation needs, a pytree of arrays.
      training: the other item.
      score: the metric on validation, higher being better; None where it was not measured.
    """
    # Orbax copies numpy arrays before it returns; of an array on several devices it would compile a slice for each.
    model, training = jax.device_get((model, training))
    items = ocp.args.Composite(model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training))
    metrics = None if score is None else {_SCORE: score}
    self._manager.save(step, args=items, metrics=metrics, force=True, custom_metadata={_CHECKSUM: _checksum(model)})

  def restore(self, step: int, model: Any, training: Any) -> tuple[Any, Any]:
    """Reads both items; the arguments are templates: trees of arrays, or of shapes with shardings."""
    restored = self._restore(step, {"model": model, "training": training})
    return restored["model"], restored["training"]

  def restore_model(self, step: int, model: Any) -> Any:
    """Reads the model's variables alone."""
    return self._restore(step, {"model": model})["model"]

  def _restore(self, step: int, items: Mapping[str, Any]) -> Any:
    args = ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in items.items()})
    try:
      restored = self._manager.restore(step, args=args)
      kept = self._kept_checksum(step)
    except Exception as error:  # for damaged files tensorstore and orbax raise many types
      self._check_fits(step, items)
      lines = str(error).strip().splitlines() or [type(error).__name__]
      raise self._damaged(step, lines[0].split(". ")[0][:200]) from error
    if kept is not None and kept != _checksum(restored["model"]):
      raise self._damaged(step, "its weights are not those that were saved")
    return restored

  def _kept_checksum(self, step: int) -> int | None:
    about = self._folder / str(step) / "_CHECKPOINT_METADATA"  # orbax's; it warns of every item when asked for this
    if not about.exists():
      return None
    found: int | None = (read_json(about, "what orbax writes").get("custom_metadata") or {}).get(_CHECKSUM)
    return found

  def _damaged(self, step: int, why: str) -> UserError:
    return UserError(
      f"checkpoint {self._folder / str(step)} is damaged ({why}); "
      "if you move that folder away, the run goes on from the checkpoint before it, or from the start"
    )

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

  @property
  def latest(self) -> int | None:
    """The newest step, or None."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """The step that was best on validation; the latest where nothing was selected; None where there is none."""
    best = self._manager.best_step()
    return self.latest if best is None else best

  def should_stop(self, step: int) -> bool:
    """Returns whether a process of a multi-process run received a signal; True on all of them at the same step."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Waits until every save has reached the disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the saves and lets go of the folder."""
    self._manager.close()


def template(tree: Any, sharding: jax.sharding.Sharding) -> Any:
  """Returns the shapes of `tree` with a sharding, the template with which `restore` places arrays on any devices."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _shapes(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape) for path, leaf in leaves}


def _checksum(tree: Any) -> int:
  """Returns the CRC-32 of the bytes of a tree's arrays: 0.2 s for 36M weights."""
  found = 0
  for leaf in jax.tree.leaves(tree):
    found = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, found)
  return found
