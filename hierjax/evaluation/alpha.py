"""The interpolation factor of classifier adaptation: its range, its choice on validation, where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierjax.errors import UserError
from hierjax.evaluation.ensemble import Errors
from hierjax.functional.adaptation import check_alpha
from hierjax.inference.members import Ensemble, identity
from hierjax.runs.folder import RunFolder

CHOSEN, SWEEP = "chosen", "sweep"  # in place of a number
_CRITERION = "mean over the levels of the top-1 error"


def grid(depth: int) -> tuple[float, ...]:
  """Returns the 21 values that are swept on a tree of `depth` levels: 0 to 2, and to 1 beyond two levels."""
  return tuple(np.round(np.linspace(0, 2 if depth <= 2 else 1, 21), 2).tolist())


def parse_alpha(text: str, depth: int, flag: str = "--alpha") -> float:
  """Returns a number that stands on the command line; raises UserError for one that is none, or out of range."""
  try:
    alpha = float(text)
  except ValueError:
    words = ", or a word that --help names" if flag == "--alpha" else ""
    raise UserError(f"{flag} {text}: give a number{words}") from None
  check_alpha(alpha, depth, flag)
  return alpha


def check_asked(text: str, depth: int) -> None:
  """Raises UserError as `parse_alpha` does, unless text is '' or stands for an alpha that validation chooses."""
  if text not in ("", CHOSEN, SWEEP):
    parse_alpha(text, depth)


def best_alpha(errors: Errors) -> int:
  """Returns the number of the alpha at which the ensemble of all members has the smallest mean of its levels' errors.

  Of equally good ones it is the nearest to 1, where the levels agree, and then the smaller.
  """
  means = _level_mean(errors)
  return min(range(len(means)), key=lambda i: (round(means[i], 9), round(abs(errors.alphas[i] - 1), 9)))


def _level_mean(errors: Errors) -> list[float]:
  """Returns for each alpha the mean over the levels that count of the error of the ensemble of all members."""
  found: list[float] = np.nanmean(errors.mean(errors.sizes[-1])[:, :-1], axis=1).tolist()
  return found


def keep_alpha(out: RunFolder, ensemble: Ensemble, errors: Errors) -> dict[str, Any]:
  """Chooses alpha by the errors on validation, writes alpha.json, and returns what it holds."""
  best, means = best_alpha(errors), _level_mean(errors)
  choice = {
    "alpha": errors.alphas[best],
    "split": "validation",
    "images": int(errors.counted[-1]),
    "criterion": _CRITERION,
    "error": means[best],
    "error_at_0": means[errors.alphas.index(0.0)],
    "members": identity(out, [(part.folder, part.step) for part in ensemble.parts]),
  }
  out.write_alpha(choice)
  return choice


def chosen_alpha(out: RunFolder, parts: Sequence[tuple[RunFolder, int]]) -> float:
  """Returns the alpha that was chosen for runs, given by their folders and the steps of their weights.

  Raises:
    UserError: none was, or for other runs or weights.
  """
  path, choice = out.path / "alpha.json", out.alpha()
  if choice is None:
    raise UserError(f"--alpha {CHOSEN}: there is no {path}; `evaluate ... --alpha {SWEEP}` chooses it on validation")
  if choice.get("members") != identity(out, parts):
    raise UserError(f"--alpha {CHOSEN}: {path} was chosen for other runs or weights; choose again with --alpha {SWEEP}")
  return float(choice["alpha"])


def asked_alpha(text: str, depth: int, out: RunFolder | None, parts: Sequence[tuple[RunFolder, int]]) -> float | None:
  """Returns the alpha that --alpha asks for: a number, or what was chosen for runs; None for ''.

  Raises:
    UserError: as `parse_alpha` and `chosen_alpha`.
  """
  if not text:
    return None
  if text == CHOSEN:
    assert out is not None
    return chosen_alpha(out, parts)
  return parse_alpha(text, depth)
