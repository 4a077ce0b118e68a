"""EfficientNet-Lite; that its weights give PyTorch's numbers is in tests/nn/pretrained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.efficientnet_lite import Block, efficientnet_lite0
from hierjax.nn.registry import BACKBONES, ModelConfig, make_method


def shapes_of(module, size=224):
  return jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, size, size, 3)))


@pytest.mark.parametrize(
  "number,published,widths",  # as timm counts them, with ImageNet's classifier; the others' weights: nn/pretrained
  [
    (0, 4_652_008, (16, 24, 40, 112, 1280)),
    pytest.param(1, 5_416_680, (16, 24, 40, 112, 1280), marks=pytest.mark.slow),
    pytest.param(2, 6_092_072, (16, 24, 48, 120, 1280), marks=pytest.mark.slow),
    pytest.param(3, 8_197_096, (24, 32, 48, 136, 1280), marks=pytest.mark.slow),
    (4, 13_006_568, (24, 32, 56, 160, 1280)),
  ],
)
def test_they_have_the_published_sizes_and_maps(number, published, widths):
  features, variables = shapes_of(BACKBONES[f"efficientnet_lite{number}"](dtype=jnp.bfloat16))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) + (1280 + 1) * 1000 == published
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  sides = (112, 56, 28, 14, 7)
  assert [stage.shape[1:] for stage in features.stages] == [(m, m, w) for m, w in zip(sides, widths, strict=True)]
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)}
  assert features.pooled.shape == (1, 1280) and features.pooled.dtype == jnp.float32


def test_of_an_odd_side_half_is_left_rounded_up():
  for size, left in ((97, 49), (1, 1)):
    cells, _ = shapes_of(Block(4, stride=2), size)
    assert cells.shape == (1, left, left, 4)


def test_paddings_differ_where_a_map_of_even_size_is_halved(key):
  """SAME has its zeros at the end: of a map of even size it reads what an odd one shifted by a cell would."""
  outputs, whole = {}, np.asarray(jax.random.normal(key, (1, 8, 8, 4)))
  for size in (8, 7):
    for symmetric in (False, True):
      block = Block(4, 3, 2, 2, symmetric)
      x = whole[:, :size, :size]

      def run(x, block=block):
        variables = jax.tree.map(lambda leaf: leaf + 0.1, block.init(key, x))
        return block.apply(variables, x)

      outputs[size, symmetric] = np.asarray(jax.jit(run)(x))
  assert np.abs(outputs[8, False] - outputs[8, True]).max() > 0.05
  assert 0 < np.abs(outputs[7, False] - outputs[7, True]).max() < 0.02  # the epsilons


def test_training_moves_the_statistics_of_every_norm(key):
  block, images = Block(6, stride=2), jax.random.normal(key, (4, 8, 8, 3))
  before = jax.jit(block.init)(key, images)
  _, after = jax.jit(partial(block.apply, train=True, mutable=["batch_stats"]))(before, images)
  moved = jax.tree.map(lambda a, b: (np.asarray(a) != b).any(), before["batch_stats"], after["batch_stats"])
  assert len(jax.tree.leaves(moved)) == 6 and all(jax.tree.leaves(moved))


def test_it_is_merged_after_a_stage(toy_tree):
  config = ModelConfig({"name": "efficientnet_lite0"}, {"name": "coarse_fine"}, merged={"shared": 4})
  module = make_method(config, tree_arrays(toy_tree)).module
  params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]["backbone"]
  branches = [params[f"branches_{level}"] for level in range(3)]
  assert [len([name for name in branch if "stages" in name]) for branch in branches] == [1] * 3


def test_the_names_of_weights():
  params = shapes_of(efficientnet_lite0(), 32)[1]["params"]
  assert {name: len(part) for name, part in params.items()} == {
    "stem": 2, "stages_0": 1, "stages_1": 2, "stages_2": 2, "stages_3": 6, "stages_4": 5 + 2,
  }  # fmt: skip
  layers = {"expand", "expand_norm", "depthwise", "depthwise_norm", "project", "project_norm"}
  assert set(params["stages_4"]["blocks_4"]) == layers
  assert set(params["stages_0"]["blocks_0"]) == layers - {"expand", "expand_norm"}
