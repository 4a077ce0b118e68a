import dataclasses
import functools

import jax
import numpy as np
import pytest

from hierjax.functional.decoding import decode
from hierjax.functional.losses import path_ends
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.heads.flat_ends import FlatEndsHead
from hierjax.tree.label_tree import ROOT, UNKNOWN
from hierjax.types import DecodeOptions, Features
from path_oracle import log_softmax, nodes_of
from random_trees import random_tree


def setting(rng, tree, short_labels="stop"):
  """Returns a head for a tree with large random weights, the tree's arrays, and features of two images."""
  arrays = tree_arrays(tree, short_labels)
  head = FlatEndsHead.for_tree(arrays)
  features = Features(stages=(), pooled=rng.normal(size=(2, 3)).astype(np.float32))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  return head, arrays, features, jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)


@functools.partial(jax.jit, static_argnums=0)
def run(head, variables, features, known, arrays, options):
  """Returns the prediction, the distribution's node probabilities and the logits."""
  found = head.apply(variables, features, known, arrays, options, method="distribution")
  return decode(found, arrays, options), found.node_prob, head.apply(variables, features)


def likelihoods(logits, tree, allowed):
  """Returns the probability of each allowed end of one image: the oracle, a softmax over these alone."""
  nodes = [*tree.leaves.tolist(), *(n for n in range(tree.num_nodes) if not tree.is_leaf(n))]
  scores = [logits[nodes.index(node)] for node in allowed]
  return dict(zip(allowed, np.exp(log_softmax(np.array(scores, np.float64))), strict=True))


@pytest.mark.parametrize("given", [None, "inner", "end"])
def test_decoding_is_the_softmax_over_the_ends_that_remain(rng, given):
  whole = random_tree(rng, depth=4, most_children=3)
  inner = [i for i in range(whole.num_nodes) if not whole.is_leaf(i)]
  tree = dataclasses.replace(whole, label_ends=tuple(inner[::2]))
  head, arrays, features, variables = setting(rng, tree)
  ends = [*tree.leaves.tolist(), *inner[::2]]
  known = {
    None: None,
    "inner": tree.encode([inner[1], ROOT], "unknown"),
    "end": tree.encode([inner[2], ROOT], "stop"),
  }[given]
  options = DecodeOptions(beam=len(ends))
  found, _, logits = jax.device_get(run(head, variables, features, known, arrays, options))
  for image in range(2):
    allowed = ends
    if image == 0 and given == "inner":
      allowed = [end for end in ends if inner[1] in tree.path(end)]
    if image == 0 and given == "end":
      allowed = [inner[2]]
    prob = likelihoods(logits[image], tree, allowed)
    ranking = sorted(prob, key=lambda end: -prob[end])
    seen = [end for end in ranking if prob[end] > 1e-3]  # what is rounding above a leaf is no end
    assert [nodes_of(path) for path in found.paths[image][: len(seen)]] == [tree.path(end) for end in seen]
    for node in range(tree.num_nodes):
      below = sum(p for end, p in prob.items() if node in tree.path(end))
      above = image == 0 and given is not None and node in tree.path({"inner": inner[1], "end": inner[2]}[given])
      assert found.node_prob[image, node] == pytest.approx(1 if above else below, abs=1e-6)


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_the_loss_is_the_likelihood_of_all_that_the_label_may_be(rng, toy_tree, short_labels):
  head, arrays, _, _ = setting(rng, toy_tree, short_labels)
  nodes = np.arange(-1, toy_tree.num_nodes)
  logits = rng.normal(size=(len(nodes), head.num_leaves + head.num_inner)).astype(np.float32)
  paths = toy_tree.encode(nodes, short_labels)
  found = jax.jit(head.loss)(logits, paths[:, None], arrays)
  ends = path_ends(arrays).tolist()
  for row, node, value in zip(logits, nodes.tolist(), found.tolist(), strict=True):
    prob = likelihoods(row, toy_tree, ends)
    exact = short_labels == "stop"
    target = [e for e in ends if (e == node if exact else node in toy_tree.path(e))]
    assert value == (0 if node == ROOT else pytest.approx(-np.log(sum(prob[e] for e in target)), rel=1e-5))


def test_a_label_above_a_leaf_may_still_be_any_end_below_it(rng, toy_tree):
  """A tree whose labels may end at inner nodes, and an image of which only the upper node is known."""
  head, arrays, _, _ = setting(rng, toy_tree)
  logits = rng.normal(size=(1, head.num_leaves + head.num_inner)).astype(np.float32)
  prob = likelihoods(logits[0], toy_tree, path_ends(arrays).tolist())
  below = sum(p for end, p in prob.items() if 0 in toy_tree.path(end))
  (found,) = jax.device_get(jax.jit(head.loss)(logits, np.array([[0, UNKNOWN, UNKNOWN]], np.int32), arrays))
  assert found == pytest.approx(-np.log(below), rel=1e-5)


def test_where_paths_end_at_leaves_alone_it_is_the_flat_head(rng, toy_tree):
  head, arrays, features, variables = setting(rng, toy_tree, "unknown")
  flat, options = FlatHead.for_tree(arrays), DecodeOptions()
  for given in (None, toy_tree.encode([ROOT, 0])):
    one, other = (run(h, variables, features, given, arrays, options) for h in (head, flat))
    np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
  logits, paths = run(flat, variables, features, None, arrays, options)[2], toy_tree.encode([2, 5])
  np.testing.assert_allclose(*(jax.jit(h.loss)(logits, paths, arrays) for h in (head, flat)), rtol=1e-5)


def test_it_learns_a_label_that_ends_at_an_inner_node(rng, toy_tree):
  """Of which the flat head has path accuracy 0, whatever it learns (Koo et al., Table 2)."""
  head, arrays, features, variables = setting(rng, toy_tree)
  inner = next(i for i in range(toy_tree.num_nodes) if not toy_tree.is_leaf(i))
  paths = toy_tree.encode([inner, int(toy_tree.leaves[0])], "stop")

  @jax.jit
  def step(variables, paths):
    gradient = jax.grad(lambda v: head.loss(head.apply(v, features), paths, arrays).mean())(variables)
    return jax.tree.map(lambda w, g: w - 0.3 * g, variables, gradient)

  for _ in range(200):
    variables = step(variables, paths)
  answers, _, _ = jax.device_get(run(head, variables, features, None, arrays, DecodeOptions()))
  assert [nodes_of(path) for path in answers.paths[:, 0]] == [toy_tree.path(inner), toy_tree.path(toy_tree.leaves[0])]
