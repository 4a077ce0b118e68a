import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from initial_weights import initial_weights

from hierjax.errors import UserError
from hierjax.functional.decoding import decode
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.backbones.convnext import CONVNEXTS
from hierjax.nn.backbones.vit import VITS
from hierjax.nn.classifier import Classifier
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.nn.registry import BACKBONES, HEADS, PRETRAINED, ModelConfig, make_method
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions, Features, Inputs

BACKBONE = {"name": "small_resnet", "widths": [4], "dropout": 0.5}


INPUTS = jax.random.normal(jax.random.key(1), (2, 8))


class Normalise(nn.Module):
  """A backbone of vectors that tells training from evaluation."""

  @nn.compact
  def __call__(self, inputs: Inputs, train: bool = False) -> Features:
    x = nn.BatchNorm(use_running_average=not train)(inputs)
    return Features(stages=(), pooled=nn.Dropout(0.5)(x, deterministic=not train))


def test_frozen_parts_run_as_in_evaluation(toy_tree):
  tree = tree_arrays(toy_tree)
  module = Classifier(Normalise(), PathRNNHead(tree.num_nodes, tree.num_outputs, width=4, dropout=0.5))
  paths = jnp.asarray(toy_tree.encode([5, 3]))
  variables = jax.jit(module.init)(jax.random.key(0), INPUTS)
  apply = jax.jit(partial(module.apply, mutable=["batch_stats"]), static_argnames=("train", "frozen"))

  def run(train, frozen):
    rngs = {"dropout": jax.random.key(2)}
    outputs, updated = apply(variables, INPUTS, paths, train=train, frozen=frozen, rngs=rngs)
    kept = jax.tree.map(lambda a, b: bool((a == b).all()), updated["batch_stats"], variables["batch_stats"])
    return np.asarray(outputs), all(jax.tree.leaves(kept))

  still, kept = run(False, ())
  assert kept
  both, kept = run(True, ("backbone", "head"))
  np.testing.assert_array_equal(both, still)
  assert kept
  head, kept = run(True, ("backbone",))
  assert kept and (head != still).any()
  moving, kept = run(True, ())
  assert not kept and (moving != still).any()


@pytest.mark.parametrize("head", [{"name": "flat"}, {"name": "path_rnn", "width": 4}])
def test_a_method_is_an_argument_of_jit(toy_tree, head):
  traces = itertools.count()

  @jax.jit
  def predict(method, variables):
    next(traces)
    return method.predict(variables, INPUTS, options=DecodeOptions(beam=2))

  methods = [make_method(ModelConfig(BACKBONE, head), tree_arrays(toy_tree)) for _ in range(2)]
  assert methods[0].module == methods[1].module
  methods = [method.replace(module=Classifier(Normalise(), method.module.head)) for method in methods]
  variables = jax.jit(methods[0].module.init)(jax.random.key(0), INPUTS)
  first, second = (predict(method, variables) for method in methods)
  np.testing.assert_array_equal(first.paths, second.paths)
  assert next(traces) == 1

  @jax.jit
  def loss(method, variables, paths):
    return method.loss(method.module.apply(variables, INPUTS, paths), paths[:, None])

  losses = loss(methods[0], variables, toy_tree.encode([5, -1]))
  assert losses.shape == (2,) and losses[0] > 0 and losses[1] == 0


