"""The layers of transformers against their equations in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.nn.layers.normalisation import layer_norm
from hierjax.nn.layers.transformer import Attention, Block, BlockSettings, attend, drop_path, quick_gelu

SETTINGS = BlockSettings(heads=2, hidden=12)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_attention_is_a_weighted_mean_of_values_for_each_head(rng):
  x = rng.normal(size=(2, 5, 8)).astype(np.float32)
  module = Attention(SETTINGS)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
  qkv, out = params["params"]["qkv"], params["params"]["out"]
  whole = (x @ qkv["kernel"] + qkv["bias"]).reshape(2, 5, 3, 2, 4)
  expected = np.zeros((2, 5, 2, 4))
  for image, head, token in np.ndindex(2, 2, 5):
    scores = whole[image, :, 1, head] @ whole[image, token, 0, head] / 2  # sqrt(4)
    expected[image, token, head] = softmax(scores) @ whole[image, :, 2, head]
  expected = expected.reshape(2, 5, 8) @ out["kernel"] + out["bias"]
  np.testing.assert_allclose(jax.jit(module.apply)(params, x), expected, rtol=1e-4, atol=1e-4)


def test_attention_is_that_of_jax_and_its_softmax_is_float32(rng):
  q, k, v = (rng.normal(size=(2, n, 3, 4)).astype(np.float32) for n in (5, 6, 6))
  found, expected = jax.jit(lambda *given: (attend(*given), jax.nn.dot_product_attention(*given)))(q, k, v)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  # Scores that differ by less than a step of bfloat16, whose softmax would be the same for all keys.
  q, k, v = np.full((1, 1, 1, 4), 16), np.zeros((1, 2, 1, 4)), np.zeros((1, 2, 1, 4))
  k[0, :, 0, 0], v[0, 1] = (64.0, 64.5), 1
  found = np.asarray(jax.jit(attend)(*(x.astype(jnp.bfloat16) for x in (q, k, v))))
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(np.float32), 1 / (1 + np.exp(-4)), rtol=1e-2)


def test_quick_gelu(rng):
  x = rng.normal(size=9).astype(np.float32)
  np.testing.assert_allclose(jax.jit(quick_gelu)(x), x / (1 + np.exp(-1.702 * x)), rtol=1e-5)


class Norm(nn.Module):
  @nn.compact
  def __call__(self, x):
    return layer_norm(x, 1e-6, "norm")


def test_layer_norm_is_exact_for_a_large_mean(rng):
  x = np.float32(rng.normal(size=(3, 16)) + 1e3)
  exact = np.asarray(x, np.float64)
  expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
  found, params = jax.jit(Norm().init_with_output)(jax.random.key(0), x)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
  assert jax.eval_shape(Norm().apply, params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


class Dropped(nn.Module):
  rate: float

  @nn.compact
  def __call__(self, x, train):
    return drop_path(x, self.rate, train)


@pytest.mark.parametrize("shape", [(400, 3, 2), (400, 2, 2, 2)])
def test_in_training_whole_images_are_left_out_and_the_others_scaled(shape):
  x = np.ones(shape, np.float32)

  @functools.partial(jax.jit, static_argnums=1)
  def run(x, train):
    return Dropped(0.2).apply({}, x, train, rngs={"dropout": jax.random.key(0)} if train else None)

  found = np.asarray(run(x, True)).reshape(400, -1)
  assert (found == found[:, :1]).all()
  np.testing.assert_allclose(np.unique(found), [0, 1.25])
  assert abs((found[:, 0] == 0).mean() - 0.2) < 0.06  # 3 standard deviations
  np.testing.assert_array_equal(run(x, False), x)


def test_a_block_that_is_always_left_out_is_the_identity(rng):
  x = rng.normal(size=(3, 4, 8)).astype(np.float32)
  block = Block(BlockSettings(2, 12, layer_scale=1.0), drop_path=1 - 1e-6)

  @jax.jit
  def run(x):
    y, params = block.init_with_output(jax.random.key(0), x)
    return y, block.apply(params, x, True, rngs={"dropout": jax.random.key(0)})

  kept, left_out = jax.device_get(run(x))
  assert np.abs(kept - x).max() > 1e-3
  np.testing.assert_array_equal(left_out, x)
