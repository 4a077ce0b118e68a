import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.backbones.convnext import CONVNEXTS, convnext
from hierjax.nn.classifier import Classifier
from hierjax.nn.heads.flat import FlatHead

TINY = {"widths": (4, 6, 8), "blocks": (1, 2, 1)}


@pytest.mark.parametrize(
  "name,published",
  [
    ("convnext_tiny", 28_589_128),
    pytest.param("convnext_small", 50_223_688, marks=pytest.mark.slow),
    pytest.param("convnext_base", 88_591_464, marks=pytest.mark.slow),
    pytest.param("convnext_large", 197_767_336, marks=pytest.mark.slow),
  ],
)
def test_they_have_the_published_sizes_and_maps(name, published):
  classifier = Classifier(CONVNEXTS[name](dtype=jnp.bfloat16), FlatHead(1000))
  images = jnp.zeros((1, 224, 224, 3))
  features, variables = jax.eval_shape(
    lambda key: classifier.init_with_output(key, images, method="features"), jax.random.key(0)
  )
  weights = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert weights + (features.pooled.shape[1] + 1) * 1000 == published
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  assert [stage.shape[1:3] for stage in features.stages] == [(m, m) for m in (56, 28, 14, 7)]
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)}
  assert features.pooled.shape[1] == features.stages[-1].shape[-1] and features.pooled.dtype == jnp.float32


def test_the_names_of_weights_and_sizes_that_are_no_multiples():
  shapes = jax.eval_shape(convnext(**TINY).init_with_output, jax.random.key(0), jnp.zeros((1, 71, 34, 3)))
  features, params = shapes[0], shapes[1]["params"]
  assert [stage.shape[1:] for stage in features.stages] == [(17, 8, 4), (8, 4, 6), (4, 2, 8)]
  assert set(params) == {"stem", "stages_0", "stages_1", "stages_2", "top"}
  assert set(params["stem"]) == {"conv", "norm"} and set(params["top"]) == {"norm"}
  assert set(params["stages_0"]) == {"blocks_0"} and set(params["stages_1"]) == {"downsample", "blocks_0", "blocks_1"}
  assert set(params["stages_1"]["blocks_1"]) == {"conv", "norm", "fc1", "fc2", "scale"}
  assert params["stages_1"]["blocks_1"]["conv"]["kernel"].shape == (7, 7, 1, 6)


def test_stochastic_depth_is_of_training_alone(rng):
  images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
  whole, dropping = (convnext((4,), (2,), layer_scale=1.0, drop_path=rate) for rate in (0.0, 0.9))

  @jax.jit
  def run(images):
    params, rngs = whole.init(jax.random.key(0), images), {"dropout": jax.random.key(0)}
    still = whole.apply(params, images).pooled, dropping.apply(params, images).pooled
    return *still, dropping.apply(params, images, True, rngs=rngs).pooled

  expected, evaluated, trained = jax.device_get(run(images))
  np.testing.assert_array_equal(evaluated, expected)
  assert np.abs(trained - expected).max() > 1e-3
  rates = [block.drop_path for stage in convnext((4, 4), (2, 1), drop_path=0.4).stages for block in stage.blocks]
  np.testing.assert_allclose(rates, [0, 0.2, 0.4])


@pytest.mark.parametrize(
  "settings,message",
  [
    ({"widths": ()}, r"widths = \(\)"),
    ({"widths": (4, 8), "blocks": (1,)}, r"as many widths as blocks"),
    ({"blocks": (1, 1, 0)}, r"blocks = \(1, 1, 0\)"),
    ({"drop_path": 1.0}, r"drop_path = 1.0"),
  ],
)
def test_nets_that_do_not_exist_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    convnext(**{**TINY, **settings})


def test_images_that_leave_no_cell_are_refused():
  with pytest.raises(UserError, match="images of 31 x 64 pixels are too small"):
    jax.eval_shape(convnext(**TINY).init, jax.random.key(0), jnp.zeros((1, 31, 64, 3)))
