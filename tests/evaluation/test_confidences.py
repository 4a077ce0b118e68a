"""Coverage and selective accuracy at a threshold, against loops in plain Python."""

import numpy as np
import pytest

from hierjax.evaluation.choosing.selective import Confidences


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_shares_are_those_of_a_loop_over_the_images(rng, threshold):
  length = rng.integers(1, 4, 60)
  confidence = np.minimum.accumulate(rng.choice([0.2, 0.3, 0.5, 0.6, 0.8, 0.9], (60, 3)), axis=1).astype(np.float32)
  confidence[np.arange(3) >= length[:, None]] = 0
  right = np.minimum.accumulate(rng.random((60, 3)) < 0.7, axis=1)
  answers = {level: [] for level in range(4)}  # by the number of nodes: whether it is right, and the path's length
  for image in range(60):
    named = 0
    while named < length[image] and confidence[image, named] >= np.float32(threshold):
      named += 1
    answers[named].append((named > 0 and right[image, named - 1], named == length[image]))

  def share(found):
    return sum(found) / len(found) if found else None

  given = [answer for level in (1, 2, 3) for answer in answers[level]]
  expected = {
    "coverage": len(given) / 60,
    "selective_accuracy": share([is_right for is_right, _ in given]),
    "full_coverage": sum(whole for _, whole in given) / 60,
    "full_accuracy": share([is_right for is_right, whole in given if whole]),
    "level_coverage": [len(answers[level]) / 60 for level in (1, 2, 3)],
    "level_accuracy": [share([is_right for is_right, _ in answers[level]]) for level in (1, 2, 3)],
  }
  found = Confidences(confidence, right, length).at(threshold)
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name] == (value if None in np.atleast_1d(value) else pytest.approx(value)), name
