import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.backbones.preact import Block, small_resnet, wide_resnet, wider_resnet
from hierjax.heads.flat import FlatHead
from hierjax.models.classifier import Classifier


def shapes_of(backbone):
  return jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def count(shapes):
  return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def by_hand(stem, widths, blocks):
  """Weights of a pre-activation net of basic blocks: 3x3 convolutions, 1x1 shortcuts, two numbers a normed channel."""
  total, before = 9 * 3 * stem, stem
  for width in widths:
    for i in range(blocks):
      total += 2 * before + 9 * before * width + 2 * width + 9 * width * width
      total += before * width if i == 0 and before != width else 0
      before = width
  return total + 2 * widths[-1]


def test_wrn_28_10_has_the_published_size():
  shapes = shapes_of(wide_resnet(28, 10, dropout=0.3, dtype=jnp.bfloat16))
  assert count(shapes) == by_hand(16, (160, 320, 640), 4) == 36_472_784  # 36,479,194 with the 10-way layer
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
  convolutions = [leaf for leaf in jax.tree.leaves(shapes["params"]) if leaf.ndim == 4 and leaf.shape[0] == 3]
  assert len(convolutions) == 28 - 3  # the other three are the shortcuts


def test_wider_resnet_has_the_published_size():
  """READINGS G11 counts convolutions alone, shortcuts among them."""
  shapes = shapes_of(Classifier(wider_resnet(), FlatHead(100)))["params"]
  shapes, head = shapes["backbone"], shapes["head"]
  convolutions = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim == 4)
  assert convolutions == 45_385_408
  assert convolutions + sum(leaf.size for leaf in jax.tree.leaves(head)) == 45_487_908
  for i, width in enumerate((256, 512, 1024)):
    blocks = [shapes[f"stages_{i}"][f"blocks_{j}"] for j in range(3)]
    assert all([b[f"conv{n}"]["kernel"].shape[0] for n in (1, 2, 3)] == [1, 3, 1] for b in blocks)
    assert all({b[f"conv{n}"]["kernel"].shape[-1] for n in (1, 2, 3)} == {width} for b in blocks)
    assert ["shortcut" in b for b in blocks] == [True, False, False]
  assert shapes["stem"]["conv"]["kernel"].shape == (3, 3, 3, 64)
  backbone = wider_resnet(widths=(4, 4, 8), blocks=1)
  maps = jax.eval_shape(backbone.init_with_output, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))[0].stages
  assert [stage.shape[1:] for stage in maps] == [(32, 32, 4), (16, 16, 4), (8, 8, 8)]


@pytest.mark.parametrize("kernels", [(3, 3), (1, 3, 1)])
def test_a_block_is_norm_relu_and_convolution_in_turn_and_a_shortcut(kernels, rng):
  block, x = Block(4, stride=2, kernels=kernels), jnp.asarray(rng.normal(size=(2, 5, 5, 3)), jnp.float32)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)
  variables = {
    "params": jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes["params"]),
    "batch_stats": jax.tree.map(
      lambda s: jnp.asarray(rng.uniform(0.5, 2, s.shape), jnp.float32), shapes["batch_stats"]
    ),
  }

  def conv(x, name, stride=1):
    kernel = variables["params"][name]["kernel"]
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

  def act(x, name):
    learnt, running = (jax.device_get(variables[kind][name]["norm"]) for kind in variables)
    x = (np.asarray(x) - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    return jnp.asarray(np.maximum(x * learnt["scale"] + learnt["bias"], 0))

  opened = act(x, "act1")
  y = conv(opened, "conv1", 2)
  for n in range(2, len(kernels) + 1):
    y = conv(act(y, f"act{n}"), f"conv{n}")
  np.testing.assert_allclose(block.apply(variables, x), conv(opened, "shortcut", 2) + y, rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_small_resnet_counts(blocks):
  assert count(shapes_of(small_resnet(blocks=blocks))) == by_hand(32, (32, 64, 128), blocks)


def test_features_of_each_stage(key):
  backbone = small_resnet(widths=(4, 8), dtype=jnp.bfloat16)
  images = jax.random.normal(key, (2, 8, 8, 3))
  features = jax.eval_shape(lambda: backbone.init_with_output(key, images))[0]
  assert [stage.shape for stage in features.stages] == [(2, 8, 8, 4), (2, 4, 4, 8)]
  assert features.stages[1].dtype == jnp.bfloat16 and features.pooled.dtype == jnp.float32


def test_pooled_is_the_mean_of_the_last_stage_and_names_are_explicit(key):
  backbone = small_resnet(widths=(4,), dropout=0.5)
  images = jax.random.normal(key, (2, 6, 6, 3))
  variables = jax.jit(backbone.init)(key, images)
  features = backbone.apply(variables, images)
  np.testing.assert_allclose(features.pooled, np.asarray(features.stages[-1]).mean((1, 2)), rtol=1e-5)
  assert (features.stages[-1] >= 0).all()  # the final norm and ReLU are the last stage's
  assert set(variables["params"]) == {"stem", "stages_0"}
  assert set(variables["params"]["stages_0"]) == {"blocks_0", "norm"}
  assert set(variables["params"]["stages_0"]["blocks_0"]) == {"act1", "act2", "conv1", "conv2"}


@pytest.mark.parametrize(
  "build", [lambda: wide_resnet(depth=27), lambda: small_resnet(widths=()), lambda: wider_resnet(blocks=0)]
)
def test_nets_that_do_not_exist_are_refused(build):
  with pytest.raises(ValueError, match=r"depth = 27: .* 6 n|widths = "):
    build()
