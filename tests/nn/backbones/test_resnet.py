"""Post-activation ResNets; that imported weights give the original's numbers is in tests/pretrained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.resnet import cbam_resnet50, resnet, resnet50, resnet152, se_resnet50, se_resnext50
from hierjax.nn.registry import ModelConfig, make_method

ALL = {
  "resnet50": resnet50,
  "resnet152": resnet152,
  "se_resnet50": se_resnet50,
  "se_resnext50": se_resnext50,
  "cbam_resnet50": cbam_resnet50,
}


def shapes_of(module, size=224):
  return jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def by_hand(blocks, attention, groups=1):
  """Weights of a ResNet with ImageNet's classifier; `attention(channels)` are those of a block beyond its own."""
  total, before = 7 * 7 * 3 * 64 + 2 * 64, 64
  for i, count in enumerate(blocks):
    inner, width = (64 if groups == 1 else 128) * 2**i, 256 * 2**i
    for j in range(count):
      total += (
        before * inner + 9 * inner * inner // groups + inner * width + 2 * (inner + inner + width) + attention(width)
      )
      total += before * width + 2 * width if j == 0 else 0  # the shortcut
      before = width
  return total + (before + 1) * 1000


def mlp(channels):
  hidden = channels // 16
  return channels * hidden + hidden + hidden * channels + channels


@pytest.mark.parametrize(
  "name,blocks,attention,published",
  [
    ("resnet50", (3, 4, 6, 3), lambda c: 0, 25_557_032),
    ("resnet152", (3, 8, 36, 3), lambda c: 0, 60_192_808),
    ("se_resnet50", (3, 4, 6, 3), mlp, 28_088_024),
    ("se_resnext50", (3, 4, 6, 3), mlp, 27_559_896),  # 32 x 4d, timm's seresnext50_32x4d
    # 28.09M in the paper: the 7x7 convolution of two maps has no bias, its norm two numbers
    ("cbam_resnet50", (3, 4, 6, 3), lambda c: mlp(c) + 7 * 7 * 2 + 2, 28_089_624),
  ],
)
def test_they_have_the_published_sizes_and_maps(name, blocks, attention, published):
  features, variables = shapes_of(ALL[name](dtype=jnp.bfloat16))
  weights = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert weights + (2048 + 1) * 1000 == by_hand(blocks, attention, 32 if "next" in name else 1) == published
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  assert features.pooled.shape == (1, 2048) and features.pooled.dtype == jnp.float32
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)}
  maps = zip((56, 28, 14, 7), (256, 512, 1024, 2048), strict=True)
  assert [stage.shape[1:] for stage in features.stages] == [(m, m, w) for m, w in maps]


def test_any_size_goes_in():
  """Every layer with stride 2 leaves half a map, rounded up, as torchvision's do."""
  for size, maps in ((1, (1, 1, 1, 1)), (33, (9, 5, 3, 2)), (97, (25, 13, 7, 4))):
    features, _ = shapes_of(resnet((1, 1, 1, 1), width=2), size)
    assert tuple(stage.shape[1] for stage in features.stages) == maps


def test_the_names_of_weights():
  _, variables = shapes_of(se_resnet50(width=2), 32)
  params = variables["params"]
  assert set(params) == {"stem", "stages_0", "stages_1", "stages_2", "stages_3"}
  assert set(params["stem"]) == {"conv", "norm"}
  assert set(params["stages_2"]) == {f"blocks_{j}" for j in range(6)}
  block = {"conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "attention"}
  assert set(params["stages_0"]["blocks_0"]) == block | {"shortcut", "shortcut_norm"}
  assert set(params["stages_3"]["blocks_1"]) == block


def test_a_resnet_is_merged_after_a_stage(toy_tree):
  backbone = {"name": "cbam_resnet50", "width": 2, "reduction": 2}
  config = ModelConfig(backbone, {"name": "coarse_fine"}, merged={"shared": 3})
  module = make_method(config, tree_arrays(toy_tree)).module
  params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]["backbone"]
  branches = [params[f"branches_{level}"] for level in range(3)]
  assert [len([name for name in branch if "stages" in name]) for branch in branches] == [1] * 3


def test_training_moves_the_statistics_of_every_norm(key, rng):
  backbone = resnet((1,), width=2)
  images = rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
  shapes = jax.eval_shape(backbone.init, key, images)
  before = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)
  _, after = jax.jit(partial(backbone.apply, train=True, mutable=["batch_stats"]))(before, images)
  means = jax.tree.leaves(jax.tree.map(np.not_equal, before["batch_stats"], jax.device_get(after["batch_stats"])))
  assert len(means) == 2 * 5 and all(moved.any() for moved in means)


@pytest.mark.parametrize(
  "build,message",
  [
    (lambda: resnet(()), r"blocks = \(\)"),
    (lambda: resnet((2, 0)), r"blocks = \(2, 0\)"),
    (lambda: resnet50(width=0), "width = 0"),
    (lambda: se_resnet50(reduction=0), "reduction = 0: must be 1 or more"),
  ],
)
def test_nets_that_do_not_exist_are_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
