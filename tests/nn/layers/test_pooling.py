import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import subjaxprs

from hierjax.nn.backbones.vgg import Stage
from hierjax.nn.layers.attention import CBAM
from hierjax.nn.layers.pooling import larger, largest, max_pool, mean_pool
from hierjax.nn.layers.pyramid import adaptive_max_pool


@pytest.mark.parametrize(("axis", "winners"), [(1, [[0, 1, 1], [1, 0, 0]]), (-1, [[0, 1, 0], [1, 0, 0]])])
def test_the_first_of_the_largest_has_the_gradient(axis, winners):
  x = jnp.asarray([[[1, 5, 5], [5, -2, 0]], [[-jnp.inf, -3, -3], [jnp.nan, -3, -4]]], jnp.bfloat16)
  y, pull = jax.vjp(lambda x: largest(x, axis), x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y.astype(float), jnp.max(x, axis).astype(float))
  np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], [winners, winners])


def test_the_larger_of_two_or_the_one_that_is_no_number():
  x, y = jnp.asarray([1.0, 2.0, jnp.nan, 3.0, -jnp.inf]), jnp.asarray([2.0, 1.0, 4.0, jnp.nan, -jnp.inf])
  np.testing.assert_array_equal(larger(x, y), jnp.maximum(x, y))
  equal = jax.grad(lambda x, y: larger(x, y), argnums=(0, 1))(jnp.float32(5), jnp.float32(5))
  assert equal == (1, 0)


def equalities_of_floats(jaxpr):
  """Returns the equations of a program, and of those in it, that ask whether floating-point numbers are equal."""
  found = [e for e in jaxpr.eqns if e.primitive.name == "eq" and jnp.issubdtype(e.invars[0].aval.dtype, jnp.floating)]
  return found + [e for inner in subjaxprs(jaxpr) for e in equalities_of_floats(inner)]


@pytest.mark.parametrize(
  "function",
  [
    lambda x: largest(x, 1),
    max_pool,
    lambda x: adaptive_max_pool(x, 2, 1),
    lambda x: adaptive_max_pool(x, 3, 3),
    lambda x: Stage(2, 1).init_with_output(jax.random.key(0), x)[0],
    lambda x: CBAM().init_with_output(jax.random.key(0), x)[0],
  ],
)
def test_no_gradient_asks_what_equals_a_maximum(function):
  x = jnp.zeros((1, 4, 4, 16))
  gradient = jax.make_jaxpr(jax.grad(lambda x: function(x).sum()))
  assert equalities_of_floats(jax.make_jaxpr(jax.grad(lambda x: x.max()))(x).jaxpr)
  assert not equalities_of_floats(gradient(x).jaxpr)


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
