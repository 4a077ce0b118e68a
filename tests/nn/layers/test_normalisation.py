import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.nn.layers.normalisation import local_response_norm

normed = jax.jit(local_response_norm, static_argnames="alpha")


def naive(x, size, alpha, beta, k):
  """Caffe's definition, one number at a time, in float64."""
  y = np.array(x, np.float64)
  for i in np.ndindex(*x.shape):
    window = [float(x[(*i[:-1], j)]) for j in range(x.shape[-1]) if abs(j - i[-1]) <= size // 2]
    y[i] /= (k + alpha / size * sum(v * v for v in window)) ** beta
  return y


def naive_gradient(x, gradient, *settings):
  """Central differences of `naive`."""
  result = np.zeros(x.shape)
  for i in np.ndindex(*x.shape):
    step = np.zeros(x.shape)
    step[i] = 1e-5
    result[i] = np.sum(gradient * (naive(x + step, *settings) - naive(x - step, *settings))) / 2e-5
  return result


@pytest.mark.parametrize(
  ("shape", "settings"),
  [((2, 1, 2, 7), (5, 0.9, 0.75, 1.0)), ((3, 6), (3, 2.0, 0.5, 2.0)), ((4, 3), (7, 0.5, 1.0, 1.0))],
  ids=["defaults", "other settings", "more window than channels"],
)
def test_values_and_gradients_are_those_of_the_definition(rng, shape, settings):
  x, gradient = 2 * rng.normal(size=shape), rng.normal(size=shape)

  @jax.jit
  def run(x, gradient):
    y, pull = jax.vjp(lambda x: local_response_norm(x, *settings), x)
    return y, *pull(gradient)

  y, found = run(np.float32(x), np.float32(gradient))
  np.testing.assert_allclose(y, naive(x, *settings), rtol=1e-5)
  np.testing.assert_allclose(found, naive_gradient(x, gradient, *settings), rtol=1e-4, atol=1e-5)


def test_the_defaults_are_caffe_s(rng):
  x = 50 * rng.normal(size=(2, 8))
  np.testing.assert_allclose(normed(np.float32(x)), naive(x, 5, 1e-4, 0.75, 1.0), rtol=1e-5)


def test_a_larger_scale_is_a_larger_alpha(rng):
  x = rng.normal(size=(4, 9)).astype(np.float32)
  scale = 255 * 0.225
  larger = np.asarray(normed(x, alpha=1e-4 * scale**2))
  np.testing.assert_allclose(normed(scale * x, alpha=1e-4), scale * larger, rtol=1e-5)


def test_bfloat16_is_rounded_once(rng):
  x = (3 * rng.normal(size=(20, 16))).astype(jnp.bfloat16)

  @jax.jit
  def norm(x):
    y, pull = jax.vjp(lambda x: local_response_norm(x, alpha=0.5), x)
    return y, *pull(x)

  for found, exact in zip(*jax.device_get((norm(x), norm(x.astype(np.float32)))), strict=True):
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("size", [0, 4])
def test_a_window_without_a_middle_is_refused(size):
  with pytest.raises(ValueError, match=f"size = {size}: .* 1, 3, 5"):
    local_response_norm(jnp.ones((2, 8)), size)


@pytest.mark.parametrize("setting", [{"k": 0.0}, {"k": -1.0}, {"k": float("nan")}, {"alpha": -1e-4}], ids=str)
def test_a_divisor_that_may_be_zero_is_refused(setting):
  (name, value), *_ = setting.items()
  with pytest.raises(ValueError, match=f"{name} = {value}.*k must be above 0 and alpha 0 or more"):
    local_response_norm(jnp.zeros((2, 8)), **setting)
