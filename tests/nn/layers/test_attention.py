"""SE and CBAM against their equations in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.nn.layers.attention import CBAM, SE


def drawn(module, x, rng):
  """Random weights and batch statistics, in numpy."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x))
  draw = {"params": rng.normal, "batch_stats": lambda size: rng.uniform(0.5, 2, size)}
  return {k: jax.tree.map(lambda s, k=k: draw[k](size=s.shape).astype(np.float32), shapes[k]) for k in shapes}


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def mlp(v, params):
  hidden = np.maximum(v @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
  return hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"]


@pytest.fixture
def x(rng):
  return rng.normal(size=(2, 5, 4, 8)).astype(np.float32)


def test_se_weighs_each_channel_by_a_gate_of_the_channels_means(x, rng):
  module = SE(reduction=2)
  variables = drawn(module, x, rng)
  assert variables["params"]["fc1"]["kernel"].shape == (8, 4)
  gate = sigmoid(mlp(x.mean((1, 2)), variables["params"]))
  np.testing.assert_allclose(jax.jit(module.apply)(variables, x), x * gate[:, None, None], rtol=1e-5, atol=1e-6)


def test_cbam_weighs_channels_and_then_cells(x, rng):
  module = CBAM(reduction=4)
  variables = drawn(module, x, rng)
  params, running = variables["params"], variables["batch_stats"]["norm"]
  assert params["fc1"]["kernel"].shape == (8, 2) and set(params["conv"]) == {"kernel"}
  by_channel = x * sigmoid(mlp(x.mean((1, 2)), params) + mlp(x.max((1, 2)), params))[:, None, None]

  described = np.pad(np.stack([by_channel.max(-1), by_channel.mean(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
  kernel = params["conv"]["kernel"]
  cells = sum(described[:, r : r + 5, c : c + 4] @ kernel[r, c] for r, c in np.ndindex(7, 7))
  cells = (cells - running["mean"]) / np.sqrt(running["var"] + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
  np.testing.assert_allclose(jax.jit(module.apply)(variables, x), by_channel * sigmoid(cells), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SE, CBAM])
def test_few_channels_leave_a_hidden_unit_and_bfloat16_keeps_weights_float32(kind, x):
  module = kind(reduction=16, dtype=jnp.bfloat16)
  y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.asarray(x, jnp.bfloat16))
  assert variables["params"]["fc1"]["kernel"].shape == (8, 1)
  assert y.dtype == jnp.bfloat16 and {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
