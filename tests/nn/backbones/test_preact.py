import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.nn.backbones.preact import Block, preact_resnet, small_resnet, wide_resnet, wider_resnet
from hierjax.nn.classifier import Classifier
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.registry import part_fields


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


def bottlenecks_by_hand(depth, classes):
  """Weights of He et al.'s net: the convolutions' and the classifier's, and two numbers a normed channel."""
  weights, norms, before = 9 * 3 * 16, 2 * 256, 16
  for inner in (16, 32, 64):
    width = 4 * inner
    for i in range((depth - 2) // 9):
      weights += before * inner + 9 * inner * inner + inner * width
      weights += before * width if i == 0 else 0  # the shortcut
      norms += 2 * (before + inner + inner)
      before = width
  return weights + (256 + 1) * classes, norms


def test_resnet_164_has_the_published_size():
  """He et al., Table 4, on CIFAR-10: 1.7M for ResNet-164, and 10.2M for ResNet-1001, which is without the norms."""
  assert bottlenecks_by_hand(164, 10) == (1_679_034, 24_224)  # 1,703,258
  assert round(bottlenecks_by_hand(1001, 10)[0] / 1e6, 1) == 10.2
  assert (
    sum(bottlenecks_by_hand(164, 100)) == 1_726_388 and part_fields("backbone", "preact_resnet")["depth"].default == 164
  )
  shapes = shapes_of(Classifier(preact_resnet(29, dtype=jnp.bfloat16), FlatHead(100)))
  assert count(shapes) == sum(bottlenecks_by_hand(29, 100))
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
  convolutions = [leaf for leaf in jax.tree.leaves(shapes["params"]["backbone"]) if leaf.ndim == 4]
  assert len(convolutions) + 1 == 29 + 3  # with the classifier; the other three are the shortcuts


@pytest.mark.parametrize("size,maps", [(32, (32, 16, 8)), (224, (224, 112, 56)), (9, (9, 5, 3))])
def test_maps_of_a_preact_resnet(size, maps):
  images = jnp.zeros((1, size, size, 3))
  features = jax.eval_shape(preact_resnet(11).init_with_output, jax.random.key(0), images)[0]
  assert [stage.shape[1:] for stage in features.stages] == [
    (m, m, w) for m, w in zip(maps, (64, 128, 256), strict=True)
  ]


@pytest.mark.parametrize("kernels,bottleneck", [((3, 3), 1), ((1, 3, 1), 1), ((1, 3, 1), 2)])
def test_a_block_is_norm_relu_and_convolution_in_turn_and_a_shortcut(kernels, bottleneck, rng):
  block, x = Block(4, 2, kernels, bottleneck), rng.normal(size=(2, 5, 5, 3)).astype(np.float32)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)
  widths = [shapes["params"][f"conv{n}"]["kernel"].shape[-1] for n in range(1, len(kernels) + 1)]
  assert widths == [4 // bottleneck] * (len(kernels) - 1) + [4]
  variables = {
    "params": jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes["params"]),
    "batch_stats": jax.tree.map(lambda s: np.float32(rng.uniform(0.5, 2, s.shape)), shapes["batch_stats"]),
  }

  def conv(x, name, stride=1):
    kernel = variables["params"][name]["kernel"]
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

  def act(x, name):
    learnt, running = (jax.tree.map(lambda w: w[None, None, None], variables[kind][name]["norm"]) for kind in variables)
    x = (x - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    return jnp.maximum(x * learnt["scale"] + learnt["bias"], 0)

  @jax.jit
  def by_hand(x):
    opened = act(x, "act1")
    y = conv(opened, "conv1", 2)
    for n in range(2, len(kernels) + 1):
      y = conv(act(y, f"act{n}"), f"conv{n}")
    return conv(opened, "shortcut", 2) + y

  np.testing.assert_allclose(jax.jit(block.apply)(variables, x), by_hand(x), rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_small_resnet_counts(blocks):
  assert count(shapes_of(small_resnet(blocks=blocks))) == by_hand(32, (32, 64, 128), blocks)


def test_features_of_each_stage(key):
  backbone = small_resnet(widths=(4, 8), dtype=jnp.bfloat16)
  images = jax.random.normal(key, (2, 8, 8, 3))
  features = jax.eval_shape(lambda: backbone.init_with_output(key, images))[0]
  assert [stage.shape for stage in features.stages] == [(2, 8, 8, 4), (2, 4, 4, 8)]
  assert features.stages[1].dtype == jnp.bfloat16 and features.pooled.dtype == jnp.float32


CONVOLUTIONS = {"conv1/kernel", "conv2/kernel"}
NORMS = {"act1/norm/scale", "act1/norm/bias", "act2/norm/scale", "act2/norm/bias"}


def test_weights_keep_the_names_that_run_folders_have():
  paths = jax.tree.leaves_with_path(shapes_of(small_resnet(widths=(4, 8), blocks=2))["params"])
  expected = {"stem/conv/kernel", "stages_1/norm/norm/scale", "stages_1/norm/norm/bias"}
  expected |= {f"stages_{i}/blocks_{j}/{name}" for i in (0, 1) for j in (0, 1) for name in CONVOLUTIONS | NORMS}
  expected |= {"stages_1/blocks_0/shortcut/kernel"}
  assert {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths} == expected


def test_pooled_is_the_mean_of_the_last_stage_and_names_are_explicit(key, rng):
  backbone = small_resnet(widths=(4,), dropout=0.5)
  images = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
  features, variables = jax.device_get(jax.jit(backbone.init_with_output)(key, images))
  np.testing.assert_allclose(features.pooled, features.stages[-1].mean((1, 2)), rtol=1e-5)
  assert (features.stages[-1] >= 0).all()  # the final norm and ReLU are the last stage's
  assert set(variables["params"]) == {"stem", "stages_0"}
  assert set(variables["params"]["stages_0"]) == {"blocks_0", "norm"}
  assert set(variables["params"]["stages_0"]["blocks_0"]) == {"act1", "act2", "conv1", "conv2"}


@pytest.mark.parametrize(
  "build,message",
  [
    (lambda: wide_resnet(depth=27), r"depth = 27: .* 6 n \+ 4"),
    (lambda: preact_resnet(depth=166), r"depth = 166: .* 9 n \+ 2: 11, 20,"),
    (lambda: preact_resnet(depth=2), r"depth = 2: "),
    (lambda: preact_resnet(dropout=1.0), r"dropout = 1.0: .* 0 <= dropout < 1"),
    (lambda: small_resnet(widths=()), r"widths = \(\)"),
    (lambda: wider_resnet(blocks=0), r"blocks = 0"),
  ],
)
def test_nets_that_do_not_exist_are_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
