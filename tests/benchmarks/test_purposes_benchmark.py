import numpy as np
import pytest

from benchmarks.purposes import mean_costs
from hierjax.evaluation.predictions import Predictions
from hierjax.tree.label_tree import PAD


def test_costs_of_answers_of_any_level(toy_tree):
  """Labels and answers: a right leaf, its sibling, its grandparent, another branch, and no answer."""
  ends = [(5, 5), (5, 6), (5, 0), (5, 4), (4, -1)]
  labels, paths = (toy_tree.encode([end[i] for end in ends]) for i in (0, 1))
  paths = np.where(paths >= 0, paths, PAD)
  empty = np.zeros(len(ends))
  found = mean_costs(Predictions(np.ones(5, bool), empty, empty, labels, paths, *[empty] * 3), toy_tree)
  assert found["edges"] == pytest.approx(np.mean([0, 2, 2, 5, 2]))
  assert found["height"] == pytest.approx(np.mean([0, 1, 2, 3, 3]))
  assert found["hf1"] == pytest.approx(np.mean([1, 2 / 3, 1 / 2, 0, 0]))
  assert found["hf2"] == pytest.approx(np.mean([1, 2 / 3, 5 / 13, 0, 0])) and found["answered"] == 0.8