@pytest.mark.parametrize(
  "sections,message",
  [
    (
      dict(backbone={"name": "resnet"}),
      r"config.backbone.name = 'resnet': choose from alexnet, .*, cnn7, convnext_base, .*, wide_resnet, wider_resnet",
    ),
    (dict(backbone={}), r"config.backbone.name is missing: choose from alexnet, cbam_resnet50, cnn7, convnext_base"),
    (dict(head={"name": "path_rnn", "widht": 3}), r"config.head.widht: .*did you mean 'width'"),
    (dict(head={"name": "flat", "num_leaves": 3}), r"config.head.num_leaves: there is no such key"),
    (dict(head={"name": "path_rnn", "width": "wide"}), r"config.head.width = 'wide': must be a whole number"),
    (dict(head={"name": "path_rnn", "reduction": "max"}), r"config.head.reduction = 'max': choose from sum, mean"),
    (dict(backbone={"name": "wide_resnet", "depth": 27}), r"config.backbone: depth = 27: .*10, 16, 22, 28"),
    (dict(head={"name": "coarse_fine", "strategy": "both"}), r"config.head.strategy = 'both': choose from parallel"),
    (dict(dtype="float64"), r"config.dtype = 'float64': choose from bfloat16, float32"),
    (dict(neck={"name": "pyramid"}), r"config.neck.name = 'pyramid': choose from"),
  ],
)
def test_what_a_config_gets_wrong_is_said(toy_tree, sections, message):
  sections = {"backbone": BACKBONE, "head": {"name": "flat"}, **sections}
  with pytest.raises(UserError, match=message):
    make_method(ModelConfig(**sections), tree_arrays(toy_tree))


def test_bfloat16_reaches_every_part_and_weights_stay_float32(toy_tree):
  method = make_method(ModelConfig(BACKBONE, {"name": "path_rnn", "width": 4}, dtype="bfloat16"), tree_arrays(toy_tree))
  assert method.module.head.dtype == method.module.backbone.stages[0].blocks[0].dtype == jnp.bfloat16
  shapes = jax.eval_shape(method.module.init, jax.random.key(0), jnp.zeros((2, 6, 6, 3)))
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


def test_labels_that_stop_early_are_refused_by_a_head_that_cannot_stop(toy_tree):
  top = toy_tree.truncated(2)
  make_method(ModelConfig(BACKBONE, {"name": "coarse_fine"}), tree_arrays(top))
  with pytest.raises(UserError, match=r"config.head: .* tree.short_labels = unknown"):
    make_method(ModelConfig(BACKBONE, {"name": "coarse_fine"}), tree_arrays(top, "stop"))


SMALL = {
  "alexnet": {"widths": [4] * 5},
  "cnn7": {"width": 4},
  "densenet": {"depth": 10, "growth": 2},
  "efficientnet_lite0": {},
  "features": {"width": 6},
  "preact_resnet": {"depth": 11},
  "small_resnet": {"widths": [4, 4], "blocks": 1},
  **{name: {"width": 4} for name in ("cbam_resnet50", "resnet50", "resnet152", "se_resnet50", "vgg16")},
  "se_resnext50": {"width": 4, "groups": 2},
  "sppnet": {"widths": [4] * 5},
  "wide_resnet": {"depth": 10, "width": 1},
  "wider_resnet": {"widths": [4, 4], "blocks": 1},
  "convnext_tiny": {"widths": [4, 4], "blocks": [1, 1]},
  **{name: {"width": 4, "depth": 2, "heads": 2, "patch": 8, "hidden": 4, "stages": 2} for name in VITS},
}
# Other variants of a function have nothing of their own but defaults.
VARIANTS = (
  {f"efficientnet_lite{i}" for i in range(1, 5)}
  | (set(CONVNEXTS) - {"convnext_tiny"})
  | (set(VITS) - {"vit_small_patch14_dinov2", "vit_base_patch16_siglip"})
)


SHAPES = {}  # of losses and predictions, by head and features: many backbones have features of the same shapes


def shapes_of(head, features, tree):
  """Returns the shapes of a head's losses and predictions, from one trace of its initialisation, loss and decoding."""
  paths = jnp.zeros((2, 1, 2), jnp.int32)

  def run(key, features):
    outputs, variables = head.init_with_output(key, features, paths)
    options = DecodeOptions(beam=3)
    found = decode(head.apply(variables, features, None, tree, options, method="distribution"), tree, options)
    return (
      head.loss(outputs, paths, tree),
      found.paths,
      found.log_prob,
      found.stop_prob,
      found.node_prob,
      found.raw_nodes,
    )

  seen = head, repr(features)
  if seen not in SHAPES:
    SHAPES[seen] = [x.shape for x in jax.eval_shape(run, jax.random.key(0), features)]
  return SHAPES[seen]


