import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.losses import (
  LEAF_LOSSES,
  conditional_cross_entropy,
  path_cross_entropy,
  sibling_cross_entropy,
  subtree_cross_entropy,
)
from hierjax.functional.paths import before
from hierjax.functional.search import continuations, output_numbers
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, ROOT, STOP, UNKNOWN
from path_oracle import log_softmax
from random_trees import random_tree


def test_a_label_is_the_sum_over_the_leaves_below_it(rng):
  tree = random_tree(rng, depth=4, most_children=3)
  nodes = np.arange(-1, tree.num_nodes, dtype=np.int32)
  logits = (5 * rng.normal(size=(len(nodes), len(tree.leaves)))).astype(np.float32)
  log_probs = log_softmax(logits.astype(np.float64))
  expected = []
  for row, node in zip(log_probs, nodes, strict=True):
    below = [node == ROOT or node in tree.path(leaf) for leaf in tree.leaves.tolist()]
    expected.append(-np.log(np.exp(row[below]).sum()))
  loss = jax.jit(lambda x: subtree_cross_entropy(x, jnp.asarray(nodes), tree_arrays(tree)))
  found, gradient = jax.device_get((loss(logits), jax.jit(jax.grad(lambda x: loss(x).sum()))(logits)))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  assert found[0] == 0.0 and (gradient[0] == 0.0).all() and (np.abs(gradient[1:]).sum(1) > 0).all()


def test_improbable_labels_stay_finite(toy_tree):
  logits = jnp.array([[1000.0, 0.0, -1000.0, -1000.0]])
  found = jax.jit(subtree_cross_entropy)(logits, jnp.array([2]), tree_arrays(toy_tree))
  np.testing.assert_allclose(found, [2000.0 - np.log(2)], rtol=1e-6)


def test_path_cross_entropy_is_equation_8(rng, toy_tree):
  """Every label of the tree, some of them STOP, some of them short."""
  paths = np.concatenate([toy_tree.encode(np.arange(-1, 7)), toy_tree.encode([PAD])])
  arrays = tree_arrays(toy_tree)
  logits = rng.normal(size=(*paths.shape, arrays.num_outputs)).astype(np.float32)
  expected, counts = [], []
  for steps, path in zip(log_softmax(logits), paths, strict=True):
    targets = [(t, 7 if y == STOP else y) for t, y in enumerate(path) if y >= 0 or y == STOP]
    expected.append(-sum(steps[t, y] for t, y in targets))
    counts.append(max(len(targets), 1))
  loss = jax.jit(path_cross_entropy, static_argnums=3)
  args = jnp.asarray(logits), jnp.asarray(paths), arrays
  np.testing.assert_allclose(loss(*args, "sum"), expected, rtol=1e-5)
  np.testing.assert_allclose(loss(*args, "mean"), np.array(expected) / counts, rtol=1e-5)
  assert 3 in paths[:, 1] and STOP in paths[4] and expected[0] == expected[-1] == 0


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_a_softmax_over_siblings_is_the_share_of_what_can_follow(rng, toy_tree, short_labels):
  """Every label of the tree; what is no child of the node before it, as the last label's, is no target."""
  paths = np.concatenate([toy_tree.encode(np.arange(-1, 7), short_labels), [[0, 4, UNKNOWN]]]).astype(np.int32)
  arrays = tree_arrays(toy_tree, short_labels)
  logits = rng.normal(size=(*paths.shape, arrays.num_outputs)).astype(np.float32)
  expected, counts = [], []
  for steps, path in zip(logits, paths.tolist(), strict=True):
    total, count, node = 0.0, 0, ROOT
    for step, token in zip(steps, path, strict=True):
      may_stop = node != ROOT and (toy_tree.is_leaf(node) or short_labels == "stop")
      following = [*toy_tree.children(node), *[STOP] * may_stop]
      if token in following:
        total -= log_softmax(step[[7 if y == STOP else y for y in following]])[following.index(token)]
        count += 1
      node = max(token, ROOT)
    expected.append(total)
    counts.append(max(count, 1))
  before = np.concatenate([np.full((len(paths), 1), ROOT, np.int32), np.maximum(paths[:, :-1], ROOT)], axis=1)

  def losses(logits, reduction):
    tokens, allowed = continuations(jnp.asarray(before), arrays)
    window = jnp.take_along_axis(logits, output_numbers(tokens, arrays), axis=-1)
    return sibling_cross_entropy(window, tokens, allowed, jnp.asarray(paths), reduction)

  @jax.jit
  def run(logits):
    found, pullback = jax.vjp(lambda x: losses(x, "sum"), logits)
    return found, losses(logits, "mean"), *pullback(jnp.ones_like(found))

  total, mean, gradient = run(jnp.asarray(logits))
  np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(mean, np.array(expected) / counts, rtol=1e-5, atol=1e-6)
  assert jnp.isfinite(gradient).all() and (gradient[0] == 0).all() and (gradient[-1, 1:] == 0).all()
  assert counts[-1] == 1


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
@pytest.mark.parametrize("softmax", ["nodes", "siblings"])
def test_label_smoothing_spreads_a_share_over_what_can_follow(rng, toy_tree, short_labels, softmax):
  """As a sum over targets that are written out, for every label of the tree; without a share it is the loss without."""
  paths = toy_tree.encode(np.arange(-1, 7), short_labels)
  arrays = tree_arrays(toy_tree, short_labels)
  logits = rng.normal(size=(*paths.shape, arrays.num_outputs)).astype(np.float32)
  expected = []
  for steps, path in zip(logits, paths.tolist(), strict=True):
    total, node = 0.0, ROOT
    for step, token in zip(steps, path, strict=True):
      may_stop = arrays.has_stop and node != ROOT and (toy_tree.is_leaf(node) or short_labels == "stop")
      following = [*toy_tree.children(node), *[7] * may_stop]
      if token >= 0 or (token == STOP and arrays.has_stop):
        target = dict.fromkeys(following, 0.3 / len(following))
        target[7 if token == STOP else token] += 0.7
        those = following if softmax == "siblings" else list(range(arrays.num_outputs))
        log_prob = dict(zip(those, log_softmax(step[those]), strict=True))
        total -= sum(share * log_prob[m] for m, share in target.items())
      node = max(token, ROOT)
    expected.append(total)

  def losses(logits, epsilon):
    if softmax == "nodes":
      return path_cross_entropy(logits, jnp.asarray(paths), arrays, epsilon=epsilon)
    tokens, allowed = continuations(before(jnp.asarray(paths)), arrays)
    window = jnp.take_along_axis(logits, output_numbers(tokens, arrays), axis=-1)
    return sibling_cross_entropy(window, tokens, allowed, jnp.asarray(paths), epsilon=epsilon)

  @jax.jit
  def run(logits):
    gradient = jax.grad(lambda x: losses(x, 0.3).sum())(logits)
    return losses(logits, 0.3), losses(logits, 0.0), gradient

  found, without, gradient = jax.device_get(run(logits))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert np.isfinite(gradient).all() and (gradient[0] == 0).all()
  assert (without[1:] != np.array(expected)[1:]).any()


