"""Which stages each step reads, and their mean."""

import functools

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.backbones.plain import alexnet, cnn7
from hierjax.nn.backbones.vgg import vgg16
from hierjax.nn.layers.conversions import Conversion
from hierjax.nn.layers.stage_sequence import StageSequence, default_subsets
from hierjax.types import Features


def sequence_of(features, steps, **fields):
  return np.asarray(jax.jit(StageSequence(16, steps=steps, **fields).apply)({}, features))


def pooled(maps):
  """Returns the vector of each map by itself."""
  apply = functools.partial(Conversion("pool", 16).apply, {})
  return jax.device_get(jax.jit(lambda maps: jax.tree.map(apply, maps))(maps))


def test_the_deepest_stage_comes_first_and_the_last_step_takes_the_rest():  # READINGS K1
  assert default_subsets(4, 3) == ((4,), (3,), (1, 2))
  assert default_subsets(4, 1) == ((1, 2, 3, 4),)
  assert default_subsets(3, 3, "shallow_first") == ((1,), (2,), (3,))


def test_a_step_is_the_mean_of_its_stages(rng):  # u_t of section 3.1
  stages = tuple(rng.normal(size=(2, 8 // 2**i, 8 // 2**i, 4)).astype(np.float32) for i in range(3))
  u, alone = sequence_of(Features(stages, stages[-1][:, 0, 0]), 2), pooled(stages)
  np.testing.assert_allclose(u[:, 0], alone[2], rtol=1e-6)
  np.testing.assert_allclose(u[:, 1], (alone[0] + alone[1]) / 2, rtol=1e-6)


def test_normalised_maps_have_mean_0_and_variance_1_before_they_are_averaged(rng):  # READINGS K18
  stages = tuple(rng.normal(30, 10 * i, (2, 4, 4, 4)).astype(np.float32) for i in (1, 2, 3))
  u, alone = sequence_of(Features(stages, stages[-1][:, 0, 0]), 2, norm="layer"), pooled(stages)
  normed = [(a - a.mean(axis=1, keepdims=True)) / a.std(axis=1, keepdims=True) for a in alone]
  np.testing.assert_allclose(u[:, 0], normed[2], atol=1e-5)
  np.testing.assert_allclose(u[:, 1], (normed[0] + normed[1]) / 2, atol=1e-5)


@pytest.mark.parametrize(
  ("subsets", "message"),
  [
    (((4,), (2,)), "each must hold stages of the backbone, 1 to 3"),
    (((3,), ()), "each must hold"),
    (((3,), (1, 1)), "none twice"),
    (((2,), (1, 3)), r"all stages of a subset must come before those of the next, or all after .*\(\(3,\), \(1, 2\)\)"),
    (((1, 2), (2, 3)), "all stages of a subset must come before"),
    (((3,),), "label paths have 2 steps, so give 2 subsets"),
    ((("conv5_1",), ("pool6",)), "1 to 3, or conv1, pool1, conv2, and none twice"),
    ((("pool1",), (1,)), "all stages of a subset must come before"),
    ((("pool1", 1), (2,)), "none twice"),
  ],
)
def test_subsets_that_cannot_be_are_refused(subsets, message):
  with pytest.raises(UserError, match=message):
    StageSequence(16, subsets=subsets, steps=2).resolved(3, (("conv1", "pool1"), ("conv2",)))


def test_a_tree_deeper_than_the_network_is_refused():  # READINGS K17
  with pytest.raises(
    UserError, match=r"label paths have 4 steps and the backbone 3 stages.*config\.tree\.levels.*dhnn_s2s"
  ):
    StageSequence(16, steps=4).resolved(3)
  with pytest.raises(UserError, match="the backbone `features` has none"):
    StageSequence(16, steps=4).resolved(0)


def test_subsets_may_rise_or_fall():
  for subsets in (((1,), (2, 3)), ((3,), (2, 1)), ((2,), (3,))):
    assert StageSequence(16, subsets=subsets, steps=2).resolved(3) == subsets


def features_of(network, size=32):
  """Returns the features of a network with random weights for two images, and the weights."""
  images = jax.random.normal(jax.random.key(0), (2, size, size, 3))
  return jax.jit(network.init_with_output)(jax.random.key(1), images)


def test_a_subset_names_layers_of_a_plain_network(rng):
  """The authors' VGG reads conv5_1, conv5_2, conv5_3 and pool5: against the convolutions done one by one."""
  network = vgg16(width=4)
  features, variables = features_of(network)
  assert features.layer_names[4] == ("conv5_1", "conv5_2", "conv5_3", "pool5")
  x, weights = np.asarray(features.stages[3], np.float64), variables["params"]["stages_4"]
  maps = {}
  for i in (1, 2, 3):
    kernel, bias = (np.asarray(weights[f"conv{i}"][name], np.float64) for name in ("kernel", "bias"))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    taps = [padded[:, r : r + height, c : c + width] @ kernel[r, c] for r, c in np.ndindex(3, 3)]
    x = maps[f"conv5_{i}"] = np.maximum(sum(taps) + bias, 0)
  maps["pool5"] = np.asarray(features.stages[4])
  subsets = (("pool5",), ("conv5_3",), ("conv5_2", "conv5_1"))
  found = sequence_of(features, 3, subsets=subsets)
  alone = pooled(jax.tree.map(np.float32, maps))
  expected = [alone["pool5"], alone["conv5_3"], (alone["conv5_1"] + alone["conv5_2"]) / 2]
  np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)
  by_maps = sequence_of(features, 3, maps=("conv5_1", "conv5_2", "conv5_3", 5))
  np.testing.assert_array_equal(by_maps, found)  # a stage is its last layer, and the default rule chooses the same


@pytest.mark.parametrize(("network", "size"), [(vgg16(width=4), 32), (alexnet((4, 8, 8, 8, 8)), 64), (cnn7(8), 32)])
def test_the_last_layer_of_a_stage_is_the_stage(network, size):
  features, _ = features_of(network, size)
  assert [len(maps) for maps in features.layers] == [len(names) for names in features.layer_names]
  for maps, stage in zip(features.layers, features.stages, strict=True):
    np.testing.assert_array_equal(maps[-1], stage)


def test_filters_are_of_each_map_nearest_the_image_first():
  stages = tuple(np.zeros((1, side, side, 2), np.float32) for side in (8, 4))
  features = Features(stages, stages[-1][:, 0, 0])
  sequence = StageSequence(16, conversion="conv", filters=((2, 2, 0), (1, 1, 0)))
  lines = sequence.describe(features)
  assert [line.partition(": ")[2] for line in lines] == [
    "1 filters of 2x2, stride 2x2, padding 0x0",
    "1 filters of 1x1, stride 1x1, padding 0x0",
  ]
  with pytest.raises(UserError, match="for each of the 2 maps that are read, stage 1, stage 2"):
    StageSequence(16, conversion="conv", filters=((2, 2, 0),) * 3).describe(features)
  with pytest.raises(ValueError, match="they are of conversion = conv"):
    StageSequence(16, filters=((2, 2, 0),)).check()
