"""Settings of the pipeline as flags give them: a number, or `chosen` for the value that was chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hierjax.errors import UserError
from hierjax.functional.adaptation import check_alpha, levels_agree
from hierjax.runs.choices import certified_threshold, chosen_value, find_choice, run_identity
from hierjax.runs.folder import RunFolder
from hierjax.types import DecodeOptions, Distribution

CHOSEN, SWEEP, CERTIFIED = "chosen", "sweep", "certified"  # in place of a number

Runs = Sequence[tuple[RunFolder, int]]  # run folders, and the steps of their weights


def parse_alpha(text: str, depth: int, flag: str = "--alpha") -> float:
  """Returns the number of a flag; raises UserError for text that is no number, or out of range."""
  alpha = _number(text, flag)
  check_alpha(alpha, depth, flag)
  return alpha


def alpha_of_flag(text: str, depth: int, out: RunFolder | None, runs: Runs) -> float:
  """Returns the alpha of `--alpha`: a number, or the chosen one; 0 for ''.

  Args:
    text: of the flag.
    depth: levels of the tree.
    out: the folder with the choices.
    runs: the runs that are adapted.

  Raises:
    UserError: as `parse_alpha` and `chosen_value` do.
  """
  if not text:
    return 0.0
  if text == CHOSEN and out is not None:
    return chosen_value(out, "alpha", alpha_conditions(out, runs))
  return parse_alpha(text, depth)


def alpha_conditions(out: RunFolder, runs: Runs) -> dict[str, Any]:
  """Returns the conditions under which a chosen alpha holds."""
  return {"members": run_identity(out, runs)}


def threshold_of_flag(text: str, out: RunFolder | None, runs: Runs, conditions: Mapping[str, Any]) -> float:
  """Returns the confidence threshold of `--threshold`: a number, or the chosen or certified one; 0 for ''.

  Args:
    text: of the flag.
    out: the folder with the choices.
    runs: the runs that answer.
    conditions: further conditions of the choice: views and alpha.

  Raises:
    UserError: it is no probability, or nothing was chosen or certified, or only under other conditions.
  """
  if not text:
    return 0.0
  if text == CHOSEN and out is not None:
    return chosen_value(out, "threshold", threshold_conditions(out, runs, conditions))
  if text == CERTIFIED and out is not None:
    return certified_threshold(out, threshold_conditions(out, runs, conditions))
  threshold = _number(text, "--threshold")
  if not 0 <= threshold <= 1:
    raise UserError(f"--threshold {text}: a probability is from 0 to 1")
  return threshold


def threshold_conditions(out: RunFolder, runs: Runs, conditions: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the conditions under which a chosen confidence threshold holds."""
  return {**conditions, "members": run_identity(out, runs)}


def kept_thresholds(folder: RunFolder, step: int, options: DecodeOptions) -> tuple[float, ...]:
  """Returns the thresholds that were chosen for the weights of a step and such options; () where there are none."""
  found = find_choice(folder, "thresholds", thresholds_conditions(step, options))
  return () if found is None else tuple(float(value) for value in found.value)  # type: ignore[union-attr]


def thresholds_conditions(step: int, options: DecodeOptions) -> dict[str, Any]:
  """Returns the conditions under which the chosen thresholds of a multi-label head hold."""
  return {"step": step, "per": options.threshold_per, "views": options.views}


def why_unadapted(distribution: Distribution, depth: int) -> str:
  """Returns why no alpha changes a distribution, as a sentence; '' where alpha does (READINGS D8).

  Args:
    distribution: of a run or an ensemble, or its shapes.
    depth: levels of the tree.
  """
  if depth == 1:
    return "The tree has one level, with which nothing has to agree: alpha changes nothing."
  if distribution.node_score is not None:
    return "A multi-label head has no distribution over a level that could be adapted: alpha changes nothing."
  if distribution.level_prob is None:
    return "The head follows the chain rule, so that its levels agree by construction: alpha changes nothing."
  if levels_agree(distribution, depth):
    return "The upper levels are sums of the last, so that they agree by construction: alpha changes nothing."
  return ""


def _number(text: str, flag: str) -> float:
  try:
    return float(text)
  except ValueError:
    raise UserError(f"{flag} {text}: give a number, or a word that --help names") from None
