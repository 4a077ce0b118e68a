import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.backbones.plain import LRN_ALPHA, Group, Stage, alexnet, cnn7, sppnet
from hierjax.nn.layers.pooling import max_pool, mean_pool

THIN = (4, 5, 6, 6, 4)


def shapes_of(backbone, height, width=None):
  """The parameters, the features and each convolution's own map, before its pool, as shapes."""

  def run(key, images):
    variables = backbone.init(key, images)
    features, state = backbone.apply(variables, images, capture_intermediates=lambda module, _: module.name == "conv")
    maps = [state["intermediates"][f"stages_{i}"]["conv"]["__call__"][0] for i in range(5)]
    return variables["params"], features, maps

  images = jax.ShapeDtypeStruct((2, height, width or height, 3), jnp.float32)
  return jax.eval_shape(run, jax.random.key(0), images)


def sides(maps):
  assert all(m.shape[1] == m.shape[2] for m in maps)
  return [m.shape[1] for m in maps]


@pytest.mark.parametrize(
  ("build", "convolved", "stages"),
  [(sppnet, [110, 26, 13, 13, 13], [55, 13, 13, 13, 13]), (alexnet, [54, 27, 13, 13, 13], [27, 13, 13, 13, 13])],
)
def test_maps_of_table_one(build, convolved, stages):
  """READINGS Z11 and Z12."""
  _, features, maps = shapes_of(build(), 224)
  assert sides(maps) == convolved and sides(features.stages) == stages
  assert [m.shape[-1] for m in features.stages] == [96, 256, 384, 384, 256]
  assert features.pooled.shape == (2, 256)


@pytest.mark.parametrize(("build", "conv1"), [(sppnet, 7 * 7), (alexnet, 11 * 11)])
def test_weights_of_table_one(build, conv1):
  params = shapes_of(build(), 224)[0]
  by_hand = {
    "stages_0": conv1 * 3 * 96 + 96,  # 14,208 for SPP-net, 34,944 for AlexNet
    "stages_1": 5 * 5 * 96 * 256 + 256,  # 614,656
    "stages_2": 3 * 3 * 256 * 384 + 384,  # 885,120
    "stages_3": 3 * 3 * 384 * 384 + 384,  # 1,327,488
    "stages_4": 3 * 3 * 384 * 256 + 256,  # 884,992
  }
  assert {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()} == by_hand
  assert sum(by_hand.values()) == {49: 3_726_464, 121: 3_747_200}[conv1]
  assert all(set(part) == {"conv"} and set(part["conv"]) == {"kernel", "bias"} for part in params.values())


def caffe(size, kernel, stride, pad=0, up=False):
  return (size + 2 * pad - kernel + (stride - 1 if up else 0)) // stride + 1


def caffe_sppnet(size):
  conv1 = caffe(size, 7, 2, 1)
  pool1 = caffe(conv1, 3, 2, up=True)
  conv2 = caffe(pool1, 5, 2)
  return [conv1, pool1, conv2, caffe(conv2, 3, 2, up=True)]


def caffe_alexnet(size):
  conv1 = caffe(size, 11, 4)
  pool1 = caffe(conv1, 3, 2, up=True)
  return [conv1, pool1, pool1, caffe(pool1, 3, 2, up=True)]  # conv2 keeps the size


@pytest.mark.parametrize(("build", "expected"), [(sppnet, caffe_sppnet), (alexnet, caffe_alexnet)])
def test_any_size_goes_in_that_leaves_a_cell(build, expected):
  smallest = next(size for size in range(1, 100) if min(expected(size)) >= 1)
  for size in (*range(smallest, smallest + 9), 64):
    _, features, maps = shapes_of(build(THIN), size)
    convolved, stages = sides(maps), sides(features.stages)
    assert [convolved[0], stages[0], convolved[1], stages[1]] == expected(size)
    assert stages[4] == stages[1]
  assert shapes_of(build(THIN), smallest, 64)[1].stages[4].shape[1:3] == (1, expected(64)[-1])
  for size in ((smallest - 1, 64), (64, smallest - 1)):
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} .* {smallest} x {smallest} or more"):
      shapes_of(build(THIN), *size)