@pytest.mark.parametrize("token", [PAD, UNKNOWN])
def test_steps_without_a_target_change_nothing(rng, toy_tree, token):
  paths = jnp.array([[0, 2, token], [token, token, token]], jnp.int32)
  logits = jnp.asarray(rng.normal(size=(2, 3, 8)).astype(np.float32))
  gradient_of = jax.jit(jax.grad(lambda x: path_cross_entropy(x, paths, tree_arrays(toy_tree)).sum()))
  gradient = gradient_of(logits)
  assert (gradient[0, 2] == 0).all() and (gradient[1] == 0).all() and (gradient[0, :2] != 0).all()


def lca_heights(tree, node):
  """Returns the height of the lowest common ancestor of a node and each leaf, and that of the tree, by loops."""

  def height(above):
    return max((1 + height(child) for child in tree.children(above)), default=0)

  own = [] if node == ROOT else list(tree.path(node))
  shared = [[a for a in tree.path(leaf) if a in own] for leaf in tree.leaves.tolist()]
  return np.array([height(max(nodes, default=ROOT)) for nodes in shared]), height(ROOT)


def hxe(tree, prob, node, alpha):
  def mass(above):
    return sum(p for p, leaf in zip(prob, tree.leaves.tolist(), strict=True) if above in (ROOT, *tree.path(leaf)))

  own = [ROOT, *([] if node == ROOT else tree.path(node))]
  height = {
    a: lca_heights(tree, a)[0][[a in (ROOT, *tree.path(leaf)) for leaf in tree.leaves.tolist()]].max() for a in own
  }
  return -sum(np.exp(-alpha * height[c]) * np.log(mass(c) / mass(a)) for a, c in itertools.pairwise(own))


def soft_labels(tree, prob, node, beta):
  heights, whole = lca_heights(tree, node)
  target = np.exp(-beta * heights / whole)
  target /= target.sum()
  below = np.array([node in (ROOT, *tree.path(leaf)) or node == ROOT for leaf in tree.leaves.tolist()])
  return -target[below].sum() * np.log(prob[below].sum()) - (target[~below] * np.log(prob[~below])).sum()


