"""Parts that the backward pass computes anew: the same losses and weights, and less is kept."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_weights import initial_weights
from layouts import CASES, CONTEXT, batch_of, toy_tree

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs.run import RunConfig

NETWORK = {"name": "small_resnet", "widths": (4, 8), "blocks": 1}
ALL = ("backbone", "neck", "head")


def gradient(case, remat, backbone=NETWORK):
  """Returns the variables, the function of the weights that is differentiated, and its value and gradient."""
  method = make_method(ModelConfig(backbone, remat=remat, **case), tree_arrays(toy_tree()))
  batch = batch_of(toy_tree())
  images, paths = jnp.asarray(batch.images), jnp.asarray(batch.paths)
  variables = initial_weights(jax.eval_shape(method.module.init, jax.random.key(0), images, paths))
  others = {name: value for name, value in variables.items() if name != "params"}

  def loss(params):
    outputs, updated = method.module.apply(
      {"params": params, **others}, images, paths, train=True, rngs={"dropout": jax.random.key(2)}, mutable=list(others)
    )
    return method.loss(outputs, paths).sum(), updated

  return variables, loss, jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


def kept(loss, params):
  """Returns the bytes that the forward pass keeps for the backward pass."""
  pullback = jax.eval_shape(lambda p: jax.vjp(loss, p, has_aux=True)[1], params)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))


@pytest.mark.parametrize("name", ["context neck", "path_rnn", "dhnn_s2s", "merged"])
def test_what_is_computed_anew_changes_nothing_but_memory(name):
  """Loss, statistics with dropout's draws, and the gradient."""
  case = CASES[name]
  if name == "context neck":
    case = {**case, "neck": CONTEXT | {"dropout": 0.5}}
  variables, loss, ((value, updated), grads) = gradient(case, ())
  again, loss_anew, ((value_anew, updated_anew), grads_anew) = gradient(case, ALL)
  chex.assert_trees_all_equal(variables, again)  # the names and shapes, from which numpy drew the weights
  np.testing.assert_allclose(value, value_anew, rtol=1e-6)
  chex.assert_trees_all_close(updated, updated_anew, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(grads, grads_anew, rtol=1e-4, atol=1e-5)
  assert kept(loss_anew, variables["params"]) < 0.7 * kept(loss, variables["params"])


@pytest.mark.parametrize("name", ["context neck", "path_rnn", "dhnn_s2s", "merged"])
def test_the_weights_at_the_start_are_the_same(name):
  """Each part draws by the names of its parameters."""
  case, tree = CASES[name], tree_arrays(toy_tree())
  if name == "context neck":
    case = {**case, "neck": CONTEXT | {"cell": "srn", "hidden": (4,)}}
  methods = [make_method(ModelConfig(NETWORK, remat=remat, **case), tree) for remat in ((), ALL)]
  images, paths = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 1, toy_tree().depth), jnp.int32)
  both = jax.jit(lambda key: [method.module.init(key, images, paths) for method in methods])(jax.random.key(0))
  chex.assert_trees_all_equal(*both)


@pytest.mark.parametrize(
  ("backbone", "size"),
  [({"name": "vgg16", "width": 4}, 32), ({"name": "vit_tiny_patch16", "depth": 4, "size": 32}, 32)],
  ids=str,
)
def test_named_layers_and_tokens_pass_between_stages(backbone, size):
  """By shapes alone."""
  sizes = []
  for remat in ((), ALL):
    method = make_method(ModelConfig(backbone, {"name": "flat"}, remat=remat), tree_arrays(toy_tree()))
    images = jnp.zeros((8, size, size, 3))
    params = jax.eval_shape(method.module.init, jax.random.key(0), images)["params"]

    def outputs(params, method=method, images=images):
      return method.module.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(2)}), None

    sizes.append((jax.tree.map(lambda x: x.shape, params), kept(outputs, params)))
  (whole, most), (anew, least) = sizes
  assert whole == anew and least < 0.8 * most


def test_another_name_gets_a_sentence(small_config):
  with pytest.raises(UserError, match=r"config\.remat = \('stages',\): name backbone, neck or head, as a tuple"):
    RunConfig(**small_config() | {"remat": ("stages",)})
