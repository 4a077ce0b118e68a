"""All metrics of predictions with their intervals, as plain data: what eval/SPLIT.json holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.intervals import intervals_of, values_of


def measured(facts: Facts) -> dict[str, Any]:
  """Returns each metric of `METRICS` by name, and all 95% intervals by name under `intervals`.

  A metric is a number, or a list of one a level; None where nothing counts. An interval is a list of two numbers.
  """
  values, intervals = values_of(facts), intervals_of(facts)
  return {
    **{name: _plain(value) for name, value in values.items()},
    "intervals": {name: _plain_ends(ends) for name, ends in intervals.items()},
  }


def _plain(value: np.ndarray) -> Any:
  if np.ndim(value):
    return [_plain(one) for one in value]
  return None if np.isnan(value) else float(value)


def _plain_ends(ends: np.ndarray) -> Any:
  if ends.ndim > 1:
    return [_plain_ends(one) for one in ends]
  return None if np.isnan(ends).any() else ends.tolist()
