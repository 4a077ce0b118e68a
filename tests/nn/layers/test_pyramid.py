import jax
import numpy as np
import pytest
from flax import linen as nn

from hierjax.errors import UserError
from hierjax.nn.layers.pyramid import adaptive_max_pool, resample
from spatial_oracle import max_pool, rescale

pool = jax.jit(adaptive_max_pool, static_argnums=(1, 2))
resampled = jax.jit(resample, static_argnums=(1, 2, 3))


@pytest.mark.parametrize(("h", "w", "rows", "columns"), [(13, 13, 6, 6), (7, 5, 3, 2), (4, 9, 4, 1), (5, 6, 2, 5)])
def test_each_cell_is_the_largest_value_it_covers(rng, h, w, rows, columns):
  x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
  np.testing.assert_array_equal(pool(x, rows, columns), max_pool(x, rows, columns))


def test_on_13_by_13_it_is_the_papers_pools(rng):
  x = rng.normal(size=(2, 13, 13, 3)).astype(np.float32)
  for n, window, stride in ((6, 3, 2), (3, 5, 4), (2, 7, 6), (1, 13, 13)):
    windows = np.lib.stride_tricks.sliding_window_view(x, (window, window), (1, 2))[:, ::stride, ::stride]
    np.testing.assert_array_equal(pool(x, n, n), windows.max((-2, -1)))


def test_the_gradient_goes_to_the_largest_values(rng):
  x = rng.normal(size=(1, 7, 5, 2)).astype(np.float32)
  gradient = jax.jit(jax.grad(lambda x: adaptive_max_pool(x, 3, 2).sum()))(x)
  pooled = max_pool(x, 3, 2)
  expected = [[(pooled[..., c] == value).sum() for value in x[..., c].ravel()] for c in range(2)]
  np.testing.assert_array_equal(np.asarray(gradient).reshape(-1, 2).T, expected)  # a value may be two cells' largest


def test_no_scale_s_gradient_is_lost_where_xla_computes_the_map_again(rng):
  """Rounded otherwise, none of it need equal its maximum; unoptimised, XLA does that here."""

  def total(weights, x):
    x = nn.relu((x - x.mean((0, 1, 2), keepdims=True)) * weights[0] + weights[1])
    return sum(adaptive_max_pool(x, n, n).sum() for n in (1, 2, 3, 4))

  x, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 8, 8, 16), (2, 1, 1, 1, 16)))
  gradients = [
    jax.jit(jax.grad(total), compiler_options={"xla_backend_optimization_level": level})(weights, x) for level in (0, 3)
  ]
  assert np.abs(gradients[1]).min() > 1
  np.testing.assert_allclose(*gradients, rtol=1e-4)


def test_a_map_smaller_than_the_grid_is_refused():
  for h, w in ((2, 5), (5, 2)):
    with pytest.raises(UserError) as caught:
      pool(np.zeros((1, h, w, 1), np.float32), 3, 3)
    assert f"{h} x {w}" in str(caught.value) and "3 x 3" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["overlap", "floor"])
@pytest.mark.parametrize(("coarse", "fine"), [((1, 1), (2, 3)), ((2, 2), (3, 3)), ((2, 3), (7, 5)), ((3, 3), (6, 6))])
def test_a_finer_grid_sees_the_coarse_cells_under_it(rng, coarse, fine, how):
  x = rng.normal(size=(2, *coarse, 3))
  seen = resampled(np.float32(x), *fine, how)
  np.testing.assert_allclose(seen, rescale(x, *fine, how), atol=1e-6)


def test_the_mean_by_overlap_keeps_means_and_mirrors(rng):
  x = rng.normal(size=(1, 2, 5, 1)).astype(np.float32)
  seen, flipped = (np.asarray(resampled(a, 3, 7)) for a in (x, np.flip(x, (1, 2))))
  assert seen.mean() == pytest.approx(x.mean(), abs=1e-6)
  np.testing.assert_allclose(np.flip(flipped, (1, 2)), seen, atol=1e-6)


def test_an_unknown_way_to_resample_is_refused():
  with pytest.raises(UserError, match="'nearest': choose from overlap, floor"):
    resampled(np.zeros((1, 1, 1, 1), np.float32), 2, 2, "nearest")
