"""Convolutions are linen's, those of 1x1 as products on CPUs, and a batch norm after one is linen's too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.nn.layers import convolution
from hierjax.nn.layers.convolution import Conv, Norm, conv_norm
from hierjax.nn.layers.depthwise import DepthwiseConv

CASES = {  # kernel, settings, whether it is a product
  "1x1": ((1, 1), {}, True),
  "1x1, no padding": ((1, 1), {"padding": 0}, True),
  "1x1, every second cell": ((1, 1), {"strides": (2, 2)}, True),
  "1x1, two strides and no bias": ((1, 1), {"strides": (2, 3), "padding": "VALID", "use_bias": False}, True),
  "1x1, pads of 0": ((1, 1), {"padding": ((0, 0), (0, 0))}, True),
  "1x1 with a border": ((1, 1), {"padding": 1}, False),
  "3x3": ((3, 3), {"strides": (2, 2)}, False),
  "3x2 with pads": ((3, 2), {"padding": ((0, 2), (1, 0))}, False),
}
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_it_is_linens_and_so_are_its_gradients(case, key):
  kernel, settings, is_product = CASES[case]
  x = jax.random.normal(key, (2, 5, 6, 4))
  ours, theirs = (made(6, kernel, bias_init=nn.initializers.normal(), **settings) for made in (Conv, nn.Conv))
  variables, our_variables = jax.jit(lambda x: [module.init(key, x) for module in (theirs, ours)])(x)
  jax.tree.map(np.testing.assert_array_equal, our_variables, variables)

  @partial(jax.jit, static_argnums=0)
  def with_gradients(module, variables, x):
    y, pull = jax.vjp(module.apply, variables, x)
    return y, pull(jnp.cos(y))

  jax.tree.map(close, *(with_gradients(module, variables, x) for module in (ours, theirs)))
  for platform in ("cpu", "cuda", "tpu"):
    text = with_gradients.trace(ours, variables, x).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == (platform != "cpu" or not is_product)


def test_the_products_of_bfloat16_are_bfloat16(key):
  x = jax.random.normal(key, (2, 5, 6, 4))
  module = Conv(6, (1, 1), dtype=jnp.bfloat16)

  @jax.jit
  def run(x):
    y, variables = module.init_with_output(key, x)
    return y, variables, Conv(6, (1, 1)).apply(variables, x)

  y, variables, exact = jax.device_get(run(x))
  assert y.dtype == jnp.bfloat16 and variables["params"]["kernel"].dtype == jnp.float32
  np.testing.assert_allclose(y.astype(np.float32), exact, rtol=0.05, atol=0.05)


class Normed(nn.Module):
  """A convolution and a norm, by `conv_norm` or by linen."""

  conv: partial
  linens: bool

  @nn.compact
  def __call__(self, x, train=False):
    conv, norm = self.conv(name="conv"), Norm("norm", 1e-3, 0.8)
    if not self.linens:
      return conv_norm(conv, x, train, norm)
    return nn.BatchNorm(not train, momentum=0.8, epsilon=1e-3, name="norm")(conv(x))


BEFORE_A_NORM = {
  "1x1": partial(Conv, 6, (1, 1)),
  "3x3 without bias": partial(Conv, 6, (3, 3), use_bias=False),
  "depthwise": partial(DepthwiseConv, (3, 3)),
  "depthwise with bias": partial(DepthwiseConv, (3, 3), use_bias=True),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("case", BEFORE_A_NORM)
def test_a_norm_after_it_is_linens_and_so_are_gradients_and_statistics(case, train, key, rng):
  x = jax.random.normal(key, (3, 5, 6, 4))
  ours, theirs = (Normed(BEFORE_A_NORM[case], linens) for linens in (False, True))
  fresh, our_fresh = jax.jit(lambda x: [module.init(key, x) for module in (theirs, ours)])(x)
  jax.tree.map(np.testing.assert_array_equal, our_fresh, fresh)
  # neither ones nor zeros, and running variances that are positive
  variables = jax.tree.map(lambda leaf: np.float32(rng.uniform(0.5, 1.5, leaf.shape)), fresh)

  @partial(jax.jit, static_argnums=0)
  def with_gradients(module, variables, x):
    def run(variables, x):
      return module.apply(variables, x, train, mutable=["batch_stats"])

    y, pull, statistics = jax.vjp(run, variables, x, has_aux=True)
    return y, statistics, pull(jnp.cos(y))

  jax.tree.map(partial(close, atol=1e-4), *(with_gradients(module, variables, x) for module in (ours, theirs)))


def test_a_norm_at_inference_is_no_pass_of_its_own(key):
  """A multiplication for the kernel, one for the shift, and none of the map's size."""
  x = jax.random.normal(key, (3, 5, 6, 4))
  module = Normed(BEFORE_A_NORM["1x1"], False)
  text = str(jax.make_jaxpr(module.apply)(jax.eval_shape(module.init, key, x), x))
  assert " mul " in text and not [line for line in text.splitlines() if " mul " in line and "[3,5,6,6]" in line]


def test_bfloat16_is_normalised_in_float32(key):
  x = jax.random.normal(key, (3, 5, 6, 4))
  module = Normed(partial(Conv, 6, (3, 3), dtype=jnp.bfloat16), False)
  variables = jax.jit(module.init)(key, x)
  y = np.asarray(module.apply(variables, x))
  conv = np.asarray(Conv(6, (3, 3), dtype=jnp.bfloat16).apply({"params": variables["params"]["conv"]}, x))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(np.float32), conv.astype(np.float32) / np.sqrt(1 + 1e-3), rtol=2**-8)


@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 1)])
def test_groups_are_a_convolution_of_their_own_each(rng, kernel_size):
  x = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
  grouped = Conv(9, kernel_size, groups=3)
  params = jax.device_get(jax.jit(grouped.init)(jax.random.key(0), x))["params"]
  kernel, bias = params["kernel"], params["bias"] + np.float32(0.5)
  assert kernel.shape == (*kernel_size, 2, 9)
  found = np.asarray(jax.jit(grouped.apply)({"params": {"kernel": kernel, "bias": bias}}, x))
  apply = jax.jit(Conv(3, kernel_size).apply)
  for group in range(3):
    outputs, inputs = slice(3 * group, 3 * group + 3), slice(2 * group, 2 * group + 2)
    alone = {"params": {"kernel": kernel[..., outputs], "bias": bias[outputs]}}
    np.testing.assert_allclose(found[..., outputs], apply(alone, x[..., inputs]), rtol=1e-5, atol=1e-6)


def test_layers_of_the_same_window_and_shapes_share_one_trace(monkeypatch):
  traced, product = [], convolution._product
  monkeypatch.setattr(convolution, "_product", lambda *args: traced.append(args[0]) or product(*args))
  convolution._pointwise.cache_clear()
  kernel = jnp.ones((1, 1, 4, 4))

  def both(x, strides):
    return convolution._convolve(convolution._convolve(x, kernel, (1, 1), "SAME"), kernel, strides, "VALID")

  jax.eval_shape(lambda x: both(x, (1, 1)), jnp.ones((2, 6, 6, 4)))
  assert traced == [(1, 1)]
  jax.eval_shape(lambda x: both(x, (2, 2)), jnp.ones((2, 6, 6, 4)))
  assert traced == [(1, 1), (2, 2)]
  convolution._pointwise.cache_clear()
