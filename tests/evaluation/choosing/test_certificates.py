"""Certificates: the bounds against scipy, the order of the tests, and the promise itself in simulations."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from hierjax.errors import UserError
from hierjax.evaluation.choosing.certificates import (
  STRICT_FIRST,
  Promise,
  Trials,
  certificate_of,
  certify,
  guided_start,
  last_passed,
  lower_bound,
  sentences,
  trials_of,
)
from hierjax.evaluation.choosing.selective import Confidences, best_threshold

DRAWS = 400


def flat_answers(confidence, right):
  """Returns confidences in answers of one level."""
  return Confidences(confidence.astype(np.float32)[:, None], right[:, None], np.ones(len(right), np.int64))


def population(rng, count):
  """Returns images whose answers are right less often than their confidence says, the more so in the middle."""
  confidence = rng.beta(2.5, 1.0, count)
  right = rng.random(count) < np.clip(confidence + 0.06 * np.sin(7 * confidence), 0, 1)
  return confidence, right


@pytest.mark.parametrize("sure", [0.5, 0.9, 0.99])
def test_the_bound_is_that_of_scipys_exact_test(rng, sure):
  for trials in (1, 7, 45, 300):
    for right in {0, 1, trials // 2, trials - 1, trials}:
      interval = binomtest(right, trials, alternative="greater").proportion_ci(sure, method="exact")
      assert lower_bound(right, trials, sure) == pytest.approx(interval.low, abs=1e-9)
      share = rng.random()
      rejected = binomtest(right, trials, share, alternative="greater").pvalue <= 1 - sure
      assert rejected == (lower_bound(right, trials, sure) >= share)
  assert lower_bound(0, 0, sure) == 0


def test_the_fewest_trials_are_those_that_pass_if_all_are_right():
  for right, sure in ((0.95, 0.9), (0.99, 0.9), (0.8, 0.95), (0.5, 0.5), (0.9, 0.99)):
    fewest = Promise(right, sure).fewest
    assert lower_bound(fewest, fewest, sure) >= right - 1e-12 > lower_bound(fewest - 1, fewest - 1, sure)


def test_nothing_counts_after_the_first_test_that_fails():
  passes = np.array([False, True, True, False, True, True])
  assert last_passed(passes, 1) == 2 and last_passed(passes, 4) == 5
  assert last_passed(passes, 0) is None and last_passed(passes, 3) is None


def test_the_trials_are_those_of_a_loop_over_images_and_thresholds(rng):
  length = rng.integers(0, 4, 80)
  confidence = np.minimum.accumulate(rng.choice(STRICT_FIRST, (80, 3)), axis=1).astype(np.float32)  # ties with the grid
  confidence[np.arange(3) >= length[:, None]] = 0
  right = np.minimum.accumulate(rng.random((80, 3)) < 0.8, axis=1)
  found = Confidences(confidence, right, length)
  of_answers, of_images = trials_of(found, "answers"), trials_of(found, "images")
  for i, threshold in enumerate(STRICT_FIRST):
    answers = []
    for image in range(80):
      named = 0
      while named < length[image] and confidence[image, named] >= np.float32(threshold):
        named += 1
      if named:
        answers.append(right[image, named - 1])
    assert (of_answers.right[i], of_answers.total[i]) == (sum(answers), len(answers))
    assert (of_images.right[i], of_images.total[i]) == (80 - len(answers) + sum(answers), 80)
    answered, is_right = found.answers(threshold)
    assert (answered.sum(), is_right.sum()) == (len(answers), sum(answers))


def broken_shares(rng, promise, choose, draws=DRAWS):
  """Returns the share of draws of 800 images whose threshold breaks the promise, and of those with a threshold."""
  confidence, right = population(rng, 400_000)
  order = np.argsort(-confidence.astype(np.float32))
  places = np.searchsorted(-confidence.astype(np.float32)[order], -np.float32(STRICT_FIRST), side="right")
  wrong = np.concatenate([[0], np.cumsum(~right[order])])[places]
  kept = wrong <= (1 - promise.right) * (places if promise.of == "answers" else len(right))
  broken = given = 0
  for _ in range(draws):
    rows = rng.integers(0, len(right), 800)
    threshold = choose(flat_answers(confidence[rows], right[rows]))
    if threshold is not None:
      given += 1
      broken += not kept[STRICT_FIRST.index(threshold)]
  return broken / draws, given / draws


@pytest.mark.parametrize("of", ["answers", "images"])
def test_the_promise_is_kept_as_often_as_promised(rng, of):
  promise = Promise(0.93, 0.9, of)

  def certified(found):
    certificate = certify(found, promise)
    return certificate.threshold if certificate.certified else None

  broken, given = broken_shares(rng, promise, certified)
  assert broken < 0.1 + 3 * math.sqrt(0.1 * 0.9 / DRAWS)
  assert given > 0.8  # and is not kept by giving nothing


def test_the_sweep_breaks_it(rng):
  broken, _ = broken_shares(rng, Promise(0.93), lambda found: best_threshold(found, 0.93), draws=60)
  assert broken > 0.3


def test_an_order_that_looks_at_labels_breaks_it(rng):
  """The promise is false at each threshold; testing the best looking one first finds it true, far too often."""
  promise, breaks = Promise(0.95), {"fixed": 0, "best first": 0}
  for _ in range(DRAWS):
    right = rng.binomial(200, 0.945, len(STRICT_FIRST))
    trials = Trials(right, *[np.full(len(STRICT_FIRST), 200)] * 2)
    breaks["fixed"] += certificate_of(trials, promise, 0, 200).certified
    best_first = trials._replace(right=np.sort(right)[::-1])
    breaks["best first"] += certificate_of(best_first, promise, 0, 200).certified
  assert breaks["fixed"] / DRAWS < 0.1 + 3 * math.sqrt(0.1 * 0.9 / DRAWS) < 0.9 < breaks["best first"] / DRAWS


def test_where_the_tests_begin_depends_on_no_label_and_on_no_tested_image(rng):
  promise = Promise(0.95)
  confidence, right = population(rng, 2000)
  start, tested = guided_start(flat_answers(confidence, right), promise)
  assert tested.sum() == 1800 and 45 < (confidence[tested] >= STRICT_FIRST[start]).sum() < 400
  assert guided_start(flat_answers(confidence, ~right), promise)[0] == start
  other = np.where(tested, rng.random(2000), confidence)
  assert guided_start(flat_answers(other, right), promise)[0] == start


@pytest.mark.parametrize(("count", "certified"), [(5, False), (44, False), (200, True)])
@pytest.mark.parametrize("of", ["answers", "images"])
def test_too_few_images_certify_nothing_and_how_many_would_is_said(of, count, certified):
  found = flat_answers(np.full(count, 0.995), np.ones(count, bool))
  certificate = certify(found, Promise(0.95, 0.9, of))
  assert certificate.certified == certified and certificate.about()["certified"] == (0.95 if certified else None)
  if not certified:
    enough = certificate.needed
    assert enough is not None and 45 <= enough <= 60
    more = flat_answers(np.full(enough, 0.995), np.ones(enough, bool))
    assert certify(more, Promise(0.95, 0.9, of)).certified
    assert f"about {enough} calibration images would be enough" in sentences(certificate, "calibration")


@pytest.mark.parametrize("of", ["answers", "images"])
def test_what_can_be_promised_instead_is_the_bound_where_the_tests_begin(rng, of):
  confidence = np.ones(1000)
  right = rng.random(1000) < 0.8
  certificate = certify(flat_answers(confidence, right), Promise(0.95, 0.9, of))
  assert not certificate.certified and certificate.needed is None and certificate.threshold == STRICT_FIRST[0]
  low = binomtest(certificate.right, certificate.trials, alternative="greater").proportion_ci(0.9, method="exact").low
  assert certificate.bound == pytest.approx(low) and 0.75 < low < 0.82
  text = sentences(certificate, "calibration")
  assert "ask for less" in text and (f"{100 * low:.2f}%" if of == "answers" else f"{100 * (1 - low):.2f}%") in text


def test_a_promise_kept_by_answering_nothing_says_so():
  found = flat_answers(np.full(1000, 0.9), np.zeros(1000, bool))
  certificate = certify(found, Promise(0.95, of="images"))
  assert certificate.certified and 0.9 < certificate.threshold < 0.92 and certificate.answers == 0
  assert "no calibration image gets an answer there" in sentences(certificate, "calibration")


def test_validation_images_are_said_to_be_used_twice(rng):
  certificate = certify(flat_answers(*population(rng, 3000)), Promise(0.9))
  assert certificate.certified and "used twice" in sentences(certificate, "validation")
  assert "used twice" not in sentences(certificate, "calibration")


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ((1.0,), "--certify 1: must be above 0 and below 1"),
    ((0.0,), "--certify 0: must be"),
    ((0.9, 1.0), "--sure 1: must be above 0 and below 1"),
    ((0.9, 0.9, "x"), "--of x: choose from answers, images"),
  ],
)
def test_promises_that_no_images_can_prove_are_refused(values, message):
  with pytest.raises(UserError, match=message):
    Promise(*values)
