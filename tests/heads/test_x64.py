"""Under JAX_ENABLE_X64, where what has no dtype of its own is float64, heads and the neck are float32 as ever."""

import functools

import jax
import jax.numpy as jnp
import pytest

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.models.factory import make_method
from hierjax.necks.context import ContextNeck
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions, Features

DHNN = {"width": 8, "size": 16, "layers": 1}
HEADS = {
  "flat": {"name": "flat"},
  "coarse_fine": {"name": "coarse_fine"},
  "path_rnn": {"name": "path_rnn", "width": 8},
  "path_rnn_siblings": {"name": "path_rnn", "width": 8, "softmax": "siblings"},
  "dhnn_rnn": {"name": "dhnn_rnn", **DHNN},
  "dhnn_rnn_gru": {"name": "dhnn_rnn", "cell": "gru", "level_weights": (1.0, 2.0), **DHNN},
  "dhnn_rnn_sigmoid": {"name": "dhnn_rnn", "output": "sigmoid", **DHNN},
  "dhnn_s2s": {"name": "dhnn_s2s", **DHNN},
  "dhnn_s2s_labels": {"name": "dhnn_s2s", "feedback": "labels", **DHNN},
  "multilabel": {"name": "multilabel"},
}


def test_the_context_neck_learns():
  neck = ContextNeck(scales=(1, 2, 4), hidden=(8,), dropout=0.0)
  with jax.enable_x64(True):
    features = Features(stages=(jnp.ones((2, 4, 4, 4), jnp.float32),), pooled=jnp.ones((2, 4), jnp.float32))
    variables = jax.jit(neck.init)(jax.random.key(0), features)
    gradients = jax.jit(jax.grad(lambda v: neck.apply(v, features).pooled.sum()))(variables)
  assert {x.dtype for x in jax.tree.leaves((variables, gradients))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("head", HEADS)
def test_heads_learn_and_decode(head):
  tree = tree_arrays(LabelTree.from_children(list("ABabcde"), [2, 2, 3, *[0] * 5]))
  method = make_method({"name": "small_resnet", "widths": (4, 4, 4, 4), "blocks": 1}, HEADS[head], tree)
  with jax.enable_x64(True):
    images, paths = jnp.zeros((2, 16, 16, 3), jnp.float32), jnp.array([[[0, 3]], [[1, 5]]], jnp.int32)
    variables = jax.jit(method.module.init)(jax.random.key(0), images, paths)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    @jax.jit
    @jax.value_and_grad
    def loss(variables, method):
      return method.loss(method.module.apply(variables, images, paths), paths).sum()

    @functools.partial(jax.jit, static_argnums=2)
    def predict(variables, method, options):
      return method.predict(variables, images, None, options)

    value, gradients = loss(variables, method)
    predicted = predict(variables, method, DecodeOptions(beam=2))
  assert {x.dtype for x in jax.tree.leaves((value, gradients))} == {jnp.dtype("float32")}
  assert predicted.node_prob.dtype == predicted.log_prob.dtype == jnp.float32
  assert jnp.isfinite(value) and jnp.isfinite(predicted.node_prob).all()
