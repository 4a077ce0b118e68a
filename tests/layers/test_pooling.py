import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.layers.pooling import largest, max_pool, mean_pool


@pytest.mark.parametrize(("axis", "winners"), [(1, [[0, 1, 1], [1, 0, 0]]), (-1, [[0, 1, 0], [1, 0, 0]])])
def test_the_first_of_the_largest_has_the_gradient(axis, winners):
  x = jnp.asarray([[[1, 5, 5], [5, -2, 0]], [[-jnp.inf, -3, -3], [jnp.nan, -3, -4]]], jnp.bfloat16)
  y, pull = jax.vjp(lambda x: largest(x, axis), x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y.astype(float), jnp.max(x, axis).astype(float))
  np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], [winners, winners])


@pytest.mark.parametrize(
  ("pool", "linen_s"), [(max_pool, nn.max_pool), (mean_pool, lambda *args: nn.avg_pool(*args, count_include_pad=False))]
)
@pytest.mark.parametrize("shape", [(2, 6, 9, 3), (1, 2, 5, 4)])
def test_a_pool_and_its_gradient_are_linen_s(pool, linen_s, shape, rng):
  x = jnp.asarray(rng.normal(size=shape), jnp.float32)
  over = [(0, 1 - size % 2) for size in shape[1:3]]
  y, pull = jax.vjp(pool, x)
  expected, pull_expected = jax.vjp(lambda x: linen_s(x, (3, 3), (2, 2), over), x)
  np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
  g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
  np.testing.assert_allclose(pull(g)[0], pull_expected(g)[0], rtol=1e-6, atol=1e-6)


def test_means_are_summed_in_float32():
  x = jnp.asarray(np.array([256.0, 1, 1] * 3), jnp.bfloat16).reshape(1, 3, 3, 1)  # in bfloat16, 256 + 1 is 256
  assert mean_pool(x).dtype == jnp.bfloat16 and mean_pool(x)[0, 0, 0, 0] == jnp.bfloat16((256 + 1 + 1) / 3)
