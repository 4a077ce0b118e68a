import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.windows import window_products

FIRST = [[[0, 4, 4], [5, 3, 0]], [[2, 5, 2]]]  # of two examples with windows of their own, and of windows they share


@pytest.mark.parametrize("first", FIRST, ids=["own", "shared"])
@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_windows_are_columns_of_the_whole_product(first, platform, rng, monkeypatch):
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, **branches: branches[platform](*arrays))
  x, kernel, g = (jnp.asarray(rng.normal(size=s).astype(np.float32)) for s in ((2, 3, 4), (7, 4), (2, 3, 2)))
  first = jnp.array(first, jnp.int32)
  columns = jnp.broadcast_to(first, (2, 3))[..., None] + jnp.arange(2)[None, None]
  found, pullback = jax.vjp(lambda x, kernel: window_products(x, kernel, first, 2), x, kernel)
  expected, pullback_all = jax.vjp(lambda x, kernel: jnp.take_along_axis(x @ kernel.T, columns, axis=-1), x, kernel)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  for ours, theirs in zip(pullback(g), pullback_all(g), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_products_have_gradients_of_the_weights_in_float32(rng):
  x = jnp.asarray(rng.normal(size=(2, 3, 4))).astype(jnp.bfloat16)
  kernel = jnp.asarray(rng.normal(size=(7, 4)).astype(np.float32))
  found, pullback = jax.vjp(lambda x, kernel: window_products(x, kernel, jnp.zeros((2, 3), jnp.int32), 2), x, kernel)
  assert [a.dtype for a in (found, *pullback(found))] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
