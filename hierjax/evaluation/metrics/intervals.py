"""95% intervals of metrics over images: Wilson's for shares of images, a bootstrap for all others; numpy."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from hierjax.evaluation.metrics.facts import Facts, Sample
from hierjax.evaluation.metrics.table import METRICS, Metric

RESAMPLES = 1000
_SHARE = 0.95
_AT_ONCE = 2**16  # weights that a thread holds together
_THREADS = min(4, os.cpu_count() or 1)

_kept: weakref.WeakKeyDictionary[Facts, dict[str, np.ndarray]] = weakref.WeakKeyDictionary()  # of `resampled`


def metrics_for(facts: Facts) -> dict[str, Metric]:
  """Returns the metrics that the predictions have what it takes for."""
  nodes, fixed = facts.scored.nodes is not None, facts.scored.raw_consistent
  left_out = {"inconsistent_predictions"} if fixed else set()
  return {
    name: metric
    for name, metric in METRICS.items()
    if (nodes or metric.needs == "nodes") and name not in left_out
  }  # fmt: skip


def values_of(facts: Facts) -> dict[str, np.ndarray]:
  """Returns each metric of all images, `f64[]` or `f64[l]`; nan where nothing counts."""
  sample = Sample(facts, np.ones((1, len(facts.predictions.labels))))
  return {name: np.asarray(metric.of(sample)[0]) for name, metric in metrics_for(facts).items()}


def intervals_of(facts: Facts) -> dict[str, np.ndarray]:
  """Returns the 95% interval of each metric, from one number to another, `f64[2]` or `f64[l 2]`; nan without images.

  That of a mean of values that are 0 or 1 is Wilson's (1927). All others are percentiles of 1,000 samples of the images
  with replacement (Efron 1979). `scipy.stats.bootstrap` would call each metric by itself on an array of resamples x
  images; here all metrics are computed on the same samples, some at a time.
  """
  drawn = resampled(facts)
  return {
    name: wilson(facts, metric) if _is_share(facts, metric) else _percentiles(drawn[name])
    for name, metric in metrics_for(facts).items()
  }


def resampled(facts: Facts) -> dict[str, np.ndarray]:
  """Returns each metric of RESAMPLES samples of the images, `f64[k]` or `f64[k l]`.

  For the same facts they are computed once.
  """
  if facts not in _kept:
    values_of(facts)  # fills what the threads share
    _kept[facts] = _resampled(facts)
    for values in _kept[facts].values():
      values.flags.writeable = False
  return _kept[facts]


def _resampled(facts: Facts) -> dict[str, np.ndarray]:
  metrics = metrics_for(facts)
  columns = {name: _columns(metric, facts) for name, metric in metrics.items() if metric.values is not None}

  def of(weights: Float[np.ndarray, "k n"]) -> dict[str, np.ndarray]:
    sample = Sample(facts, weights)
    return {
      name: sample.ratio(*columns[name]) if name in columns else metric.of(sample) for name, metric in metrics.items()
    }

  drawn = samples(len(facts.predictions.labels))
  parts: list[dict[str, np.ndarray]] = []
  with ThreadPoolExecutor(_THREADS) as pool:
    while some := list(itertools.islice(drawn, _THREADS)):  # `map` takes all that it is given at once
      parts += pool.map(of, some)
  return {name: np.concatenate([part[name] for part in parts]) if parts else np.full((1,), np.nan) for name in metrics}


def _columns(metric: Metric, facts: Facts) -> tuple[np.ndarray, np.ndarray]:
  """Returns a mean's sum and count of each image."""
  assert metric.values is not None
  values, counted = metric.values(facts)
  return np.where(counted, values, 0.0), counted.astype(np.float64)


def differences_of(first: Facts, second: Facts) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns the difference of each metric of two predictions for the same images, and its 95% interval, `[*l 2]`.

  Both are computed on the same samples of the images, so the images that are hard for both do not widen the interval.
  """
  ones, others = values_of(first), values_of(second)
  ours, theirs = resampled(first), resampled(second)  # the same samples: those of one seed
  return {
    name: (np.asarray(value - others[name]), _percentiles(ours[name] - theirs[name]))
    for name, value in ones.items()
    if name in others
  }


def samples(count: int) -> Iterator[Float[np.ndarray, "k n"]]:
  """Yields how often each of the images is in each of RESAMPLES samples of `count`, some samples at a time."""
  rng, left = np.random.default_rng(0), RESAMPLES if count else 0
  while left:
    rows = min(left, max(1, _AT_ONCE // count))
    drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
    yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
    left -= rows


def _is_share(facts: Facts, metric: Metric) -> bool:
  return metric.values is not None and metric.values(facts)[0].dtype == np.bool_


def wilson(facts: Facts, metric: Metric) -> Float[np.ndarray, "*l 2"]:
  """Returns Wilson's score interval of a share of the images that count; nan where none does."""
  assert metric.values is not None
  right, counted = metric.values(facts)
  k, n = (right & counted).sum(axis=0).astype(np.float64), counted.sum(axis=0).astype(np.float64)
  z = NormalDist().inv_cdf((1 + _SHARE) / 2)
  with np.errstate(invalid="ignore", divide="ignore"):
    middle, spread = (k + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
  found: np.ndarray = np.where(n[..., None] > 0, np.stack([middle - spread, middle + spread], axis=-1), np.nan)
  return np.clip(found, 0, 1)


def _percentiles(drawn: Float[np.ndarray, "k *l"]) -> Float[np.ndarray, "*l 2"]:
  """Returns the ends of the middle 95% of the samples that have a value; nan where none has."""
  ends = np.full((*drawn.shape[1:], 2), np.nan)
  for index in np.ndindex(*drawn.shape[1:]):
    values = drawn[(slice(None), *index)]
    values = values[~np.isnan(values)]
    if len(values):
      ends[index] = np.quantile(values, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
  return ends
