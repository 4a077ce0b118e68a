from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.errors import UserError
from hierjax.nn.backbones.densenet import DenseLayer, Stage, Transition, densenet
from hierjax.nn.backbones.preact import NormAct
from hierjax.nn.classifier import Classifier
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.registry import part_fields


def shapes_of(module, size=32):
  return jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def by_hand(depth, growth, classes):
  """Weights of a DenseNet-BC: convolutions without biases, two numbers a normed channel, the classifier with biases."""
  width = 2 * growth
  total = 9 * 3 * width
  for stage in range(3):
    if stage:
      total += 2 * width + width * (width // 2)
      width //= 2
    for _ in range((depth - 4) // 6):
      total += 2 * width + width * 4 * growth  # 1x1
      total += 2 * 4 * growth + 9 * 4 * growth * growth  # 3x3
      width += growth
  return total + 2 * width + (width + 1) * classes


def test_densenet_100_bc_has_the_published_size():
  """Huang et al., Table 2: 0.8M weights for k = 12, 15.3M for L = 250 and k = 24, 25.6M for L = 190 and k = 40."""
  assert by_hand(100, 12, 10) == 769_162
  assert [round(by_hand(*net, 10) / 1e6, 1) for net in ((250, 24), (190, 40))] == [15.3, 25.6]
  assert by_hand(100, 12, 100) == 800_032
  defaults = {name: field.default for name, field in part_fields("backbone", "densenet").items()}
  assert (defaults["depth"], defaults["growth"], defaults["compression"]) == (100, 12, 0.5)
  params = shapes_of(Classifier(densenet(22), FlatHead(100)))[1]["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == by_hand(22, 12, 100)
  convolutions = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
  assert len(convolutions) + 1 == 22  # with the classifier


@pytest.mark.parametrize("size,maps", [(32, (32, 16, 8)), (224, (224, 112, 56)), (9, (9, 4, 2))])
def test_a_transition_opens_the_next_stage(size, maps):
  features, variables = shapes_of(densenet(16, growth=4, compression=0.3), size)
  widths = (16, 4 + 8, 3 + 8)  # a stage adds 8 channels; the transitions keep floor(4.8) and floor(3.6)
  assert [stage.shape[1:] for stage in features.stages] == [(m, m, w) for m, w in zip(maps, widths, strict=True)]
  assert features.pooled.shape == (1, 11)
  layers = {"layers_0", "layers_1"}
  params = variables["params"]
  assert [set(params[f"stages_{i}"]) for i in range(3)] == [
    layers,
    {"transition", *layers},
    {"transition", *layers, "norm"},
  ]


def drawn(module, x, rng):
  """Random weights and batch statistics."""
  draw = {"params": rng.normal, "batch_stats": lambda size: rng.uniform(0.5, 2, size)}
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  return {k: jax.tree.map(lambda s, k=k: jnp.asarray(draw[k](size=s.shape), jnp.float32), shapes[k]) for k in draw}


def normed(x, name, part):
  learnt, running = (jax.device_get(part[kind])[name]["norm"] for kind in ("params", "batch_stats"))
  return np.maximum((x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * learnt["scale"] + learnt["bias"], 0)


def convolved(x, kernel):
  """A convolution with stride 1 and zeros around the map, tap by tap."""
  (rows, columns), k = x.shape[1:3], len(kernel)
  padded = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
  taps = np.ndindex(k, k)
  return sum(padded[:, r : r + rows, c : c + columns] @ np.asarray(kernel)[r, c] for r, c in taps)


def test_a_stage_is_the_equations_of_the_paper(rng):
  """x_l = H_l([x_0, ..., x_(l-1)]) after a transition, and the final norm."""
  stage = Stage(Transition(4), (DenseLayer(3), DenseLayer(3)), NormAct())
  x = rng.normal(size=(2, 7, 4, 5))  # the last of the odd rows is left out
  variables = drawn(stage, jnp.asarray(x, jnp.float32), rng)
  part = {name: {kind: variables[kind][name] for kind in variables} for name in variables["params"]}

  opening = part["transition"]
  y = convolved(normed(x, "act", opening), opening["params"]["conv"]["kernel"])
  maps = [(y[:, 0:6:2, 0::2] + y[:, 1:6:2, 0::2] + y[:, 0:6:2, 1::2] + y[:, 1:6:2, 1::2]) / 4]
  for name in ("layers_0", "layers_1"):
    layer = part[name]
    y = convolved(normed(np.concatenate(maps, -1), "act1", layer), layer["params"]["conv1"]["kernel"])
    maps.append(convolved(normed(y, "act2", layer), layer["params"]["conv2"]["kernel"]))
  expected = normed(np.concatenate(maps, -1), "norm", {kind: {"norm": of} for kind, of in part["norm"].items()})
  y = jax.jit(stage.apply)(variables, jnp.asarray(x, jnp.float32))
  assert y.shape == (2, 3, 2, 4 + 3 + 3)
  np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


def test_dropout_is_of_what_a_layer_adds(rng):
  layer, x = DenseLayer(8, dropout=0.5), jnp.asarray(rng.normal(size=(2, 6, 6, 5)), jnp.float32)
  variables = drawn(layer, x, rng)
  run = jax.jit(partial(layer.apply, train=True, mutable=["batch_stats"]))
  trained, _ = run(variables, x, rngs={"dropout": jax.random.key(0, impl="rbg")})
  np.testing.assert_array_equal(trained[..., :5], x)
  assert 0.4 < (trained[..., 5:] == 0).mean() < 0.6


def test_bfloat16_keeps_weights_and_norms_float32():
  backbone, images = densenet(10, growth=4, dropout=0.2, dtype=jnp.bfloat16), jnp.zeros((2, 8, 8, 3))

  def run(key):
    variables = backbone.init(key, images)
    is_norm = lambda module, _: isinstance(module, nn.BatchNorm)  # noqa: E731
    return variables, *backbone.apply(
      variables, images, train=True, rngs={"dropout": key}, mutable=True, capture_intermediates=is_norm
    )

  variables, features, updated = jax.eval_shape(run, jax.random.key(0))
  float32 = {np.dtype("float32")}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == float32
  assert {leaf.dtype for leaf in jax.tree.leaves(updated["batch_stats"])} == float32
  normed_maps = jax.tree.leaves(updated["intermediates"])
  assert len(normed_maps) == 3 * 2 + 2 + 1 and {leaf.dtype for leaf in normed_maps} == float32
  assert {stage.dtype for stage in features.stages} == {np.dtype(jnp.bfloat16)} and features.pooled.dtype == jnp.float32


@pytest.mark.parametrize(
  "settings,message",
  [
    ({"depth": 40, "growth": 0}, r"growth = 0, .*: growth is 1 or more"),
    ({"depth": 99}, r"depth = 99: a DenseNet-BC has depth 6 n \+ 4"),
    ({"depth": 4}, r"depth = 4: "),
    ({"compression": 0.0}, r"compression = 0.0, .* 0 < compression <= 1"),
    ({"compression": 1.5}, r"compression = 1.5"),
    ({"dropout": 1.0}, r"dropout = 1.0: .* 0 <= dropout < 1"),
  ],
)
def test_densenets_that_do_not_exist_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    densenet(**settings)


def test_a_densenet_takes_images_that_leave_a_cell():
  backbone = densenet(10, growth=2)
  assert shapes_of(backbone, 4)[0].pooled.shape == (1, 4)  # 4 + 2 channels, 3 + 2 and 2 + 2
  with pytest.raises(UserError, match=r"3 x 3 .* 4 x 4 or more"):
    shapes_of(backbone, 3)
