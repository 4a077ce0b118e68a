import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.report.plots.neighbour_search import chi_square


def oracle(x, y):
  x, y = x.astype(np.float64)[:, None], y.astype(np.float64)[None]
  return ((x - y) ** 2 / (abs(x) + abs(y) + 1e-10)).sum(axis=-1)


@pytest.mark.parametrize(("q", "m", "c"), [(1, 1, 1), (3, 7, 5), (4, 2, 16)])
def test_chi_square_is_its_formula_on_signed_features(q, m, c, rng):
  x, y = (rng.standard_normal((rows, c)).astype(np.float32) for rows in (q, m))
  found = chi_square(jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(found, oracle(x, y), rtol=1e-5)
  np.testing.assert_allclose(chi_square(jnp.asarray(y), jnp.asarray(x)), found.T, rtol=1e-5)


def test_features_that_are_zero_on_both_sides_add_nothing(rng):
  x = rng.standard_normal((2, 3)).astype(np.float32)
  padded = np.pad(x, ((0, 0), (0, 4)))
  np.testing.assert_array_equal(np.diag(chi_square(jnp.asarray(padded), jnp.asarray(padded))), 0)
  np.testing.assert_allclose(chi_square(jnp.asarray(padded[:1]), jnp.asarray(padded)), oracle(x[:1], x), rtol=1e-5)


def test_bfloat16_features_are_compared_in_float32(rng):
  x = jnp.asarray(rng.standard_normal((2, 64)), jnp.bfloat16)
  np.testing.assert_allclose(chi_square(x, x[:1]), oracle(np.asarray(x), np.asarray(x[:1])), rtol=1e-5)


def test_no_array_has_an_entry_for_each_query_region_and_channel():
  traced = str(jax.make_jaxpr(chi_square)(jnp.zeros((64, 32)), jnp.zeros((512, 32))))
  assert "f32[512,32]" in traced and "64,512,32" not in traced
