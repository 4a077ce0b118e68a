"""What labels that stop above the leaf teach the heads: the summed probability of all that the label could be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.coarse_fine import CoarseFineHead
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.nn.heads.sibling_softmax import SiblingSoftmaxHead
from hierjax.tree.label_tree import STOP, UNKNOWN, LabelTree
from hierjax.types import Features

IMAGE, WIDTH = 4, 5
EVEN = LabelTree.from_children(list("ABabcde"), [2, 2, 3, *[0] * 5])


def path_rnn(tree, softmax):
  arrays = tree_arrays(tree)
  return PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=WIDTH, softmax=softmax), arrays


HEADS = {
  "path_rnn": lambda: path_rnn(EVEN, "nodes")[0],
  "path_rnn_siblings": lambda: path_rnn(EVEN, "siblings")[0],
  "flat": lambda: FlatHead(5),
  "coarse_fine": lambda: CoarseFineHead((2, 5), "bottom"),
  "sibling_softmax": lambda: SiblingSoftmaxHead(7, 0),
}


def with_weights(head, rng, batch=1):
  """Returns features of images, and large random weights."""
  features = Features(stages=(), pooled=jax.device_put(rng.normal(size=(batch, IMAGE)).astype(np.float32)))
  paths = np.zeros((batch, 2), np.int32)
  shapes = jax.eval_shape(head.init, jax.random.key(0), features, paths)
  return features, jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)


def losses_of(head, arrays, features):
  """Returns a function of weights: the loss of one image for each of several labels, `f32[m]`."""

  def losses(variables, paths):
    images = Features(stages=(), pooled=jnp.repeat(features.pooled, len(paths), axis=0))
    return head.loss(head.apply(variables, images, paths), paths, arrays)

  return losses


def masked_and_summed(losses):
  """Returns a jitted function: value and gradient of one label's loss, and of -log of the sum of exp(-loss) of others.

  Its arguments are the weights, the labels, the one first, and which of the others count.
  """

  def both(variables, paths, counts):
    masked = jax.value_and_grad(lambda v: losses(v, paths)[0])(variables)
    summed = jax.value_and_grad(lambda v: -jax.nn.logsumexp(-losses(v, paths)[1:], where=counts))(variables)
    return masked, summed

  return jax.jit(both)


def check_same(one, other):
  """Checks value and gradient of two losses of the same weights."""
  np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=2.4e-7)  # where the loss is 0, two bits of 1
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one[1], other[1])


def test_masking_is_the_summed_probability_of_the_leaves_below_with_a_softmax_over_siblings(toy_tree, rng):
  head, arrays = path_rnn(toy_tree, "siblings")
  features, variables = with_weights(head, rng)
  both = masked_and_summed(losses_of(head, arrays, features))
  leaves = toy_tree.encode(toy_tree.leaves).tolist()
  for short in ([0, UNKNOWN, UNKNOWN], [0, 2, UNKNOWN], [UNKNOWN] * 3):
    below = [all(y in (UNKNOWN, z) for y, z in zip(short, leaf, strict=True)) for leaf in leaves]
    check_same(*both(variables, np.array([short, *leaves], np.int32), np.array(below)))


def test_masking_sums_over_all_outputs_with_a_softmax_over_nodes(toy_tree, rng):
  """Over all that can be written after the label, the tree's own paths and others: the leaves alone are less."""
  head, arrays = path_rnn(toy_tree, "nodes")
  features, variables = with_weights(head, rng)
  both = masked_and_summed(losses_of(head, arrays, features))
  outputs = [*range(toy_tree.num_nodes), STOP]
  paths = np.array([[0, 2, UNKNOWN], *([0, 2, y] for y in outputs)], np.int32)
  masked, summed = both(variables, paths, np.ones(8, bool))
  check_same(masked, summed)
  _, leaves = both(variables, paths, np.array([y in toy_tree.children(2) for y in outputs]))
  assert float(leaves[0]) > float(masked[0]) + 0.1


def test_a_flat_heads_loss_is_the_summed_probability_of_the_leaves_below(rng):
  features, variables = with_weights(head := FlatHead(5), rng)
  layer = variables["params"]["output"]
  logits = (np.asarray(features.pooled) @ layer["kernel"] + layer["bias"])[0]
  prob = np.exp(logits) / np.exp(logits).sum()
  paths = np.array([[0, UNKNOWN], [1, UNKNOWN], [1, 4]], np.int32)
  found = jax.jit(losses_of(head, tree_arrays(EVEN), features))(variables, paths)
  np.testing.assert_allclose(found, -np.log([prob[:2].sum(), prob[2:].sum(), prob[2]]), rtol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_from_labels_that_stop_above_the_leaf(name, rng):
  head, arrays = HEADS[name](), tree_arrays(EVEN)
  features, variables = with_weights(head, rng, batch=6)
  paths = np.array([[0, UNKNOWN], [1, UNKNOWN]] * 3, np.int32)

  def loss(variables, paths):
    return head.loss(head.apply(variables, features, paths), paths, arrays).mean()

  @jax.jit
  def step(variables, paths):
    value, gradient = jax.value_and_grad(loss)(variables, paths)
    return value, gradient, jax.tree.map(lambda w, g: w - 0.1 * g, variables, gradient)

  values, weights = [], variables
  for _ in range(30):
    value, _, weights = step(weights, paths)
    values.append(float(value))
  assert np.isfinite(values).all() and values[-1] < 0.7 * values[0]
  value, gradient, _ = step(variables, np.full_like(paths, UNKNOWN))
  assert float(value) == 0 and not any(np.any(g) for g in jax.tree.leaves(gradient)), "nothing known teaches nothing"


@pytest.mark.parametrize("softmax", ["nodes", "siblings"])
def test_a_step_that_is_not_known_has_no_gradient(softmax, rng):
  """Neither the label that it would be fed nor, of siblings, the outputs that it could choose from."""
  head, arrays = path_rnn(EVEN, softmax)
  features, variables = with_weights(head, rng)
  losses = losses_of(head, arrays, features)
  gradient = jax.jit(jax.grad(lambda v, path: losses(v, path[None])[0]))
  for path, known in (([0, UNKNOWN], False), ([0, 3], True)):
    found = jax.device_get(gradient(variables, np.array(path, np.int32)))["params"]
    assert np.any(found["embed"]["embedding"][1]) == known and np.any(found["output"]["bias"][:2])
    assert softmax == "nodes" or np.any(found["output"]["bias"][2:4]) == known
