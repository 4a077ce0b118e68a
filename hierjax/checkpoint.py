"""Checkpoints of a run: the latest, and the best on validation. One thin file over orbax.

A checkpoint has two items: `model`, the variables that evaluation needs, and `training`, the rest of the train state.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from hierjax.errors import UserError

_SCORE = "score"

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
      select_best: keep the step with the best validation metric beside the latest.
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
      raise UserError(f"{self._folder} holds a damaged checkpoint ({error}); remove its folder") from error

  def save(self, step: int, model: Any, training: Any, score: float | None = None) -> None:
    """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

    Args:
      step: steps done.
      model: the item that evaluation needs, a pytree of arrays.
      training: the other item.
      score: how good the model is on validation; None where that was not measured.
    """
    items = ocp.args.Composite(model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training))
    self._manager.save(step, args=items, metrics=None if score is None else {_SCORE: score}, force=True)

  def restore(self, step: int, model: Any, training: Any) -> tuple[Any, Any]:
    """Reads both items; the arguments are templates (arrays, or shapes with shardings) of what to expect."""
    items = ocp.args.Composite(model=ocp.args.StandardRestore(model), training=ocp.args.StandardRestore(training))
    restored = self._restore(step, items)
    return restored["model"], restored["training"]

  def restore_model(self, step: int, model: Any) -> Any:
    """Reads the model's variables alone."""
    return self._restore(step, ocp.args.Composite(model=ocp.args.StandardRestore(model)))["model"]

  def _restore(self, step: int, items: ocp.args.Composite) -> Any:
    try:
      return self._manager.restore(step, args=items)
    except Exception as error:  # tensorstore and orbax raise whatever they meet in a damaged file
      first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
      raise UserError(
        f"checkpoint {self._folder / str(step)} is damaged or of another model ({first_line}); "
        "if you remove that folder, the run goes on from the checkpoint before it, or from the start"
      ) from error

  @property
  def latest(self) -> int | None:
    """The newest step, or None."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """The step that was best on validation; the latest where nothing was selected; None where there is none."""
    best = self._manager.best_step()
    return self.latest if best is None else best

  def told_to_stop(self, step: int) -> bool:
    """Whether some process of a multi-process run was told to stop; True on all of them at the same step."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Waits until every save has reached the disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the saves and lets go of the folder."""
    self._manager.close()


def template(tree: Any, sharding: jax.sharding.Sharding) -> Any:
  """Returns the shapes of `tree` with a sharding each: what `restore` needs to place arrays on any set of devices."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
