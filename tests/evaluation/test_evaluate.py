import math

import jax.numpy as jnp
import pytest

from hierjax.evaluation.evaluate import mean_values
from hierjax.functional.metrics import Mean
from hierjax.functional.multilabel import F1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_told_from_what_was_not_counted(bad):
  values = jnp.array([[bad, bad], [1.0, 1.0]])
  found = mean_values(
    {
      "loss": Mean.of(values[:, 0], jnp.ones(2)),
      "uncounted": Mean.of(values[:, 0], jnp.zeros(2)),
      "levels": Mean.of(values, jnp.array([[1.0, 0.0], [1.0, 0.0]])),
      "path_f1": F1(jnp.zeros(3), jnp.ones(3), jnp.zeros(3)),
    }
  )
  assert str(found["loss"]) == str(bad) and found["uncounted"] is None and found["path_f1"] is None
  assert str(found["levels"][0]) == str(bad) and found["levels"][1] is None
