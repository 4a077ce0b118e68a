import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.backbone import map_of
from hierjax.nn.backbones.vit import VITS, group_ends, vit
from hierjax.nn.registry import ModelConfig, make_method, part_fields

TINY = {"width": 8, "depth": 5, "heads": 2, "patch": 4, "size": 16}
CONVNEXT = {"name": "convnext_tiny", "widths": [4, 6, 8], "blocks": [1, 1, 1]}


def shapes_of(backbone, *size):
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  return jax.eval_shape(backbone.init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize(
  "name,published",
  [
    ("vit_tiny_patch16", 5_717_416),
    ("vit_small_patch16", 22_050_664),
    ("vit_base_patch16", 86_567_656),
    pytest.param("vit_large_patch16", 304_326_632, marks=pytest.mark.slow),
  ],
)
def test_they_have_the_published_sizes_with_imagenets_classifier(name, published):
  features, variables = shapes_of(VITS[name](dtype=jnp.bfloat16), 224, 224)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) + (features.pooled.shape[1] + 1) * 1000 == published
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  assert [stage.shape[1:3] for stage in features.stages] == [(14, 14)] * 4
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)} and features.pooled.dtype == jnp.float32


def test_a_variant_is_vit_with_other_defaults_which_a_config_sees():
  fields = part_fields("backbone", "vit_large_patch14_clip")
  assert set(fields) == set(part_fields("backbone", "vit_base_patch16"))
  assert (fields["width"].default, fields["pre_norm"].default, fields["heads"].kind) == (1024, True, int)
  assert all(field.text for field in fields.values())
  epsilons = {name: part_fields("backbone", name)["epsilon"].default for name in VITS}
  assert {name for name, epsilon in epsilons.items() if epsilon != 1e-6} == {name for name in VITS if "clip" in name}
  assert epsilons["vit_base_patch16_clip"] == 1e-5  # too close to 1e-6 for the comparison with timm


@pytest.mark.parametrize(
  "settings",
  [
    {"registers": 2, "prefix_positions": False, "layer_scale": 0.5, "pre_norm": True},
    {"class_token": False, "pool": "attention"},
    {"class_token": False, "registers": 1, "pool": "average", "norm_after_pool": True},
  ],
)
def test_it_can_be_cut_after_any_stage_and_every_weight_learns(settings, rng):
  """Stem, stages and top, run one by one, give the maps of the whole; no weight is without a gradient."""
  backbone = vit(**{**TINY, "stages": 2, "depth": 3, **settings})
  images = jax.device_put(rng.normal(size=(2, 12, 20, 3)).astype(np.float32))
  shapes = jax.eval_shape(backbone.init, jax.random.key(0), images)
  params = jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape, scale=0.3)), shapes)["params"]
  weights = np.float32(rng.normal(size=(2, 8)))

  def one_by_one(params):
    x = backbone.stem.apply({"params": params["stem"]}, images)
    maps = []
    for i, stage in enumerate(backbone.stages):
      x = stage.apply({"params": params[f"stages_{i}"]}, x)
      maps.append(map_of(x))
    return maps, backbone.top.apply({"params": params.get("top", {})}, x)

  def total(params):
    features = backbone.apply({"params": params}, images)
    return (features.pooled * weights).sum(), (list(features.stages), features.pooled)

  gradients, whole = jax.jit(jax.grad(total, has_aux=True))(params)
  assert [cells.shape for cells in whole[0]] == [(2, 3, 5, 8)] * 2
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), jax.jit(one_by_one)(params), whole)
  assert [path for path, leaf in jax.tree.leaves_with_path(gradients) if not np.abs(leaf).max() > 0] == []


def test_groups_of_blocks_are_as_equal_as_can_be():
  assert group_ends(12, 4) == (3, 6, 9, 12) and group_ends(27, 4) == (7, 14, 21, 27) and group_ends(5, 5)[-1] == 5
  params = shapes_of(vit(**TINY, stages=2), 16, 16)[1]["params"]
  assert set(params) == {"stem", "stages_0", "stages_1"}
  assert set(params["stages_0"]) == {"blocks_0", "blocks_1", "blocks_2"}
  assert set(params["stages_1"]) == {"blocks_0", "blocks_1", "norm"}


