"""Abstaining: coverage and selective accuracy by the confidence threshold, and its choice on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from hierjax.data.split_names import CALIBRATION
from hierjax.errors import UserError
from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.tables import percent, table
from hierjax.functional.selective import not_contradicted
from hierjax.inference.members import Ensemble, Images, open_images
from hierjax.inference.purpose import Purpose
from hierjax.inference.settings import threshold_conditions
from hierjax.runs.choices import Choice, Chosen, keep_choice
from hierjax.runs.folder import RunFolder

# The thresholds of a sweep: networks are often so confident that values above 0.99 matter. At 0 nothing abstains.
GRID = tuple(
  np.round([*np.arange(0.01, 0.99, 0.01), *np.arange(0.99, 0.999, 0.001), *np.arange(0.999, 1, 0.0001)], 4).tolist()
)


@dataclasses.dataclass(frozen=True)
class Confidences:
  """The confidence in the path that a threshold shortens, of each image, from which any threshold can be judged.

  Attributes:
    confidence: `f32[m l]`, in the path down to each level; 0 after its end.
    right: `bool[m l]`, whether the label contradicts none of its nodes down to there.
    length: `i64[m]`, the number of nodes of the path, before any abstaining.
  """

  confidence: Float[np.ndarray, "m l"]
  right: Bool[np.ndarray, "m l"]
  length: np.ndarray

  @classmethod
  def of(cls, predictions: Predictions) -> Confidences:
    """Returns the confidences for the images whose label is known; raises UserError where there are none.

    Args:
      predictions: at the threshold UNSHORTENED, of the paths that thresholds shorten; or at 0, of the decoded paths.
    """
    counted = predictions.counted
    if not counted.any():
      raise UserError("--threshold: no image has a label that answers could be compared with")
    paths, labels = predictions.paths[counted], predictions.labels[counted]
    return cls(
      confidence=np.minimum.accumulate(predictions.probability[counted], axis=1),
      right=np.asarray(not_contradicted(jnp.asarray(paths), jnp.asarray(labels))),
      length=(paths >= 0).sum(axis=1),
    )

  def taken(self, rows: Bool[np.ndarray, "m"]) -> Confidences:
    """Returns the confidences of some of the images."""
    return Confidences(self.confidence[rows], self.right[rows], self.length[rows])

  def named(self, threshold: float) -> np.ndarray:
    """Returns `i64[m]`, the number of nodes of each answer at a confidence threshold; 0 for none."""
    depth = self.confidence.shape[1]
    within = np.arange(depth) < self.length[:, None]
    counts: np.ndarray = ((self.confidence >= threshold) & within).sum(axis=1)
    return counts

  def answers(self, threshold: float) -> tuple[Bool[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """Returns which images get an answer at a confidence threshold, and which get a right one."""
    named = self.named(threshold)
    return named > 0, (named > 0) & self.right[np.arange(len(named)), np.maximum(named, 1) - 1]

  def at(self, threshold: float) -> dict[str, Any]:
    """Returns the metrics of the answers at a confidence threshold.

    Returns:
      `coverage`, the share of images with an answer of one node or more; `selective_accuracy`, the share of these
      answers that are right; `full_coverage`, the share of images whose path loses no node, and `full_accuracy`, the
      share of these that are right; `level_coverage` and `level_accuracy`, the same by the level at which answers end.
      An accuracy is None where there are no answers.
    """
    named, (answered, right) = self.named(threshold), self.answers(threshold)
    levels = [named == level + 1 for level in range(self.confidence.shape[1])]
    whole = (named == self.length) & answered
    return {
      "coverage": float(answered.mean()),
      "selective_accuracy": _share(right, answered),
      "full_coverage": float(whole.mean()),
      "full_accuracy": _share(right, whole),
      "level_coverage": [float(here.mean()) for here in levels],
      "level_accuracy": [_share(right, here) for here in levels],
    }

  def curve(self, grid: Sequence[float]) -> list[dict[str, Any]]:
    """Returns the same for each of several thresholds."""
    return [self.at(threshold) for threshold in grid]


def _share(right: np.ndarray, of: np.ndarray) -> float | None:
  return float(right[of].mean()) if of.any() else None


def best_threshold(found: Confidences, accuracy: float) -> float:
  """Returns the smallest threshold of GRID with at least the selective accuracy `accuracy`.

  Raises:
    UserError: none has it.
  """
  reached = {threshold: found.at(threshold)["selective_accuracy"] for threshold in GRID}
  fit = [threshold for threshold, share in reached.items() if share is not None and share >= accuracy]
  if not fit:
    best = max((share, threshold) for threshold, share in reached.items() if share is not None)
    raise UserError(
      f"--selective-accuracy {accuracy:g}: no threshold reaches it on the {len(found.length):,} validation images; the "
      f"most is {percent(best[0])}, at {best[1]:g}: give less"
    )
  return min(fit)


@dataclasses.dataclass(frozen=True)
class ThresholdGoal:
  """The conditions and the goal of a choice of threshold.

  Attributes:
    ensemble: the runs that answer.
    conditions: those of `conditions_of`.
    accuracy: the selective accuracy that is wanted on validation.
  """

  ensemble: Ensemble
  conditions: Mapping[str, Any]
  accuracy: float


def conditions_of(ensemble: Ensemble, alpha: float, purpose: Purpose = Purpose()) -> dict[str, Any]:
  """Returns the conditions of a chosen threshold: the views of an ensemble's runs, alpha, and the purpose if any."""
  views = sorted({part.run.options.views for part in ensemble.parts})
  return {"views": views, "alpha": alpha, **purpose.conditions(ensemble.tree)}