@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - VARIANTS - {PRETRAINED}))
def test_any_backbone_takes_any_head(toy_tree, backbone):
  """Initialises, computes losses and predicts, as shapes."""
  tree = tree_arrays(toy_tree.truncated(2))
  inputs = jnp.zeros((2, 6) if backbone == "features" else (2, 32, 32, 3))
  module = make_method(ModelConfig({"name": backbone, **SMALL[backbone]}, {"name": "flat"}), tree).module
  features = jax.eval_shape(lambda key: module.init_with_output(key, inputs, method="features")[0], jax.random.key(0))
  for name in sorted(HEADS):
    head = make_method(ModelConfig({"name": backbone, **SMALL[backbone]}, {"name": name}), tree).module.head
    deep = name.startswith("dhnn")  # the others read the vector alone
    if deep and backbone == "features":
      with pytest.raises(UserError, match=r"stages, .*`features`"):
        shapes_of(head, features, tree)
      continue
    found = shapes_of(head, features if deep else Features((), features.pooled), tree)
    assert found == [(2,), (2, 3, 2), (2, 3), (2, 3), (2, tree.num_nodes), (2, 2)], name


SMALL_HEADS = {**{name: {"width": 4, "size": 16} for name in ("dhnn_rnn", "dhnn_s2s")}, "path_rnn": {"width": 4}}


@pytest.mark.parametrize("head", sorted(HEADS))
def test_any_head_teaches_the_neck(toy_tree, head):
  tree = tree_arrays(toy_tree.truncated(2))
  neck = {"name": "context", "cell": "srn", "scales": [1, 2], "hidden": [16], "dropout": 0.0}
  backbone = {"name": "small_resnet", "widths": [4], "blocks": 1}
  method = make_method(ModelConfig(backbone, {"name": head, **SMALL_HEADS.get(head, {})}, neck=neck), tree)
  paths = jnp.zeros((2, 1, 2), jnp.int32)

  images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  variables = initial_weights(jax.eval_shape(method.module.init, jax.random.key(0), images, paths))

  @jax.jit
  def gradient(variables, images):
    def loss(neck):
      params = {**variables["params"], "neck": neck}
      return method.loss(method.module.apply({**variables, "params": params}, images, paths), paths).sum()

    return jax.grad(loss)(variables["params"]["neck"])

  moved = jax.tree.map(lambda g: float(np.abs(g).max()), jax.device_get(gradient(variables, images)))
  assert moved["context"]["scale_1"]["input_kernel"] > 0 and moved["hidden_0"]["kernel"] > 0, moved


@pytest.mark.parametrize("head", sorted(HEADS.keys() - {"multilabel"}))
def test_on_one_level_any_head_is_a_softmax(head):
  """The coarse-specific network of Guo et al., whatever its head."""
  tree = tree_arrays(LabelTree.from_children(list("abcd"), [3, 1, 0, 0, 0]).truncated(1))
  deep = head.startswith("dhnn")  # which reads feature maps
  backbone = {"name": "small_resnet", "widths": [4], "blocks": 1} if deep else {"name": "features", "width": 8}
  method = make_method(ModelConfig(backbone, {"name": head, **SMALL_HEADS.get(head, {})}), tree)
  inputs = INPUTS.reshape(2, 2, 2, 2) if deep else INPUTS
  paths = jnp.array([[2], [1]], jnp.int32)

  variables = initial_weights(jax.eval_shape(method.module.init, jax.random.key(0), inputs, paths))

  @jax.jit
  def run(method, variables):
    outputs = method.module.apply(variables, inputs, paths)
    return method.loss(outputs, paths), method.predict(variables, inputs, options=DecodeOptions(beam=3))

  losses, found = jax.device_get(run(method, variables))
  np.testing.assert_allclose(losses, -np.log(found.node_prob[[0, 1], [2, 1]]), rtol=1e-5)
  np.testing.assert_allclose(found.node_prob.sum(1), 1, rtol=1e-5)
  np.testing.assert_array_equal(found.paths[..., 0], np.argsort(-found.node_prob))
  np.testing.assert_allclose(np.exp(found.log_prob), -np.sort(-found.node_prob), rtol=1e-5)
  np.testing.assert_array_equal(found.raw_nodes, found.paths[:, 0])
