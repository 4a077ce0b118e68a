"""The output layer with a learned scale, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.nn.layers.scaled_dense import ScaledDense


@pytest.mark.parametrize(("s", "factor"), [(0.0, 2.0), (0.7, 2 * np.exp(0.7)), (-0.5, 2 * np.exp(-0.5)), (-5.0, 0.25)])
def test_the_factor_is_at_least_a_quarter_and_its_gradient_goes_on_below(s, factor, rng):
  x, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 2, 4), (4, 5), (5,)))
  layer, scale = ScaledDense(5), jnp.float32(s)
  weights = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}

  def total(scale):
    z = layer.apply({"params": {**weights, "scale": scale}}, jnp.asarray(x))
    return z.sum(), z

  (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(scale)
  np.testing.assert_allclose(found, factor * (x @ kernel + bias), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(gradient, found.sum(), rtol=1e-4)  # d exp(s) / ds = exp(s)


def test_it_begins_as_a_linear_layer_does_but_for_the_factor_of_2():
  shapes = jax.eval_shape(ScaledDense(5).init, jax.random.key(0), jnp.zeros((1, 4)))["params"]
  assert {name: leaf.shape for name, leaf in shapes.items()} == {"kernel": (4, 5), "bias": (5,), "scale": ()}
  x = jnp.ones((1, 4))
  found, variables = ScaledDense(5, jnp.bfloat16).init_with_output(jax.random.key(0), x)
  assert found.dtype == jnp.float32 and variables["params"]["scale"] == 0
  np.testing.assert_allclose(found, 2 * (x @ variables["params"]["kernel"]), rtol=0.02, atol=0.02)
