"""Patches against flax's convolution, and resampled positions against Pillow's bicubic filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from hierjax.nn.layers.patches import PatchConv, bicubic, resampled_positions

resampled_positions = jax.jit(resampled_positions, static_argnums=(1, 2))


@pytest.mark.parametrize("height,width,patch", [(8, 12, 4), (9, 7, 2), (5, 5, 5)])
def test_patches_are_a_convolution_with_a_stride_of_its_kernels_size(height, width, patch, rng):
  x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
  conv = nn.Conv(6, (patch, patch), (patch, patch), padding="VALID")

  @jax.jit
  def run(x):
    params = conv.init(jax.random.key(0), x)
    params["params"]["bias"] = jnp.arange(6.0)
    return PatchConv(6, patch).apply(params, x), conv.apply(params, x)

  np.testing.assert_allclose(*run(x), rtol=1e-4, atol=1e-5)


def test_without_a_bias_there_is_none_and_bfloat16_keeps_weights_float32():
  module = PatchConv(4, 2, use_bias=False, dtype=jnp.bfloat16)
  y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
  assert {name: leaf.dtype for name, leaf in variables["params"].items()} == {"kernel": np.dtype("float32")}
  assert y.dtype == jnp.bfloat16 and y.shape == (1, 2, 2, 4)


@pytest.mark.parametrize("old,new", [((5, 5), (9, 7)), ((14, 14), (4, 24)), ((4, 6), (6, 4)), ((37, 37), (16, 16))])
def test_positions_are_resampled_as_pillow_resamples_pictures(old, new, rng):
  positions = rng.normal(size=(old[0] * old[1], 3)).astype(np.float32)
  found = np.asarray(resampled_positions(positions, old, new)).reshape(*new, 3)
  for channel in range(3):
    picture = Image.fromarray(positions[:, channel].reshape(old))
    expected = np.asarray(picture.resize(new[::-1], Image.Resampling.BICUBIC))
    np.testing.assert_allclose(found[..., channel], expected, atol=2e-5)


def test_on_their_own_grid_positions_are_as_they_are(rng):
  positions = rng.normal(size=(12, 2)).astype(np.float32)
  np.testing.assert_array_equal(resampled_positions(positions, (3, 4), (3, 4)), positions)
  np.testing.assert_allclose(bicubic(7, 7), np.eye(7), atol=1e-7)
