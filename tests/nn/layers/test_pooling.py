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
  x = np.array([[[1, 5, 5], [5, -2, 0]], [[-np.inf, -3, -3], [np.nan, -3, -4]]]).astype(jnp.bfloat16)

  @jax.jit
  def run(x):
    y, pull = jax.vjp(lambda x: largest(x, axis), x)
    return y, jnp.max(x, axis), *pull(jnp.ones_like(y))

  y, expected, gradient = jax.device_get(run(x))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y.astype(float), expected.astype(float))
  np.testing.assert_array_equal(gradient, [winners, winners])


def test_the_larger_of_two_or_the_one_that_is_no_number():
  x, y = np.float32([1, 2, np.nan, 3, -np.inf]), np.float32([2, 1, 4, np.nan, -np.inf])
  np.testing.assert_array_equal(jax.jit(larger)(x, y), np.maximum(x, y))
  equal = jax.jit(jax.grad(lambda x, y: larger(x, y), argnums=(0, 1)))(np.float32(5), np.float32(5))
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
  x = jax.ShapeDtypeStruct((1, 4, 4, 16), jnp.float32)
  gradient = jax.make_jaxpr(jax.grad(lambda x: function(x).sum()))
  assert equalities_of_floats(jax.make_jaxpr(jax.grad(lambda x: x.max()))(x).jaxpr)
  assert not equalities_of_floats(gradient(x).jaxpr)


@pytest.mark.parametrize(
  ("pool", "linen_s"), [(max_pool, nn.max_pool), (mean_pool, lambda *args: nn.avg_pool(*args, count_include_pad=False))]
)
@pytest.mark.parametrize("shape", [(2, 6, 9, 3), (1, 2, 5, 4)])
def test_a_pool_and_its_gradient_are_linen_s(pool, linen_s, shape, rng):
  x = rng.normal(size=shape).astype(np.float32)
  over = [(0, 1 - size % 2) for size in shape[1:3]]
  g = rng.normal(size=jax.eval_shape(pool, x).shape).astype(np.float32)

  @jax.jit
  def run(x, g):
    y, pull = jax.vjp(pool, x)
    expected, pull_expected = jax.vjp(lambda x: linen_s(x, (3, 3), (2, 2), over), x)
    return (y, expected), (*pull(g), *pull_expected(g))

  values, gradients = run(x, g)
  np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(*gradients, rtol=1e-6, atol=1e-6)


def test_means_are_summed_in_float32():
  x = np.array([256.0, 1, 1] * 3).astype(jnp.bfloat16).reshape(1, 3, 3, 1)  # in bfloat16, 256 + 1 is 256
  y = np.asarray(jax.jit(mean_pool)(x))
  assert y.dtype == jnp.bfloat16 and float(y[0, 0, 0, 0]) == np.array((256 + 1 + 1) / 3).astype(jnp.bfloat16)