def smoothed(tree, prob, node, epsilon):
  below = np.array([node in (ROOT, *tree.path(leaf)) for leaf in tree.leaves.tolist()])
  return 0.0 if node == ROOT else -(1 - epsilon) * np.log(prob[below].sum()) - epsilon * np.log(prob).mean()


def margin(tree, prob, node, scale):
  heights, whole = lca_heights(tree, node)
  below = np.array([node in (ROOT, *tree.path(leaf)) or node == ROOT for leaf in tree.leaves.tolist()])
  return np.log((prob * np.exp(np.where(below, 0, scale * heights / whole))).sum()) - np.log(prob[below].sum())


@pytest.mark.parametrize(
  ("name", "oracle", "strength", "default"),
  [
    ("hxe", hxe, 0.4, 0.1),
    ("soft_labels", soft_labels, 4.0, 10.0),
    ("label_smoothing", smoothed, 0.3, 0.1),
    ("soft_max_margin", margin, 2.5, 1.0),
  ],
)
def test_losses_that_weigh_mistakes_by_the_tree(rng, name, oracle, strength, default):
  """Of every node of a tree with leaves on several levels, and of an unknown label."""
  tree = random_tree(rng, depth=4, most_children=3)
  nodes = np.arange(ROOT, tree.num_nodes, dtype=np.int32)
  logits = (2 * rng.normal(size=(len(nodes), len(tree.leaves)))).astype(np.float32)
  prob = np.exp(log_softmax(logits.astype(np.float64)))

  @jax.jit
  def run(logits):
    found, pullback = jax.vjp(lambda x: LEAF_LOSSES[name](x, jnp.asarray(nodes), tree_arrays(tree), strength), logits)
    plain = LEAF_LOSSES[name](logits, jnp.asarray(nodes), tree_arrays(tree))
    return found, plain, *pullback(jnp.ones_like(found))

  found, plain, gradient = run(jnp.asarray(logits))
  for values, value in ((found, strength), (plain, default)):
    expected = [oracle(tree, row, node, value) for row, node in zip(prob, nodes.tolist(), strict=True)]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
  assert found[0] == 0 and (jnp.abs(gradient[0]) < 1e-6).all() and jnp.isfinite(gradient).all()
  np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-5)  # a softmax does not see a shift of all logits


def test_their_limits_are_the_likelihood_of_the_subtree(rng, toy_tree):
  arrays, nodes = tree_arrays(toy_tree), jnp.arange(ROOT, 7, dtype=jnp.int32)
  logits = jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)
  limits = {"hxe": 0.0, "soft_labels": 400.0, "label_smoothing": 0.0, "soft_max_margin": 0.0}
  found = jax.jit(lambda x: {name: LEAF_LOSSES[name](x, nodes, arrays, limit) for name, limit in limits.items()})(
    logits
  )
  expected = jax.jit(subtree_cross_entropy)(logits, nodes, arrays)
  for name, values in found.items():
    np.testing.assert_allclose(values, expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_a_conditional_softmax_is_that_of_the_siblings_of_each_node(rng, short_labels):
  tree = random_tree(rng, depth=4, most_children=3)
  arrays = tree_arrays(tree, short_labels)
  paths = tree.encode(np.arange(ROOT, tree.num_nodes), short_labels)
  inner = arrays.inner.tolist() if short_labels == "stop" else []
  logits = rng.normal(size=(len(paths), tree.num_nodes + len(inner))).astype(np.float32)
  expected = []
  for row, path in zip(logits, paths.tolist(), strict=True):
    total, node = 0.0, ROOT
    for token in path:
      outputs = {child: row[child] for child in tree.children(node)}
      if node in inner:
        outputs[STOP] = row[tree.num_nodes + inner.index(node)]
      if token in outputs:
        total -= outputs[token] - np.log(np.exp(list(outputs.values())).sum())
      node = max(token, node)
    expected.append(total)

  @jax.jit
  def run(logits):
    found, pullback = jax.vjp(lambda x: conditional_cross_entropy(x, jnp.asarray(paths), arrays), logits)
    return found, *pullback(jnp.ones_like(found))

  found, gradient = run(jnp.asarray(logits))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert found[0] == 0 and (gradient[0] == 0).all() and jnp.isfinite(gradient).all()


def test_words_that_are_no_choice_are_refused(toy_tree, without_shape_checks):
  logits, paths = jnp.zeros((1, 3, 8)), jnp.zeros((1, 3), jnp.int32)
  with pytest.raises(ValueError, match="reduction = 'max': choose from sum, mean"):
    path_cross_entropy(logits, paths, tree_arrays(toy_tree), reduction="max")
  with pytest.raises(ValueError, match="short_labels = 'end': choose from unknown, stop"):
    tree_arrays(toy_tree, "end")
