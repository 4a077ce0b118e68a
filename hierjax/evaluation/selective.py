"""Answers that end where the model is not sure: what they are worth, and the choice on validation of where to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from hierjax.errors import UserError
from hierjax.evaluation.alpha import CHOSEN, SWEEP
from hierjax.evaluation.tables import percent, table
from hierjax.functional.adaptation import adapted
from hierjax.functional.combine import ensemble as averaged
from hierjax.functional.paths import ends, single_path
from hierjax.functional.selective import not_contradicted, sureness
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.members import Asked, Ensemble, identity
from hierjax.runs.folder import RunFolder

# What may be chosen: nets are often so sure that what is above 0.99 matters.
GRID = tuple(
  np.round([*np.arange(0, 0.99, 0.01), *np.arange(0.99, 0.999, 0.001), *np.arange(0.999, 1, 0.0001)], 4).tolist()
)


@dataclasses.dataclass(frozen=True)
class Answers:
  """What is needed to end the best path of each image anywhere.

  Attributes:
    sure: `f32[m l]`, how sure the model is of the path down to each level; 0 after its end.
    right: `bool[m l]`, whether the label contradicts nothing of it.
    length: `i64[m]`, how many nodes the whole path has.
  """

  sure: Float[np.ndarray, "m l"]
  right: Bool[np.ndarray, "m l"]
  length: np.ndarray

  def at(self, below: float) -> dict[str, Any]:
    """Returns what the answers are if paths end above nodes less probable than `below`.

    Returns:
      As shares of the images: `answered`, with a node at least; `whole`, of whose path nothing is left out; and
      `ends_at_level`, a list. Of these answers, which are `right`, `whole_right`, and `right_at_level`; None where
      there are none.
    """
    named = ((self.sure >= below) & (np.arange(self.sure.shape[1]) < self.length[:, None])).sum(axis=1)
    right = self.right[np.arange(len(named)), np.maximum(named, 1) - 1]
    levels = [named == level + 1 for level in range(self.sure.shape[1])]
    answered, whole = named > 0, (named == self.length) & (named > 0)
    return {
      "answered": float(answered.mean()),
      "right": _share(right, answered),
      "whole": float(whole.mean()),
      "whole_right": _share(right, whole),
      "ends_at_level": [float(here.mean()) for here in levels],
      "right_at_level": [_share(right, here) for here in levels],
    }

  def curve(self, grid: Sequence[float]) -> list[dict[str, Any]]:
    """Returns the same for each of several probabilities."""
    return [self.at(below) for below in grid]


def _share(right: np.ndarray, of: np.ndarray) -> float | None:
  return float(right[of].mean()) if of.any() else None


class AnswerCount:
  """Notes the best path of each image whose label is known: how sure the ensemble is of it, and whether it is right."""

  def __init__(self, ensemble: Ensemble, alpha: float | None = None):
    self._tree = ensemble.whole.run.method.tree
    self._alpha = None if alpha is None else np.float32(alpha)
    self._found: list[tuple[np.ndarray, ...]] = []

  def hear(self, asked: Asked) -> None:
    """Takes the answers for one batch."""
    sure, right, length, counted = jax.device_get(_answers(self._tree, asked, self._alpha))
    self._found.append((sure[counted], right[counted], length[counted]))

  def answers(self) -> Answers:
    """Returns what has been noted; raises UserError where no label is known."""
    sure, right, length = (np.concatenate(column) for column in zip(*self._found, strict=True))
    if not len(sure):
      raise UserError("--stop-below: no image has a label that answers could be compared with")
    return Answers(sure, right, length.astype(np.int64))


@jax.jit
def _answers(tree: TreeArrays, asked: Asked, alpha: Float[Array, ""] | None) -> tuple[Array, Array, Array, Array]:
  prediction = averaged(asked.predictions, tree, beam=1)
  if alpha is not None:
    prediction = adapted(prediction, alpha, tree, beam=1)
  labels, best = single_path(asked.paths), prediction.paths[:, 0]
  counted = (asked.mask > 0) & (ends(labels) >= 0)
  sure = sureness(prediction.paths[:, :1], prediction.node_prob)[:, 0]
  return sure, not_contradicted(best, labels), (best >= 0).sum(axis=1), counted


def choose(answers: Answers, right: float) -> float:
  """Returns the smallest value of GRID with which the share `right` of the answers is right.

  Raises:
    UserError: with none it is.
  """
  found = {below: answers.at(below)["right"] for below in GRID}
  fit = [below for below, share in found.items() if share is not None and share >= right]
  if not fit:
    best = max((share, below) for below, share in found.items() if share is not None)
    raise UserError(
      f"--right {right:g}: wherever paths end, no more than {percent(best[0])} of the {len(answers.sure):,} answers on "
      f"validation are right (at {best[1]:g}): ask for less"
    )
  return min(fit)


def parse_below(text: str) -> float:
  """Returns a number that stands on the command line; raises UserError for one that is none, or out of range."""
  try:
    below = float(text)
  except ValueError:
    raise UserError(f"--stop-below {text}: give a number, or a word that --help names") from None
  if not 0 <= below <= 1:
    raise UserError(f"--stop-below {text}: a probability is from 0 to 1")
  return below


def keep_choice(out: RunFolder, ensemble: Ensemble, alpha: float | None, answers: Answers, right: float) -> float:
  """Chooses where paths end by what is right on validation, writes stop.json, and returns it."""
  below = choose(answers, right)
  parts = [(part.folder, part.step) for part in ensemble.parts]
  out.write_stop(
    {
      "stop_below": below,
      "wanted": right,
      **answers.at(below),
      "split": "validation",
      "images": len(answers.sure),
      **_asked_how(out, parts, [part.run.options.views for part in ensemble.parts], alpha),
    }
  )
  return below


def asked_below(
  text: str, out: RunFolder | None, parts: Sequence[tuple[RunFolder, int]], views: Sequence[int], alpha: float | None
) -> float:
  """Returns where paths end, by --stop-below: a number, or what was chosen for runs, asked in this way.

  Args:
    text: what stands on the command line.
    out: the folder with stop.json.
    parts: the runs, by their folders and the steps of their weights.
    views: that each averages.
    alpha: by which the levels are adapted; None for not at all.

  Raises:
    UserError: as `parse_below`; or nothing was chosen, or for other runs, weights, views or another alpha.
  """
  if text != CHOSEN:
    return parse_below(text)
  assert out is not None
  path, choice = out.path / "stop.json", out.stop()
  again = f"`evaluate ... --stop-below {SWEEP}`"
  if choice is None:
    raise UserError(f"--stop-below {CHOSEN}: there is no {path}; {again} chooses it on validation")
  how = _asked_how(out, parts, views, alpha)
  if any(choice.get(key) != value for key, value in how.items()):
    raise UserError(
      f"--stop-below {CHOSEN}: {path} was chosen for other runs or weights, views or alpha; choose again with {again}"
    )
  return float(choice["stop_below"])


def _asked_how(
  out: RunFolder, parts: Sequence[tuple[RunFolder, int]], views: Sequence[int], alpha: float | None
) -> dict[str, Any]:
  return {"views": sorted(set(views)), "alpha": alpha, "members": identity(out, parts)}


def describe(answers: Answers, below: float) -> str:
  """Returns what the answers are, with paths that end above nodes less probable than `below`, as a table."""
  found, whole, rows = answers.at(below), answers.at(0.0), [("answers", "share", "right")]
  for level, (share, right) in enumerate(zip(found["ends_at_level"], found["right_at_level"], strict=True), 1):
    rows.append((f"ends at level {level}", percent(share), percent(right)))
  rows.append(("no answer", percent(1 - found["answered"]), "-"))
  rows.append(("all answers", percent(found["answered"]), percent(found["right"])))
  rows.append(("of them whole paths", percent(found["whole"]), percent(found["whole_right"])))
  rows.append(("without stopping", percent(whole["answered"]), percent(whole["right"])))
  return table(rows)
