"""Depthwise convolutions on CPUs are XLA's grouped ones, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.nn.layers.depthwise import DepthwiseConv, depthwise_conv

CASES = [  # kernel, strides, padding, height, width
  ((3, 3), (1, 1), "SAME", 7, 8),
  ((3, 3), (2, 2), "SAME", 7, 8),
  ((5, 5), (2, 2), "SAME", 9, 6),
  ((5, 5), (2, 2), 2, 9, 6),
  ((3, 3), (2, 2), "VALID", 9, 6),
  ((3, 3), (2, 2), "VALID", 8, 7),  # a last row is read by no window
  ((7, 7), (1, 1), 3, 4, 5),
  ((2, 3), (3, 2), ((0, 1), (2, 0)), 11, 10),
  ((1, 1), (2, 2), 0, 7, 6),
  ((5, 5), (2, 2), "SAME", 1, 1),
]


def grouped(x, kernel, strides, padding):
  """XLA's own."""
  pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
  return jax.lax.conv_general_dilated(
    x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
  )


@pytest.mark.parametrize("window,strides,padding,height,width", CASES)
def test_it_is_the_grouped_convolution_and_so_are_its_gradients(window, strides, padding, height, width, rng):
  images = 3 if padding == "SAME" else 4  # in parts for the devices, of which the tests have 4, or not
  x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((images, height, width, 3), (*window, 1, 3)))

  @partial(jax.jit, static_argnums=0)
  def with_gradients(conv, x, kernel):
    y, pull = jax.vjp(partial(conv, strides=strides, padding=padding), x, kernel)
    return y, *pull(jnp.sin(y))

  results = [with_gradients(conv, x, kernel) for conv in (depthwise_conv, grouped)]
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), *results)


def test_devices_send_each_other_no_images(rng):
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  whole, rows = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in ((), ("data",)))
  shapes = [(2 * len(jax.devices()), 9, 8, 3), (3, 3, 1, 3)]
  x, kernel = (rng.normal(size=s).astype(np.float32) for s in shapes)
  gradient = jax.grad(lambda conv, x, kernel: jnp.sin(conv(x, kernel)).sum(), argnums=(1, 2))
  ours = jax.jit(partial(gradient, depthwise_conv), in_shardings=(rows, whole), out_shardings=(rows, whole))
  compiled = ours.lower(x, kernel).compile()
  assert "all-reduce" in compiled.as_text() and "all-gather" not in compiled.as_text()
  found = compiled(jax.device_put(x, rows), jax.device_put(kernel, whole))
  expected = jax.jit(partial(gradient, partial(grouped, strides=(1, 1), padding="SAME")))(x, kernel)
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected)


def test_second_derivatives_are_the_grouped_convolutions(rng):
  x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((2, 6, 5, 3), (3, 3, 1, 3)))
  arguments = {"strides": (2, 2), "padding": "SAME"}

  def penalty(conv):
    def of(x, kernel):
      gradients = jax.grad(lambda *a: jnp.sin(conv(*a, **arguments)).sum(), argnums=(0, 1))(x, kernel)
      return sum((g**2).sum() for g in gradients)

    return jax.jit(jax.grad(of, argnums=(0, 1)))(x, kernel)

  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), penalty(depthwise_conv), penalty(grouped))


@pytest.mark.parametrize("use_bias", [False, True])
def test_the_layer_has_the_weights_of_linens(use_bias, key):
  arguments = dict(strides=(2, 2), padding=1, use_bias=use_bias)
  x = jax.random.normal(key, (2, 6, 7, 4))
  theirs = nn.Conv(4, (3, 3), feature_group_count=4, bias_init=nn.initializers.normal(), **arguments)
  ours = DepthwiseConv((3, 3), **arguments)

  @jax.jit
  def run(x):
    expected, variables = theirs.init_with_output(key, x)
    return ours.apply(variables, x), expected, variables

  found, expected, variables = run(x)
  assert jax.tree.map(jnp.shape, jax.eval_shape(ours.init, key, x)) == jax.tree.map(jnp.shape, variables)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  half = DepthwiseConv((3, 3), dtype=jnp.bfloat16, **arguments)
  y, shapes = jax.eval_shape(half.init_with_output, key, x)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


@pytest.mark.parametrize("platform,operation", [("cpu", "multiply"), ("cuda", "convolution"), ("tpu", "convolution")])
def test_each_platform_gets_its_own_form(platform, operation):
  x, kernel = np.zeros((2, 6, 6, 4), np.float32), np.zeros((3, 3, 1, 4), np.float32)
  gradient = jax.grad(lambda *a: depthwise_conv(*a).sum(), argnums=(0, 1))
  for function in (depthwise_conv, gradient):
    text = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == (operation == "convolution")
