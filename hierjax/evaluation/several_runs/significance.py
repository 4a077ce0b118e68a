"""Whether two sets of runs differ by more than chance, over runs and over images (Dutt et al. 2017, section 4)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from hierjax.errors import UserError
from hierjax.evaluation.tables import percent, table

HEADER = ("error", "first", "second", "difference", "t", "p", "interval_from", "interval_to", "runs", "images")
_RESAMPLES, _SHARE = 10_000, 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
  """How the errors of two sets of runs differ, of the raw argmax at a level or of the path.

  Attributes:
    name: of the error; see `error_names`.
    runs: pairs of runs.
    images: that count.
    first: the mean error of the first set, from 0 to 1.
    second: that of the second.
    t: Student's t of the differences of the pairs; nan where all are 0.
    p: its two-sided p-value, of `runs - 1` degrees of freedom.
    interval: where the difference lies in 95% of the bootstrap's samples of the images.
  """

  name: str
  runs: int
  images: int
  first: float
  second: float
  t: float
  p: float
  interval: tuple[float, float]


def differences(
  first: Bool[np.ndarray, "m n i"],
  second: Bool[np.ndarray, "m n i"],
  counted: Bool[np.ndarray, "n i"],
  levels: Sequence[str],
) -> list[Difference]:
  """Compares two sets of runs, the m-th of one with the m-th of the other, on the same images.

  Args:
    first: the errors of each run of the first set: of the raw argmax level by level, and last of the path.
    second: the same of the second set.
    counted: which of them count.
    levels: their names.
  """
  rng = np.random.default_rng(0)
  found = []
  for i, name in enumerate(error_names(levels)):
    ours, theirs = (runs[:, counted[:, i], i].astype(np.float64) for runs in (first, second))
    if ours.shape[1] == 0:
      continue
    t, p = paired_t(ours.mean(axis=1), theirs.mean(axis=1))
    interval = bootstrap((ours - theirs).mean(axis=0), rng)
    runs, images = ours.shape
    found.append(Difference(name, runs, images, float(ours.mean()), float(theirs.mean()), t, p, interval))
  return found


def error_names(levels: Sequence[str]) -> list[str]:
  """Returns the names of top-1 errors, given those of the levels: of the raw argmax at each, and of the path."""
  return [f"raw {level}" for level in levels] + ["path"]


def check_pairs(first: int, second: int) -> None:
  """Raises UserError for sets of so many runs that cannot be paired, or whose pairs have no spread."""
  if first != second or first < 2:
    raise UserError(
      f"--against: {first} against {second} runs; they are paired in their order, so give as many of both, 2 or more"
    )


def paired_t(first: Float[np.ndarray, "m"], second: Float[np.ndarray, "m"]) -> tuple[float, float]:
  """Returns t and the two-sided p-value of Student's t-test of the differences of m pairs (`scipy.stats.ttest_rel`).

  Equal differences have no spread to measure them by: then p is 0, or 1 where they are 0, and t is inf or nan.
  """
  found = first - second
  if np.ptp(found) <= 1e-12:
    return (math.nan, 1.0) if abs(found[0]) <= 1e-12 else (math.copysign(math.inf, found[0]), 0.0)
  from scipy import stats  # 3 seconds, which every command would wait for

  t, p = stats.ttest_rel(first, second)
  return float(t), float(p)


def bootstrap(values: Float[np.ndarray, "n"], rng: np.random.Generator) -> tuple[float, float]:
  """Returns where the mean of `values` lies in 95% of 10,000 samples of n of them, drawn with replacement.

  `scipy.stats.bootstrap` would hold an array of resamples x n. Equal values are drawn together here, by a multinomial
  distribution of their counts, so that the samples need no memory of their own.
  """
  kinds, counts = np.unique(values, return_counts=True)
  drawn = rng.multinomial(len(values), counts / len(values), size=_RESAMPLES)
  ends = np.quantile(drawn @ kinds / len(values), [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
  return float(ends[0]), float(ends[1])


def difference_table(found: Sequence[Difference]) -> str:
  """Returns the differences as a table for a terminal."""
  if not found:
    return "no image has a label that counts, so there is nothing to compare"
  rows: list[tuple[str, ...]] = [("top-1 error", "first", "second", "difference", "t", "p", "95% interval")]
  for one in found:
    low, high = (f"{100 * end:+.2f}" for end in one.interval)
    shown = f"{100 * (one.first - one.second):+.2f}", f"{one.t:.2f}", f"{one.p:.2g}", f"{low} to {high}"
    rows.append((one.name, percent(one.first), percent(one.second), *shown))
  notes = (
    f"p: paired Student t-test over {found[0].runs} pairs of runs, in the order given",
    f"interval: of the difference, by a bootstrap over {max(one.images for one in found):,} images",
  )
  return "\n".join([table(rows), *notes])


def csv_rows(found: Sequence[Difference]) -> list[tuple[object, ...]]:
  """Returns the rows of the CSV file, as HEADER names their columns."""
  return [
    (one.name, one.first, one.second, one.first - one.second, one.t, one.p, *one.interval, one.runs, one.images)
    for one in found
  ]
