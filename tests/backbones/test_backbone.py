import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.backbones.densenet import densenet
from hierjax.backbones.preact import preact_resnet


@pytest.mark.parametrize("build", [lambda: densenet(10, growth=4), lambda: preact_resnet(11)])
def test_a_net_can_be_cut_after_any_stage_and_every_weight_learns(build, rng):
  """Stem and stages, run one by one, give the maps of the whole; no weight is without a gradient."""
  backbone, images = build(), jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
  shapes = jax.eval_shape(backbone.init, jax.random.key(0), images)
  draw = {"params": rng.normal, "batch_stats": lambda size: rng.uniform(0.5, 2, size)}
  variables = {k: jax.tree.map(lambda s, k=k: jnp.asarray(draw[k](size=s.shape), jnp.float32), shapes[k]) for k in draw}

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
  assert [path for path, leaf in jax.tree.leaves_with_path(gradients) if not jnp.abs(leaf).max() > 0] == []
