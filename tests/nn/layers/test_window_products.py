import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.nn.layers.window_products import window_products

FIRST = [[[0, 60, 60], [80, 40, 0]], [[20, 80, 20]]]  # of two examples with windows of their own, and of shared windows
COUNT = [[[1, 36, 18], [19, 5, 35]], [[70, 64, 0]]]  # around the sizes that are read: 18, 35, 70
WIDTH = 70


@pytest.mark.parametrize(("first", "count"), list(zip(FIRST, COUNT, strict=True)), ids=["own", "shared"])
@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_windows_are_columns_of_the_whole_product_and_then_zeros(first, count, platform, rng, monkeypatch):
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, **branches: branches[platform](*arrays))
  x, kernel, g = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (150, 4), (2, 3, WIDTH)))
  first, count = np.array(first, np.int32), np.array(count, np.int32)
  columns = np.broadcast_to(first, (2, 3))[..., None] + np.arange(WIDTH, dtype=np.int32)
  counts = np.arange(WIDTH) < count[..., None]

  def whole(x, kernel, *_):
    return jnp.where(counts, jnp.take_along_axis(x @ kernel.T, jnp.asarray(columns), axis=-1), 0)

  def with_gradients(products):
    def run(x, kernel, first, count, g):
      y, pullback = jax.vjp(lambda x, kernel: products(x, kernel, first, count, WIDTH), x, kernel)
      return y, pullback(g)

    return jax.jit(run)(x, kernel, first, count, g)

  found, gradients = with_gradients(window_products)
  expected, expected_gradients = with_gradients(whole)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  for ours, theirs in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bfloat16_products_have_gradients_of_the_weights_in_float32(rng):
  x = rng.normal(size=(2, 3, 4)).astype(jnp.bfloat16)
  kernel = rng.normal(size=(7, 4)).astype(np.float32)

  @jax.jit
  def run(x, kernel):
    first, count = jnp.zeros((2, 3), jnp.int32), jnp.ones((2, 3), jnp.int32)
    found, pullback = jax.vjp(lambda x, kernel: window_products(x, kernel, first, count, 2), x, kernel)
    return found, *pullback(found)

  assert [a.dtype for a in run(x, kernel)] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