def calibration_images(ensemble: Ensemble) -> Images:
  """Returns the images that certificates are made of: the split `calibration`, or else validation.

  Raises:
    UserError: the set has neither.
  """
  run = ensemble.whole.run
  for split in (CALIBRATION, "validation"):
    if run.source(split) is not None:
      return open_images(ensemble, split)
  raise UserError(
    f"--certify: {run.data.name!r} has neither calibration nor validation images; train with config.data.calibration = "
    "0.1, which keeps images that choose nothing"
  )


def choose_threshold(out: RunFolder, goal: ThresholdGoal, by_split: Mapping[str, Confidences]) -> Chosen:
  """Chooses the threshold on validation, keeps it in choices.json of a folder, and returns it.

  Args:
    out: the folder.
    goal: what is wanted, and under which conditions.
    by_split: the confidences for validation and then for other splits, by name.
  """
  threshold = best_threshold(by_split["validation"], goal.accuracy)
  promise = {"wanted": goal.accuracy, "certified": None, "sure": None}
  about = {**promise, "split": "validation", "images": len(by_split["validation"].length)}
  about |= {"checksum": goal.ensemble.whole.run.images_of("validation")["checksum"]}
  about |= record_of(threshold, of_own_images(out, goal.ensemble, by_split))
  made_for = threshold_conditions(out, goal.ensemble.runs, goal.conditions)
  return Chosen(threshold, keep_choice(out, Choice("threshold", threshold, made_for, about)))


def of_own_images(out: RunFolder, ensemble: Ensemble, by_split: Mapping[str, Confidences]) -> dict[str, Confidences]:
  """Returns the confidences for the first split, which chooses, and for others whose images are a folder's own."""
  first, run = next(iter(by_split)), ensemble.whole.run
  is_own = {s: s == first or not out.suffix_of(s, run.images_of(s)["checksum"]) for s in by_split}
  return {split: found for split, found in by_split.items() if is_own[split]}


def record_of(threshold: float, by_split: Mapping[str, Confidences]) -> dict[str, Any]:
  """Returns a threshold with the coverage and the selective accuracy of its answers by split, as plain data."""
  at = {split: found.at(threshold) for split, found in by_split.items()}
  shares = ("coverage", "selective_accuracy", "level_coverage", "level_accuracy")
  return {"threshold": threshold, **{name: {split: at[split][name] for split in at} for name in shares}}


def selective_table(found: Confidences, threshold: float, levels: Sequence[str]) -> str:
  """Returns the coverage and accuracy of the answers at a threshold, by names of levels, as a table for a terminal."""
  at, whole = found.at(threshold), found.at(0.0)
  rows: list[tuple[str, ...]] = [("answers", "coverage", "accuracy")]
  for level, share, right in zip(levels, at["level_coverage"], at["level_accuracy"], strict=True):
    rows.append((f"end at {level}", percent(share), percent(right)))
  rows.append(("abstained", percent(1 - at["coverage"]), "-"))
  rows.append(("all answers", percent(at["coverage"]), percent(at["selective_accuracy"])))
  rows.append(("full paths among them", percent(at["full_coverage"]), percent(at["full_accuracy"])))
  rows.append(("whole paths of all images", percent(whole["coverage"]), percent(whole["selective_accuracy"])))
  return table(rows)
