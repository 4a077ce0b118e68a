import jax
import jax.numpy as jnp
import numpy as np

from hierjax.nn.layers.activation import relu6


def test_relu6_and_its_gradient():
  x = jnp.asarray([-jnp.inf, -2, -0.0, 0, 1e-3, 3, 5.99, 6, 7, jnp.inf, jnp.nan], jnp.float32)
  y, pull = jax.vjp(relu6, x)
  np.testing.assert_array_equal(y, np.float32([0, 0, 0, 0, 1e-3, 3, 5.99, 6, 6, 6, np.nan]))
  np.testing.assert_array_equal(pull(2 * jnp.ones_like(x))[0], np.float32([0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0]))
  half = x.astype(jnp.bfloat16)
  assert relu6(half).dtype == jax.grad(lambda x: relu6(x).sum())(half).dtype == jnp.bfloat16