@pytest.mark.parametrize("backbone", [{"name": "vit_tiny_patch16", **TINY, "stages": 4}, CONVNEXT])
@pytest.mark.parametrize("shared", [0, 1, 3])
def test_it_is_merged_after_any_stage(backbone, shared, toy_tree):
  method = make_method(ModelConfig(backbone, {"name": "coarse_fine"}, merged={"shared": shared}), tree_arrays(toy_tree))
  images = jnp.zeros((2, 32, 32, 3))
  outputs, variables = jax.eval_shape(method.module.init_with_output, jax.random.key(0), images)
  stages = 4 if backbone["name"].startswith("vit") else 3
  branches = [variables["params"]["backbone"].get(f"branches_{level}", {}) for level in range(3)]
  assert [len([name for name in branch if "stages" in name]) for branch in branches] == [stages - shared] * 3
  assert all(("top" in branch) == (backbone is CONVNEXT) for branch in branches)
  assert outputs.shape[0] == 2


@pytest.mark.parametrize("backbone", [{"name": "vit_tiny_patch16", **TINY, "stages": 4}, CONVNEXT])
@pytest.mark.parametrize("head", ["dhnn_rnn", "dhnn_s2s"])
def test_a_dhnn_reads_its_stages(backbone, head, toy_tree):
  head = {"name": head, "width": 4, "size": 16}
  method = make_method(ModelConfig(backbone, head), tree_arrays(toy_tree.truncated(2)))
  module, images = method.module, jnp.zeros((2, 32, 32, 3))
  features, _ = jax.eval_shape(lambda key: module.init_with_output(key, images, method="features"), jax.random.key(0))
  stages = 4 if backbone["name"].startswith("vit") else 3
  assert [f"stage {stage + 1}" in line for stage, line in enumerate(module.head.describe(features))] == [True] * stages
  outputs, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), images, jnp.zeros((2, 1, 2), jnp.int32))
  assert outputs.shape[0] == 2


@pytest.mark.parametrize(
  ("backbone", "side", "maps"),
  [({"name": "vit_tiny_patch16", **TINY, "stages": 2}, 4, [(4, 6)] * 2), (CONVNEXT, 16, [(16, 24), (8, 12), (4, 6)])],
)
def test_a_context_network_reads_the_last_map(backbone, side, maps, toy_tree):
  neck = {"name": "context", "cell": "srn", "scales": [1, 2], "hidden": [6], "dropout": 0.0}
  module = make_method(ModelConfig(backbone, {"name": "flat"}, neck=neck), tree_arrays(toy_tree)).module
  images = jnp.zeros((2, 4 * side, 6 * side, 3))
  features, variables = jax.eval_shape(
    lambda key: module.init_with_output(key, images, method="features"), jax.random.key(0)
  )
  assert [stage.shape[1:3] for stage in features.stages[: len(maps)]] == maps and "neck" in variables["params"]


@pytest.mark.parametrize(
  "settings,message",
  [
    ({"heads": 3}, "heads divide the width"),
    ({"stages": 6}, "each stage has a block"),
    ({"patch": 17}, "a patch fits into the size"),
    ({"registers": -1}, "registers is 0 or more"),
    ({"drop_path": 1.0}, "0 <= drop_path < 1"),
    ({"class_token": False}, "no class token to read"),
    ({"epsilon": 0.0}, "epsilon = 0.0: must be above 0"),
    ({"depth": 0}, "depth = 0"),
    ({"hidden": 0}, "hidden = 0"),
  ],
)
def test_nets_that_do_not_exist_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    vit(**{**TINY, **settings})


@pytest.mark.parametrize("height,width", [(16, 18), (15, 16), (2, 16)])
def test_images_that_patches_do_not_fill_are_refused(height, width):
  with pytest.raises(UserError, match=rf"images of {height} x {width} pixels: .* multiples of 4, such as "):
    shapes_of(vit(**TINY), height, width)
