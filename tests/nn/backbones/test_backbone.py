import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.backbone import check_sizes
from hierjax.nn.backbones.densenet import densenet
from hierjax.nn.backbones.plain import alexnet
from hierjax.nn.backbones.preact import preact_resnet, small_resnet, wide_resnet
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.tree.builders import from_paths


@pytest.mark.parametrize("build", [lambda: densenet(10, growth=4), lambda: preact_resnet(11)])
def test_a_net_can_be_cut_after_any_stage_and_every_weight_learns(build, rng):
  """Stem and stages, run one by one, give the maps of the whole; no weight is without a gradient."""
  backbone, images = build(), jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
  shapes = jax.eval_shape(backbone.init, jax.random.key(0), images)
  draw = {"params": rng.normal, "batch_stats": lambda size: rng.uniform(0.5, 2, size)}
  variables = {k: jax.tree.map(lambda s, k=k: np.float32(draw[k](size=s.shape)), shapes[k]) for k in draw}

  def one_by_one(variables):
    part = {name: {k: tree[name] for k, tree in variables.items() if name in tree} for name in variables["params"]}
    maps = [backbone.stem.apply(part["stem"], images)]
    for i, stage in enumerate(backbone.stages):
      maps.append(stage.apply(part[f"stages_{i}"], maps[-1]))
    return maps[1:]

  def total(params):
    features = backbone.apply({**variables, "params": params}, images)
    return features.pooled.sum(), features.stages

  gradients, whole = jax.jit(jax.grad(total, has_aux=True))(variables["params"])
  for part, expected in zip(jax.jit(one_by_one)(variables), whole, strict=True):
    np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
  assert [path for path, leaf in jax.tree.leaves_with_path(gradients) if not np.abs(leaf).max() > 0] == []


@pytest.mark.parametrize("size", [0, -1, 1.0, True, "a", float("nan"), None, (8, 8.5), (0,), ("a",)])
def test_sizes_are_whole_numbers_above_0(size):
  with pytest.raises(ValueError, match=f"width = {re.escape(repr(size))}: must be 1 or more, and whole"):
    check_sizes(blocks=1, width=size)
  check_sizes(width=np.int64(3), widths=[8, np.int32(1)])


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: small_resnet(widths=(0,)), r"widths = \(0,\)"),
    (lambda: small_resnet(widths=(-1, 8)), r"widths = \(-1, 8\)"),
    (lambda: wide_resnet(10, width=-1), r"width = -1"),
    (lambda: alexnet(lrn_alpha=float("nan")), r"lrn_alpha = nan"),
    (lambda: make("wide_resnet", width=-1), r"config\.backbone: width = -1"),
    (lambda: make("vgg16", width=True), r"config\.backbone\.width = True: must be a whole number"),
  ],
)
def test_a_backbone_without_channels_is_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()


def make(name, **settings):
  tree = from_paths([("a", "b"), ("c", "d")])
  return make_method(ModelConfig({"name": name, **settings}, {"name": "flat"}), tree_arrays(tree))
