import numpy as np
import pytest

from benchmarks.certificates import swept, synthetic
from hierjax.errors import UserError
from hierjax.evaluation.choosing.certificates import STRICT_FIRST, Promise
from hierjax.evaluation.choosing.selective import best_threshold


@pytest.mark.parametrize("share", [0.8, 0.9, 0.95, 0.99])
def test_its_sweep_is_that_of_evaluate(share):
  found = synthetic(300, np.random.default_rng(1))
  try:
    expected = best_threshold(found, share)
  except UserError:
    expected = None
  number = swept(found, Promise(share))
  assert (None if number is None else STRICT_FIRST[number]) == expected
