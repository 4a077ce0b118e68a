"""Conversions: the sizes that the appendices of Koo et al. ask for, and the numbers of section 3.3."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.layers.conversions import (
  Conversion,
  Kind,
  MapShape,
  Target,
  conversion_summary,
  convolution,
  map_side,
  pooling,
  window,
)
from hierjax.nn.layers.pyramid import adaptive_average_pool


def converted(kind, shape=(2, 6, 6, 5), **fields):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  y, variables = jax.device_get(jax.jit(Conversion(kind, **fields).init_with_output)(jax.random.key(1), x))
  return np.float64(x), y, jax.tree.map(np.float64, variables.get("params", {}))


def test_a_window_makes_the_places_that_were_asked_for():  # appendix A: (W - F + 2Z) / G + 1
  cases = set()
  for extent in range(1, 65):
    for places in range(1, extent + 1):
      f, g, z = window(extent, places)
      assert (extent - f + 2 * z) % g == 0 and (extent - f + 2 * z) // g + 1 == places
      assert 1 <= f <= extent and 0 <= z < f and 1 <= g <= f
      cases.add("1" if f == extent else "2" if f == g else "3" if g == 1 else "4")
  assert cases == {"1", "2", "3", "4"}
  with pytest.raises(ValueError, match="5 places of 4 pixels"):
    window(4, 5)


@pytest.mark.parametrize(
  ("extent", "expected"), [(56, (14, 14, 0)), (28, (7, 7, 0)), (14, (5, 3, 0)), (7, (3, 2, 1)), (4, (1, 1, 0))]
)
def test_the_stages_of_a_network_at_224(extent, expected):
  assert window(extent, 4) == expected


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize(("shape", "size"), [((6, 6, 5), 48), ((7, 3, 40), 32), ((1, 1, 3), 20)])
def test_any_map_becomes_a_vector_of_the_size(kind, shape, size):
  _, y, _ = converted(kind, (2, *shape), size=size)
  assert y.shape == (2, size) and y.dtype == jnp.float32
  assert conversion_summary(kind, MapShape("stage 2", *shape), Target(size)).startswith(
    f"stage 2, {shape[0]}x{shape[1]}x{shape[2]}: "
  )


def test_linear_is_the_n_mode_product():
  x, y, weights = converted("linear", size=12, side=2)
  expected = np.zeros((2, 2, 2, 3))
  for n in range(2):
    for v in range(2):
      for m in range(3):
        factors = weights["u2"][:, n, None, None] * weights["u3"][None, :, v, None] * weights["u1"][None, None, :, m]
        expected[:, n, v, m] = (x * factors).sum((1, 2, 3))
  np.testing.assert_allclose(y, expected.reshape(2, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "reduce"), [("pool", np.max), ("pool_average", np.mean)])
def test_pooling_keeps_a_number_a_window_and_pads_with_zeros(kind, reduce):  # READINGS K2
  x, y, weights = converted(kind, size=23)  # 5 channels x 2 x 2, and 3 zeros
  assert weights == {}
  expected = np.stack([[reduce(x[:, i : i + 3, j : j + 3], axis=(1, 2)) for j in (0, 3)] for i in (0, 3)])
  np.testing.assert_allclose(y[:, :20], np.moveaxis(expected, 2, 0).reshape(2, -1), rtol=1e-5, atol=1e-6)
  assert not y[:, 20:].any()


@pytest.mark.parametrize(("kind", "reduce"), [("pool", np.max), ("pool_average", np.mean)])
def test_more_channels_than_numbers_are_reduced_in_groups(kind, reduce):  # READINGS K2
  x = np.random.default_rng(0).normal(-9, 1, (2, 4, 4, 7)).astype(np.float32)  # a zero of padding would be the maximum
  y = jax.jit(Conversion(kind, size=3).apply)({}, x)  # groups of 3, 3 and 1
  groups = [reduce(part, axis=(1, 2, 3)) for part in (x[..., :3], x[..., 3:6], x[..., 6:])]
  np.testing.assert_allclose(y, np.stack(groups, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 12, 3), (2, 4, 3, 3)])
def test_halving_pools_and_a_matrix(shape):  # READINGS K2, as the authors' code
  x, y, weights = converted("pool_dense", shape, size=10, side=4)
  while max(x.shape[1:3]) > 4:
    rows, columns = ([slice(i, i + 2) for i in range(0, n, 2)] for n in x.shape[1:3])
    x = np.stack([np.stack([x[:, r, c].max((1, 2)) for c in columns], axis=1) for r in rows], axis=1)
  assert x.shape[1:] == ((2, 3, 3) if shape[1] == 7 else (4, 3, 3))
  expected = x.reshape(2, -1) @ weights["matrix"]["kernel"] + weights["matrix"]["bias"]
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  summary = conversion_summary("pool_dense", MapShape("a map", *shape[1:]), Target(10))
  assert summary.endswith(
    "2 max pools of 2x2 to 2x3, a matrix of 18 x 10" if shape[1] == 7 else "3: a matrix of 36 x 10"
  )


def test_the_formula_of_pooling_has_matrices_on_the_maxima():  # READINGS K2
  x, y, weights = converted("pool_linear", size=20, side=2)  # D k^2 <= 20: 5 channels x 2 x 2
  pooled = np.stack([[x[:, i : i + 3, j : j + 3].max((1, 2)) for j in (0, 3)] for i in (0, 3)])
  expected = np.einsum("hwbc,hn,wv,cm->bnvm", pooled, *(weights[name] for name in ("u2", "u3", "u1")))
  np.testing.assert_allclose(y, expected.reshape(2, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 5, 7, 64, 256, 2048])
@pytest.mark.parametrize("channels", [3, 64, 512, 2048])
def test_a_pooled_map_is_as_large_as_fits(size, channels):
  plan = pooling(MapShape("a map", 56, 56, channels), Target(size, strict=False))
  kept = -(-channels // plan.group)
  assert kept * plan.side**2 <= size < kept * (plan.side + 1) ** 2 or plan.side == 56
  assert (plan.group == 1) == (channels <= size)


def test_average_pooling_is_over_the_windows_of_max_pooling():
  x = np.random.default_rng(0).normal(size=(1, 7, 5, 2)).astype(np.float32)
  y = np.asarray(jax.jit(adaptive_average_pool, static_argnums=(1, 2))(x, 3, 2))
  rows, columns = [(0, 3), (2, 5), (4, 7)], [(0, 3), (2, 5)]
  for i, (a, b) in enumerate(rows):
    for j, (c, d) in enumerate(columns):
      np.testing.assert_allclose(y[0, i, j], x[0, a:b, c:d].mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_strict_takes_what_the_appendices_solve_and_nothing_else():
  assert pooling(MapShape("stage 4", 8, 8, 16), Target(256, strict=True)) == pooling(
    MapShape("stage 4", 8, 8, 16), Target(256, strict=False)
  )
  assert convolution(MapShape("stage 1", 56, 56, 1), Target(256, 4, True)).windows == (14, 14)
  with pytest.raises(UserError, match=r"stage 3, D = 512 channels of 14x14: .* p = 256 .* D \(W / F\)\^2 = p"):
    pooling(MapShape("stage 3", 14, 14, 512), Target(256, strict=True))
  with pytest.raises(UserError, match=r"stage 3, D = 16 channels of 6x6"):
    pooling(MapShape("stage 3", 6, 6, 16), Target(256, strict=True))  # 4 places of 6 rows
  with pytest.raises(UserError, match=r"stage 2: p = 250 numbers are not m x 4 x 4"):
    map_side("stage 2", Target(250, 4, True))
  with pytest.raises(UserError, match=r"stage 2, 4x6: appendix A of Koo et al. is for square maps"):
    convolution(MapShape("stage 2", 4, 6, 1), Target(256, 4, True))
  with pytest.raises(UserError, match=r"stage 5, W = 2: no convolution makes 4 x 4 places of it \(p = 256\)"):
    convolution(MapShape("stage 5", 2, 2, 1), Target(256, 4, True))
  with pytest.raises(UserError, match=r"config.head.strict = False"):
    converted("pool", size=23, strict=True)


def solutions(w, p):
  """Returns the F, G and Z of the four cases of appendix A by its own sentences, with the places and filters."""
  found = {}
  for f in range(1, w + 1):
    for g in range(1, 2 * w):
      for z in range(w):
        places = (w - f + 2 * z) / g + 1
        cases = (f == w and z == 0, f == g < w, f < w and g == 1 and z == 0, f < w and 1 < g < f)
        if any(cases) and places.is_integer() and (p / places**2).is_integer():
          found[f, g, z] = int(places), int(p / places**2)
  return found


@pytest.mark.parametrize("w", [1, 4, 7])
def test_filters_are_settable_where_the_appendix_solves_them(w):
  """All F, G and Z: those of the appendix's cases make W x H x K = p numbers, and the others are refused."""
  p, allowed = 48, solutions(w, 48)
  for f in range(1, w + 3):
    for g in range(1, 2 * w):
      for z in range(w):
        target, shape = Target(p, filter=(f, g, z)), MapShape("stage 2", w, w, 3)
        if (f, g, z) in allowed:
          plan = convolution(shape, target)
          assert (plan.side, p // plan.side**2) == allowed[f, g, z]
          assert (plan.windows, plan.strides, plan.paddings) == ((f, f), (g, g), (z, z))
        else:
          with pytest.raises(UserError, match=rf"stage 2, {w}x{w}, with config.head.filters F = {f}, G = {g}, Z = {z}"):
            convolution(shape, target)
  assert (w, 1, 0) in allowed


def test_given_filters_are_the_convolution():
  x, y, weights = converted("conv", (2, 5, 5, 3), size=18, filter=(3, 2, 1))  # (5 - 3 + 2) / 2 + 1 = 3 places
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  kernel, bias = weights["convolution"]["kernel"], weights["convolution"]["bias"]
  assert kernel.shape == (3, 3, 3, 2)
  places = [
    [np.einsum("bhwc,hwck->bk", padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel) + bias for j in range(3)]
    for i in range(3)
  ]
  expected = np.moveaxis(np.array(places), 2, 0)
  np.testing.assert_allclose(y, expected.reshape(2, -1), rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match="is for square maps"):
    converted("conv", (2, 5, 4, 3), size=18, filter=(3, 2, 1))


def test_what_is_not_strict_takes_the_nearest():
  assert [map_side("a map", Target(size, 4, False)) for size in (256, 250, 36, 7)] == [4, 5, 3, 1]
  assert convolution(MapShape("a map", 2, 2, 1), Target(256, 4, False)).side == 2