def naive_stage(x, kernel, bias, stride, pad, alpha):
  """Convolution, ReLU, LRN over 5 channels, then Caffe's pool, cell by cell in float64, of one image."""
  size, width = kernel.shape[0], kernel.shape[-1]
  x = np.pad(np.asarray(x, np.float64), ((pad, pad), (pad, pad), (0, 0)))
  rows, columns = (caffe(n, size, stride) for n in x.shape[:2])
  y = np.zeros((rows, columns, width))
  for r, c in np.ndindex(rows, columns):
    patch = x[r * stride : r * stride + size, c * stride : c * stride + size]
    y[r, c] = np.maximum(np.einsum("hwi,hwio->o", patch, kernel) + bias, 0)
  normed = np.zeros_like(y)
  for o in range(width):
    window = y[..., max(o - 2, 0) : o + 3]
    normed[..., o] = y[..., o] / (1 + alpha / 5 * (window**2).sum(-1)) ** 0.75
  pooled = np.zeros((caffe(rows, 3, 2, up=True), caffe(columns, 3, 2, up=True), width))
  for r, c in np.ndindex(*pooled.shape[:2]):
    pooled[r, c] = normed[2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((0, 1))
  return pooled


def test_a_stage_is_convolution_relu_lrn_and_pool_in_this_order(rng):
  x = rng.normal(size=(1, 16, 13, 3))  # convolved to 6 x 5: the pool rounds the rows up
  kernel, bias = rng.normal(size=(7, 7, 3, 8)), rng.normal(size=8)
  stage = Stage(8, kernel=7, stride=2, pad=1, alpha=0.05)
  weights = jax.tree.map(np.float32, {"params": {"conv": {"kernel": kernel, "bias": bias}}})
  (y,) = jax.device_get(jax.jit(stage.apply)(weights, np.float32(x)))
  np.testing.assert_allclose(y, naive_stage(x[0], kernel, bias, 2, 1, 0.05), rtol=1e-4)


def weights(rng, shape):
  """Biases of 0, which a larger scale of the images does not ask to be larger too, and random kernels."""
  return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else np.zeros(shape)


def test_the_default_alpha_is_caffe_s_for_normalised_pixels(rng):
  """A net on pixels from 0 to 255 with Caffe's alpha, and ours on the same pixels normalised: equal up to the scale."""
  scale = 255 * 0.225
  images = rng.normal(size=(2, 31, 33, 3)).astype(np.float32)
  shapes = shapes_of(sppnet(THIN), 31)[0]
  variables = {"params": jax.tree.map(lambda leaf: np.float32(weights(rng, leaf.shape)), shapes)}
  ours = jax.device_get(jax.jit(sppnet(THIN).apply)(variables, images))
  apply = jax.jit(sppnet(THIN, lrn_alpha=1e-4).apply)
  caffe_s = apply(variables, scale * images)
  for mine, theirs in zip(ours.stages, caffe_s.stages, strict=True):
    np.testing.assert_allclose(theirs, scale * mine, rtol=1e-3, atol=1e-4)
  assert abs(LRN_ALPHA - 0.33) < 0.01
  weaker = apply(variables, images)
  assert np.abs(weaker.stages[0] - ours.stages[0]).max() > 0.1 * np.abs(ours.stages[0]).max()  # it does press


def test_weights_start_at_he_s_scale_and_biases_at_0(key):
  params = jax.device_get(jax.jit(Stage(64).init)(key, np.zeros((1, 3, 3, 64), np.float32)))["params"]["conv"]
  np.testing.assert_allclose(params["kernel"].std(), np.sqrt(2 / (9 * 64)), rtol=0.02)
  assert not params["bias"].any()


def test_bfloat16(key):
  params, features, _ = shapes_of(sppnet(THIN, dtype=jnp.bfloat16), 64)
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)}
  assert features.pooled.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


@pytest.mark.parametrize("build", [alexnet, sppnet])
@pytest.mark.parametrize("settings", [{"widths": (4, 4)}, {"widths": (4, 4, 0, 4, 4)}, {"lrn_alpha": -1.0}])
def test_trunks_that_do_not_exist_are_refused(build, settings):
  with pytest.raises(ValueError, match=r"widths = .*, lrn_alpha = .* five widths"):
    build(**settings)


