import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.heads.path_rnn import PathRNNHead
from hierjax.models.classifier import Classifier
from hierjax.models.factory import make_method
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

  methods = [make_method(BACKBONE, head, tree_arrays(toy_tree)) for _ in range(2)]
  assert methods[0].module == methods[1].module
  methods = [method.replace(module=Classifier(Normalise(), method.module.head)) for method in methods]
  variables = jax.jit(methods[0].module.init)(jax.random.key(0), INPUTS)
  first, second = (predict(method, variables) for method in methods)
  np.testing.assert_array_equal(first.paths, second.paths)
  assert next(traces) == 1
  outputs = methods[0].module.apply(variables, INPUTS, jnp.asarray(toy_tree.encode([5, -1])))
  losses = methods[0].loss(outputs, jnp.asarray(toy_tree.encode([5, -1]))[:, None])
  assert losses.shape == (2,) and losses[0] > 0 and losses[1] == 0


@pytest.mark.parametrize(
  "sections,message",
  [
    (
      dict(backbone={"name": "resnet"}),
      r"config.backbone.name = 'resnet': choose from alexnet, small_resnet, sppnet, wide_resnet",
    ),
    (dict(backbone={}), r"config.backbone.name is missing: choose from alexnet, small_resnet"),
    (dict(head={"name": "path_rnn", "widht": 3}), r"config.head.widht: .*did you mean 'width'"),
    (dict(head={"name": "flat", "num_leaves": 3}), r"config.head.num_leaves: there is no such key"),
    (dict(head={"name": "path_rnn", "width": "wide"}), r"config.head.width = 'wide': must be like 512"),
    (dict(head={"name": "path_rnn", "reduction": "max"}), r"config.head: reduction = 'max': choose from sum, mean"),
    (dict(backbone={"name": "wide_resnet", "depth": 27}), r"config.backbone: depth = 27: .*10, 16, 22, 28"),
    (dict(dtype="float64"), r"config.dtype = 'float64': choose from bfloat16, float32"),
    (dict(neck={"name": "pyramid"}), r"config.neck.name = 'pyramid': choose from"),
  ],
)
def test_what_a_config_gets_wrong_is_said(toy_tree, sections, message):
  sections = {"backbone": BACKBONE, "head": {"name": "flat"}, **sections}
  with pytest.raises(UserError, match=message):
    make_method(tree=tree_arrays(toy_tree), **sections)


def test_bfloat16_reaches_every_part_and_weights_stay_float32(toy_tree):
  method = make_method(BACKBONE, {"name": "path_rnn", "width": 4}, tree_arrays(toy_tree), dtype="bfloat16")
  assert method.module.head.dtype == method.module.backbone.stages[0].blocks[0].dtype == jnp.bfloat16
  shapes = jax.eval_shape(method.module.init, jax.random.key(0), jnp.zeros((2, 6, 6, 3)))
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
