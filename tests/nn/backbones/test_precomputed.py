import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.precomputed import PrecomputedFeatures
from hierjax.nn.registry import ModelConfig, make_method


def test_features_pass_through_without_a_weight(rng):
  backbone, inputs = PrecomputedFeatures(5), jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
  features, variables = backbone.init_with_output({}, inputs)
  assert variables == {} and features.stages == ()
  np.testing.assert_array_equal(features.pooled, inputs)


@pytest.mark.parametrize("shape", [(3, 4), (3, 8, 8, 3)])
def test_other_inputs_get_a_sentence(shape):
  with pytest.raises(UserError, match="reads vectors of 5 features"):
    PrecomputedFeatures(5).init({}, jnp.zeros(shape))


@pytest.mark.parametrize(
  ("section", "message"),
  [
    ({"width": 0}, r"config\.backbone: width = 0: must be 1 or more"),
    ({"width": "wide"}, r"config\.backbone\.width = 'wide': must be a whole number"),
    ({}, r"config\.backbone\.width is missing"),
  ],
)
def test_a_config_must_say_how_wide_they_are(toy_tree, section, message):
  with pytest.raises(UserError, match=message):
    make_method(ModelConfig({"name": "features", **section}, {"name": "flat"}), tree_arrays(toy_tree))
