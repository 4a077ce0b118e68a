"""VGG-16; that imported weights give the original's numbers is in tests/pretrained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.vgg import Stage, Top, vgg16
from hierjax.nn.classifier import Classifier
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.registry import ModelConfig, make_method


def shapes_of(module, size=224):
  return jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def count(variables):
  return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("batch_norm,published", [(False, 138_357_544), (True, 138_365_992)])
def test_it_has_the_published_size(batch_norm, published):
  backbone = vgg16(batch_norm=batch_norm, top=(4096, 4096), dtype=jnp.bfloat16)
  _, variables = shapes_of(Classifier(backbone, FlatHead(1000)))
  assert count(variables) == published
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  convolutions = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
  assert len(convolutions) + 3 == 16  # with the fully connected layers
  assert set(variables["params"]["backbone"]["top"]) == {"fc6", "fc7"}


@pytest.mark.parametrize("size", [224, 160, 47])
def test_maps_and_pooled_vectors(size):
  maps, widths = [size // 2**i for i in range(1, 6)], (64, 128, 256, 512, 512)
  for top, pooled in ((None, 512), ((32, 16), 16)):
    features, _ = shapes_of(vgg16(top=top, batch_norm=True, dtype=jnp.bfloat16), size)
    assert [stage.shape[1:] for stage in features.stages] == [(m, m, w) for m, w in zip(maps, widths, strict=True)]
    assert features.pooled.shape == (1, pooled) and features.pooled.dtype == jnp.float32


def test_a_stage_ends_with_its_pool(rng):
  stage, x = Stage(3, 1), rng.normal(size=(2, 5, 4, 2)).astype(np.float32)
  variables = {"params": {"conv1": {"kernel": rng.normal(size=(3, 3, 2, 3)), "bias": rng.normal(size=3)}}}
  variables = jax.tree.map(lambda leaf: leaf.astype(np.float32), variables)
  y, kernel = np.zeros((2, 5, 4, 3)) + variables["params"]["conv1"]["bias"], variables["params"]["conv1"]["kernel"]
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  for r, c in np.ndindex(3, 3):
    y += padded[:, r : r + 5, c : c + 4] @ kernel[r, c]
  y = np.maximum(y, 0)[:, :4]  # the fifth row is left out
  expected = np.maximum.reduce([y[:, r::2, c::2] for r, c in np.ndindex(2, 2)])
  np.testing.assert_allclose(jax.jit(stage.apply)(variables, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(7, 7), (2, 9), (10, 5)])
def test_the_top_reads_the_map_on_a_grid_of_7_by_7(size, rng):
  top, x = Top((5, 4)), rng.uniform(size=(2, *size, 3)).astype(np.float32)
  shapes = jax.eval_shape(top.init, jax.random.key(0), jnp.asarray(x))
  variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)

  def cells(size):  # torch.nn.AdaptiveAvgPool2d
    return [slice(i * size // 7, -((-(i + 1) * size) // 7)) for i in range(7)]

  grid = np.stack([np.stack([x[:, r, c].mean((1, 2)) for c in cells(size[1])], 1) for r in cells(size[0])], 1)
  y = grid.reshape(2, -1)
  for name in ("fc6", "fc7"):
    y = np.maximum(y @ variables["params"][name]["kernel"] + variables["params"][name]["bias"], 0)
  np.testing.assert_allclose(jax.jit(top.apply)(variables, x), y, rtol=1e-4, atol=1e-4)


def test_dropout_follows_both_layers_of_the_top(key):
  top, x = Top((64, 64), dropout=0.5), jnp.ones((1, 7, 7, 2))
  variables = jax.tree.map(lambda s: jnp.ones(s.shape), jax.eval_shape(top.init, key, x))
  run = jax.jit(lambda key: top.apply(variables, x, train=True, rngs={"dropout": key}))
  y = run(jax.random.key(1, impl="rbg"))
  kept = y[y > 0]
  assert 0.2 < kept.size / 64 < 0.8
  # each of the n of fc6's 64 units that are kept counts twice, and so does what is kept of fc7
  n = (float(kept[0]) / 2 - 1) / (2 * (7 * 7 * 2 + 1))
  assert n == round(n) and 0 < n < 64


def test_a_vgg_is_merged_and_each_branch_has_a_top(toy_tree):
  def params(**backbone):
    backbone = {"name": "vgg16", "width": 2, **backbone}
    method = make_method(ModelConfig(backbone, {"name": "coarse_fine"}, merged={"shared": 3}), tree_arrays(toy_tree))
    return jax.eval_shape(method.module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]["backbone"]

  assert set(params()["branches_2"]) == {"stages_0", "stages_1"}
  topped = params(top=(8, 8))
  assert set(topped["branches_2"]) == {"stages_0", "stages_1", "top"}
  assert topped["branches_2"]["top"]["fc6"]["kernel"].shape == (7 * 7 * 16, 8)


@pytest.mark.parametrize(
  "settings", [{"width": 0}, {"top": (4096,)}, {"top": (4096, 0)}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_nets_that_do_not_exist_are_refused(settings):
  with pytest.raises(ValueError, match="widths are 1 or more, a top has two"):
    vgg16(**settings)


def test_it_takes_images_that_leave_a_cell():
  assert shapes_of(vgg16(width=2), 32)[0].pooled.shape == (1, 16)
  with pytest.raises(UserError, match=r"31 x 31 .* 32 x 32 or more"):
    shapes_of(vgg16(width=2), 31)
