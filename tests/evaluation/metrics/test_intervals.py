"""Intervals of metrics: Wilson's against scipy's, the bootstrap against the normal approximation, and pairs."""

import numpy as np
import pytest
from metric_oracle import made
from scipy.stats import binomtest

from hierjax.evaluation.metrics import intervals
from hierjax.evaluation.metrics.intervals import differences_of, intervals_of, resampled, samples, values_of
from hierjax.evaluation.metrics.measure import measured
from hierjax.evaluation.metrics.table import METRICS


def test_shares_have_wilsons_interval_and_every_interval_holds_its_value():
  facts, images = made("unknown", 0)
  found, values = intervals_of(facts), values_of(facts)
  counted = [image for image in images if image.counted]
  ci = binomtest(sum(image.right for image in counted), len(counted)).proportion_ci(method="wilson")
  np.testing.assert_allclose(found["path_accuracy"], [ci.low, ci.high])
  assert set(found) == set(values) == set(METRICS)
  for name, value in values.items():
    low, high = found[name][..., 0], found[name][..., 1]
    assert ((low <= value + 0.2) & (value - 0.2 <= high)).all() and (low < high).any(), name  # ECE's lies above


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error():
  facts, _ = made("unknown", 2, count=400)
  counted = facts.predictions.counted
  error = facts.edges[counted].std() / np.sqrt(counted.sum())
  low, high = intervals_of(facts)["tree_distance_edges"]
  assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
  drawn = resampled(facts)["brier"]
  assert drawn.shape == (1000,) and drawn.mean() == pytest.approx(values_of(facts)["brier"], abs=4 * drawn.std() / 30)


def test_samples_are_drawn_once_for_the_same_facts(monkeypatch):
  drawn = []
  original = intervals._resampled
  monkeypatch.setattr(intervals, "_resampled", lambda facts: drawn.append(facts) or original(facts))
  facts, other = made("unknown", 3)[0], made("unknown", 3)[0]
  first = resampled(facts)
  intervals_of(facts)
  differences_of(facts, other)
  assert drawn == [facts, other] and resampled(facts) is first
  np.testing.assert_array_equal(first["ece"], resampled(other)["ece"])
  monkeypatch.setattr(intervals, "_THREADS", 1)
  np.testing.assert_array_equal(original(facts)["operating_area"], first["operating_area"])


def test_samples_have_as_many_images_as_there_are():
  weights = np.concatenate(list(samples(700)))
  assert weights.shape == (1000, 700) and (weights.sum(axis=1) == 700).all()
  assert weights.mean(axis=0) == pytest.approx(1, abs=0.2) and weights.var() == pytest.approx(1, abs=0.05)


def test_pairs_are_compared_on_the_same_samples():
  """Predictions that differ on few images have a difference whose interval is narrower than either's own."""
  facts, _ = made("unknown", 0)
  for difference, ends in differences_of(facts, facts).values():
    assert (np.nan_to_num(difference) == 0).all() and (np.nan_to_num(ends) == 0).all()
  better = facts.predictions.replace(
    right=facts.predictions.right | (np.arange(50) == np.flatnonzero(facts.mistaken)[0])
  )
  other = type(facts)(facts.scored.replace(predictions=better), facts.table)
  difference, (low, high) = differences_of(other, facts)["path_accuracy"]
  own = intervals_of(facts)["path_accuracy"]
  assert difference == pytest.approx(1 / facts.predictions.counted.sum()) and low == 0
  assert difference < high < (own[1] - own[0]) / 2


def test_plain_data_has_none_where_nothing_counts():
  facts, _ = made("stop", 1)
  found = measured(facts)
  assert isinstance(found["path_accuracy"], float) and len(found["intervals"]["level_accuracy"]) == facts.table.depth
  nobody = facts.predictions.replace(counted=np.zeros(50, bool), labels=np.full_like(facts.predictions.labels, -4))
  none = measured(type(facts)(facts.scored.replace(predictions=nobody), facts.table))
  assert none["path_accuracy"] is None and none["intervals"]["aurc"] is None and none["level_nll"] == [None] * 3