def test_weights_and_maps_of_cnn7():
  """READINGS G10: six convolutions of 3 x 3 and one of 1 x 1, all of 192 channels."""
  images = jnp.zeros((2, 32, 32, 3))
  features, variables = jax.eval_shape(cnn7(dtype=jnp.bfloat16).init_with_output, jax.random.key(0), images)
  by_hand = {
    "stages_0": (9 * 3 * 192 + 192) + (9 * 192 * 192 + 192),  # 5,376 and 331,968
    "stages_1": 2 * (9 * 192 * 192 + 192),
    "stages_2": 2 * (9 * 192 * 192 + 192) + (192 * 192 + 192),  # the last is 37,056
  }
  params = variables["params"]
  assert {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()} == by_hand
  assert sum(by_hand.values()) == 1_702_272
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
  assert [stage.shape for stage in features.stages] == [(2, 16, 16, 192), (2, 8, 8, 192), (2, 8, 8, 192)]
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)}
  assert features.pooled.shape == (2, 192) and features.pooled.dtype == jnp.float32


def test_cnn7_is_its_layers_in_order_and_drops_what_the_classifier_reads(rng, key):
  """In training, an entry of the pooled vector is 0 or twice what it is."""
  backbone, images = cnn7(6, dropout=(0.0, 0.0, 0.5)), jax.device_put(np.float32(rng.normal(size=(2, 9, 7, 3))))
  shapes = jax.eval_shape(backbone.init, key, images)
  variables = jax.tree.map(lambda s: np.float32(rng.normal(0.1, 0.4, s.shape)), shapes)

  def by_hand(x, params):
    for stage, pool in (("stages_0", max_pool), ("stages_1", mean_pool), ("stages_2", lambda x: x)):
      for _, layer in sorted(params[stage].items()):
        x = jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jnp.maximum(x + layer["bias"][None, None, None], 0)
      x = pool(x)
    return x.mean((1, 2))

  @jax.jit
  def run(variables):
    trained = backbone.apply(variables, images, train=True, rngs={"dropout": key})
    return backbone.apply(variables, images), by_hand(images, variables["params"]), trained.pooled

  features, expected, trained = jax.device_get(run(variables))
  assert [stage.shape[1:3] for stage in features.stages] == [(4, 3), (2, 1), (2, 1)]
  np.testing.assert_allclose(features.pooled, expected, rtol=1e-5)
  dropped = trained == 0
  assert 0 < (dropped & (expected > 0)).sum() < (expected > 0).sum()
  np.testing.assert_allclose(trained, np.where(dropped, 0, 2 * features.pooled), rtol=1e-5)


def test_a_group_drops_single_cells_unless_told_otherwise(key):
  assert [stage.dropout for stage in cnn7(4, dropout=(0.1, 0.2, 0.3)).stages] == [0.1, 0.2, 0.3]
  assert [stage.drop_whole for stage in cnn7(4).stages] == [(), (), (1, 2)]
  group = Group(4, (1,), dropout=0.5)

  @jax.jit
  def run(key):
    variables = {"params": {"conv1": {"kernel": jnp.eye(4)[None, None], "bias": jnp.zeros(4)}}}
    return group.apply(variables, jnp.ones((2, 5, 5, 4)), train=True, rngs={"dropout": key})

  trained = np.asarray(run(key))
  assert set(np.unique(trained)) == {0, 2} and (np.ptp(trained, axis=(1, 2)) == 2).all()


@pytest.mark.parametrize("settings", [{"width": 0}, {"dropout": (0.5, 0.5)}, {"dropout": (0.5, 0.5, 1.0)}])
def test_a_cnn7_that_does_not_exist_is_refused(settings):
  with pytest.raises(ValueError, match=r"width = .*, dropout = .* three rates"):
    cnn7(**settings)


def test_cnn7_takes_images_that_leave_a_cell():
  assert jax.eval_shape(cnn7(4).init_with_output, jax.random.key(0), jnp.zeros((1, 4, 5, 3)))[0].pooled.shape == (1, 4)
  with pytest.raises(UserError, match=r"3 x 9 .* 4 x 4 or more"):
    jax.eval_shape(cnn7(4).init, jax.random.key(0), jnp.zeros((1, 3, 9, 3)))
