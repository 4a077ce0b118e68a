"""The choice of the interpolation factor alpha of classifier adaptation on validation."""

from __future__ import annotations

import numpy as np

from hierjax.evaluation.several_runs.ensembles import Errors
from hierjax.inference.members import Ensemble
from hierjax.inference.settings import alpha_conditions
from hierjax.runs.choices import Choice, Chosen, keep_choice
from hierjax.runs.folder import RunFolder

_CRITERION = "mean over the levels of the raw top-1 error"


def alpha_grid(depth: int) -> tuple[float, ...]:
  """Returns the 21 values of a sweep on a tree of `depth` levels: 0 to 2, and 0 to 1 beyond two levels."""
  return tuple(np.round(np.linspace(0, 2 if depth <= 2 else 1, 21), 2).tolist())


def best_alpha(errors: Errors) -> int:
  """Returns the number of the alpha with the smallest mean over the levels of the raw error of all members together.

  Of equally good ones it is the nearest to 1, where the levels agree, and then the smaller.
  """
  means = _level_mean(errors)
  return min(range(len(means)), key=lambda i: (round(means[i], 9), round(abs(errors.alphas[i] - 1), 9)))


def _level_mean(errors: Errors) -> list[float]:
  """Returns for each alpha the mean over the levels that count of the error of the ensemble of all members."""
  found: list[float] = np.nanmean(errors.mean(errors.sizes[-1])[:, :-1], axis=1).tolist()
  return found


def choose_alpha(out: RunFolder, ensemble: Ensemble, errors: Errors) -> Chosen:
  """Chooses alpha by the errors on validation, keeps it in choices.json of `out`, and returns it."""
  best, means = best_alpha(errors), _level_mean(errors)
  about = {
    "split": "validation",
    "images": int(errors.counted[-1]),
    "checksum": ensemble.whole.run.images_of("validation")["checksum"],
    "criterion": _CRITERION,
    "error": means[best],
    "error_at_0": means[errors.alphas.index(0.0)],
  }
  choice = Choice("alpha", errors.alphas[best], alpha_conditions(out, ensemble.runs), about)
  return Chosen(errors.alphas[best], keep_choice(out, choice))
