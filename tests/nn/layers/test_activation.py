import jax
import jax.numpy as jnp
import numpy as np

from hierjax.nn.layers.activation import relu6


def test_relu6_and_its_gradient():
  x = np.float32([-np.inf, -2, -0.0, 0, 1e-3, 3, 5.99, 6, 7, np.inf, np.nan])

  @jax.jit
  def run(x):
    y, pull = jax.vjp(relu6, x)
    return y, *pull(2 * jnp.ones_like(x))

  y, gradient = run(x)
  np.testing.assert_array_equal(y, np.float32([0, 0, 0, 0, 1e-3, 3, 5.99, 6, 6, 6, np.nan]))
  np.testing.assert_array_equal(gradient, np.float32([0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0]))
  assert [a.dtype for a in jax.eval_shape(run, x.astype(jnp.bfloat16))] == [jnp.bfloat16] * 2
