"""Which stages each step reads, and their mean."""

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.layers.conversions import Conversion
from hierjax.nn.layers.stage_sequence import StageSequence, default_subsets


def test_the_deepest_stage_comes_first_and_the_last_step_takes_the_rest():  # READINGS K1
  assert default_subsets(4, 3) == ((4,), (3,), (1, 2))
  assert default_subsets(4, 1) == ((1, 2, 3, 4),)
  assert default_subsets(3, 3, "shallow_first") == ((1,), (2,), (3,))


def test_a_step_is_the_mean_of_its_stages():  # u_t of section 3.1
  stages = tuple(jax.random.normal(jax.random.key(i), (2, 8 // 2**i, 8 // 2**i, 4)) for i in range(3))
  u = StageSequence(16, steps=2).apply({}, stages)
  alone = [Conversion("pool", 16).apply({}, stage) for stage in stages]
  np.testing.assert_allclose(u[:, 0], alone[2], rtol=1e-6)
  np.testing.assert_allclose(u[:, 1], (alone[0] + alone[1]) / 2, rtol=1e-6)


@pytest.mark.parametrize(
  ("subsets", "message"),
  [
    (((4,), (2,)), "each must hold stages of the backbone, 1 to 3"),
    (((3,), ()), "each must hold"),
    (((3,), (1, 1)), "none twice"),
    (((2,), (1, 3)), r"all stages of a subset must come before those of the next, or all after .*\(\(3,\), \(1, 2\)\)"),
    (((1, 2), (2, 3)), "all stages of a subset must come before"),
    (((3,),), "label paths have 2 steps, so give 2 subsets"),
  ],
)
def test_subsets_that_cannot_be_are_refused(subsets, message):
  with pytest.raises(UserError, match=message):
    StageSequence(16, subsets=subsets, steps=2).resolved(3)


def test_a_tree_deeper_than_the_network_is_refused():  # READINGS K17
  with pytest.raises(
    UserError, match=r"label paths have 4 steps and the backbone 3 stages.*config\.tree\.levels.*dhnn_s2s"
  ):
    StageSequence(16, steps=4).resolved(3)
  with pytest.raises(UserError, match="the backbone `features` has none"):
    StageSequence(16, steps=4).resolved(0)


def test_subsets_may_rise_or_fall():
  for subsets in (((1,), (2, 3)), ((3,), (2, 1)), ((2,), (3,))):
    assert StageSequence(16, subsets=subsets, steps=2).resolved(3) == subsets
