"""The thresholds of multi-label heads: their choice on validation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float

from hierjax.errors import UserError, few
from hierjax.functional.multilabel import F1, GRID, label_nodes, passing
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import view_distributions
from hierjax.inference.settings import kept_thresholds, thresholds_conditions
from hierjax.runs.choices import Choice, keep_choice
from hierjax.runs.devices import replicated
from hierjax.runs.run import Run
from hierjax.types import DecodeOptions, Examples, Method, Variables

_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class ValidationScores:
  """The scores and labels of all images of a split, from which thresholds are chosen.

  Attributes:
    scores: `f32[m n]`, the sigmoid of each node.
    present: `bool[m n]`, whether a label path goes through the node.
    counted: `bool[m n]`, whether the label is known there; see `label_nodes`.
  """

  scores: np.ndarray
  present: np.ndarray
  counted: np.ndarray


def options_with_thresholds(loaded: LoadedRun) -> DecodeOptions:
  """Returns a run's options with the thresholds for its weights; chooses them on validation where none are kept.

  They are the options of the config where it gives thresholds, or where the head is not multi-label.

  Raises:
    UserError: there is no validation split to choose them on, or it has no labels.
  """
  run, folder, step = loaded.run, loaded.folder, loaded.step
  if run.options.thresholds or not run.method.module.head.multilabel:
    return run.options
  kept = _agreed(kept_thresholds(folder, step, run.options), run.tree.depth)
  if kept:
    return dataclasses.replace(run.options, thresholds=kept)
  if run.source("validation") is None:
    raise UserError(
      "config.decode.thresholds = (): thresholds are chosen on validation, and the set has no such split; set "
      "config.data.validation, or give them: (0.5,), say"
    )
  found = validation_scores(loaded)
  unseen = unseen_ends(run, found)
  chosen, f1 = best_thresholds(found, run.method.tree, run.options.threshold_per)
  if jax.process_index() == 0:
    about = {"split": "validation", "images": len(found.scores), "path_f1": f1, "never_seen": unseen}
    about |= {"checksum": run.images_of("validation")["checksum"]}
    choice = Choice("thresholds", list(chosen), thresholds_conditions(step, run.options), about)
    if refused := keep_choice(folder, choice):
      values = ", ".join(f"{value:g}" for value in chosen)
      print(
        f"thresholds {values}: {refused}; a run has them by config.decode.thresholds = ({values},)", file=sys.stderr
      )
    if unseen:
      print(
        f"thresholds: no validation image has a label that ends at {few(unseen, 3)} ({len(unseen)} leaves of "
        f"{len(run.tree.leaves)}): the choice takes no account of these",
        file=sys.stderr,
      )
  return dataclasses.replace(run.options, thresholds=chosen)


def _agreed(thresholds: tuple[float, ...], most: int) -> tuple[float, ...]:
  """Returns the thresholds of process 0, so that all choose or none does, whatever each sees of the folder."""
  if jax.process_count() == 1:
    return thresholds
  padded = np.full(max(1, most), np.nan)
  padded[: len(thresholds)] = thresholds
  shared = np.asarray(multihost_utils.broadcast_one_to_all(padded.view(np.uint32))).view(np.float64)  # to the last bit
  return tuple(shared[~np.isnan(shared)].tolist())


def validation_scores(loaded: LoadedRun) -> ValidationScores:
  """Returns the scores and labels of all validation images; each process has all."""
  run = loaded.run

  def scores_of(method: Method, variables: Variables, examples: Examples) -> tuple[Array, Array, Array, Array]:
    see = functools.partial(run.preprocess, examples)
    found, _ = view_distributions(method, variables, see, run.options)
    return found.node_score, *label_nodes(examples.paths, method.tree), examples.mask > 0

  source = run.source("validation")
  assert source is not None
  with contextlib.closing(loaded.map(jax.jit(scores_of, out_shardings=replicated(loaded.mesh)), source)) as batches:
    parts = [jax.device_get(found) for _, found in batches]
  scores, present, counted, real = (np.concatenate(column) for column in zip(*parts, strict=True))
  return ValidationScores(scores[real], present[real], counted[real])


def unseen_ends(run: Run, found: ValidationScores) -> list[str]:
  """Returns the leaves that no label has.

  Raises:
    UserError: there are no labels at all, or with a threshold a level, none that reaches some level.
  """
  deepest_level = -1
  seen = np.flatnonzero(found.present.any(axis=0))
  offsets = run.tree.level_offsets
  if len(seen):
    deepest_level = int(np.searchsorted(offsets, int(seen[-1]), side="right")) - 1
  needed = run.tree.depth - 1 if run.options.threshold_per == "level" else 0
  if deepest_level < needed:
    raise UserError(
      "config.decode.thresholds = (): no validation image has a label"
      + (f" on level {deepest_level + 2}; set config.decode.threshold_per = tree" if needed else "")
      + ", so no threshold can be chosen; or give them: config.decode.thresholds = (0.5,), say"
    )
  return [run.tree.path_text(int(leaf)) for leaf in np.setdiff1d(run.tree.leaves, seen)]


def best_thresholds(found: ValidationScores, tree: TreeArrays, per: str) -> tuple[tuple[float, ...], float]:
  """Returns the thresholds on GRID with the largest path F1 (READINGS K11), and that F1.

  The one threshold is found by trying all. One a level starts from that one, and then each level in turn takes the best
  while the others stand still, until none gains.
  """
  arrays = jax.tree.map(jnp.asarray, tree)

  @jax.jit
  def counts(scores: Float[Array, "m n"], present: Bool[Array, "m n"], counted: Bool[Array, "m n"], at: Array) -> F1:
    return F1.of(passing(scores, at, arrays), present, counted)

  def f1(thresholds: tuple[float, ...]) -> float:
    result: Any = counts(found.scores, found.present, found.counted, jnp.array(thresholds, jnp.float32))
    return float(result.value())

  best = max(((threshold,) for threshold in GRID), key=f1)
  if per == "tree":
    return best, f1(best)
  levels, reached = best * tree.depth, f1(best)
  for _ in range(_ROUNDS):
    before = reached
    for t in range(tree.depth):
      tries = [(*levels[:t], threshold, *levels[t + 1 :]) for threshold in GRID]
      better = max(tries, key=f1)
      if f1(better) > reached:
        levels, reached = better, f1(better)
    if reached == before:
      break
  return levels, reached
