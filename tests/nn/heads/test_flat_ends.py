import dataclasses

import jax
import jax.numpy as jnp
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
  features = Features(stages=(), pooled=jnp.asarray(rng.normal(size=(2, 3)), jnp.float32))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  return head, arrays, features, jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)


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
    "inner": jnp.asarray(tree.encode([inner[1], ROOT], "unknown")),
    "end": jnp.asarray(tree.encode([inner[2], ROOT], "stop")),
  }[given]
  options = DecodeOptions(beam=len(ends))
  found = jax.device_get(
    decode(head.apply(variables, features, known, arrays, options, method="distribution"), arrays, options)
  )
  logits = np.asarray(head.apply(variables, features))
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
  paths = jnp.asarray(toy_tree.encode(nodes, short_labels))
  found = jax.jit(head.loss)(jnp.asarray(logits), paths[:, None], arrays)
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
  (found,) = head.loss(jnp.asarray(logits), jnp.asarray([[0, UNKNOWN, UNKNOWN]]), arrays)
  assert found == pytest.approx(-np.log(below), rel=1e-5)


def test_where_paths_end_at_leaves_alone_it_is_the_flat_head(rng, toy_tree):
  head, arrays, features, variables = setting(rng, toy_tree, "unknown")
  flat, options = FlatHead.for_tree(arrays), DecodeOptions()
  known = jnp.asarray(toy_tree.encode([ROOT, 0]))
  paths = jnp.asarray(toy_tree.encode([2, 5]))
  for given in (None, known):
    one, other = (h.apply(variables, features, given, arrays, options, method="distribution") for h in (head, flat))
    np.testing.assert_allclose(one.node_prob, other.node_prob, rtol=1e-6)
  logits = flat.apply(variables, features)
  np.testing.assert_allclose(head.loss(logits, paths, arrays), flat.loss(logits, paths, arrays), rtol=1e-5)


def test_it_learns_a_label_that_ends_at_an_inner_node(rng, toy_tree):
  """Of which the flat head has path accuracy 0, whatever it learns (Koo et al., Table 2)."""
  head, arrays, features, variables = setting(rng, toy_tree)
  inner = next(i for i in range(toy_tree.num_nodes) if not toy_tree.is_leaf(i))
  paths = jnp.asarray(toy_tree.encode([inner, int(toy_tree.leaves[0])], "stop"))
  gradient = jax.jit(jax.grad(lambda v: head.loss(head.apply(v, features), paths, arrays).mean()))
  for _ in range(200):
    variables = jax.tree.map(lambda w, g: w - 0.3 * g, variables, gradient(variables))
  options = DecodeOptions()
  answers = decode(head.apply(variables, features, None, arrays, options, method="distribution"), arrays, options)
  assert [nodes_of(path) for path in answers.paths[:, 0]] == [toy_tree.path(inner), toy_tree.path(toy_tree.leaves[0])]
