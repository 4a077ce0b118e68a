"""Under JAX_ENABLE_X64, where what has no dtype of its own is float64, heads and the neck are float32 as ever."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.classifier import Classifier
from hierjax.nn.necks.context import ContextNeck
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions, Features

DHNN = {"width": 8, "size": 16, "layers": 1}
HEADS = {
  "flat": {"name": "flat"},
  "flat_ends": {"name": "flat_ends"},
  "coarse_fine": {"name": "coarse_fine"},
  "path_rnn": {"name": "path_rnn", "width": 8},
  "path_rnn_siblings": {"name": "path_rnn", "width": 8, "softmax": "siblings"},
  "dhnn_rnn": {"name": "dhnn_rnn", **DHNN},
  "dhnn_rnn_gru": {"name": "dhnn_rnn", "cell": "gru", "level_weights": (1.0, 2.0), **DHNN},
  "dhnn_rnn_sigmoid": {"name": "dhnn_rnn", "output": "sigmoid", **DHNN},
  "dhnn_s2s": {"name": "dhnn_s2s", **DHNN},
  "dhnn_s2s_labels": {"name": "dhnn_s2s", "feedback": "labels", **DHNN},
  "flat_hxe": {"name": "flat", "criterion": "hxe"},
  "flat_soft_labels": {"name": "flat", "criterion": "soft_labels"},
  "flat_label_smoothing": {"name": "flat", "criterion": "label_smoothing"},
  "flat_soft_max_margin": {"name": "flat", "criterion": "soft_max_margin"},
  "multilabel": {"name": "multilabel"},
  "sibling_softmax": {"name": "sibling_softmax"},
}


# What fails there, fails in tracing, so nothing is compiled.


def dtypes(tree):
  return {x.dtype for x in jax.tree.leaves(tree)}


def test_the_context_neck_learns():
  neck = ContextNeck(scales=(1, 2, 4), hidden=(8,), dropout=0.0)
  with jax.enable_x64(True):
    features = Features(stages=(jnp.ones((2, 4, 4, 4), jnp.float32),), pooled=jnp.ones((2, 4), jnp.float32))
    variables = jax.eval_shape(neck.init, jax.random.key(0), features)
    gradients = jax.eval_shape(jax.grad(lambda v: neck.apply(v, features).pooled.sum()), variables)
  assert dtypes((variables, gradients)) == {jnp.dtype("float32")}


class Plain(nn.Module):
  """Four stages without weights, of which heads read maps and a vector."""

  def __call__(self, inputs, train=False):
    x = jnp.concatenate([inputs, inputs[..., :1]], axis=-1)
    return Features(tuple(x[:, ::n, ::n] for n in (1, 2, 4, 8)), x.mean(axis=(1, 2)))


@pytest.mark.parametrize("head", HEADS)
def test_heads_learn_and_decode(head):
  tree = tree_arrays(LabelTree.from_children(list("ABabcde"), [2, 2, 3, *[0] * 5]))
  backbone = {"name": "small_resnet", "widths": (4, 4, 4, 4), "blocks": 1}
  method = make_method(ModelConfig(backbone, HEADS[head]), tree)
  if head != "flat":  # with which the backbone learns, too
    method = method.replace(module=Classifier(Plain(), method.module.head))
  with jax.enable_x64(True):
    images, paths = jnp.zeros((2, 16, 16, 3), jnp.float32), jnp.array([[[0, 3]], [[1, 5]]], jnp.int32)
    variables = jax.eval_shape(method.module.init, jax.random.key(0), images, paths)

    @jax.value_and_grad
    def loss(variables):
      return method.loss(method.module.apply(variables, images, paths), paths).sum()

    learnt = jax.eval_shape(loss, variables)
    predicted = jax.eval_shape(lambda v: method.predict(v, images, None, DecodeOptions(beam=2)), variables)
  assert dtypes((variables, learnt)) == {jnp.dtype("float32")}
  assert predicted.node_prob.dtype == predicted.log_prob.dtype == jnp.float32
