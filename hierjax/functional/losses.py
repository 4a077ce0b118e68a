"""Losses of single examples, under a softmax over leaves, a level distribution, or the outputs of each step of a path.

The mean over a batch, with its mask and class weights, is made by the training step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierjax.config import checked
from hierjax.functional.distributions import by_siblings
from hierjax.functional.paths import before, climb, ends, may_stop
from hierjax.functional.tree_arrays import TreeArrays, heights
from hierjax.tree.label_tree import ROOT, STOP


@checked
def subtree_cross_entropy(logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays) -> Float[Array, "b"]:
  """Returns -log P(node), the likelihood of a subtree, under a softmax over the leaves:

      L = log sum_(all leaves m) exp(z_m) - log sum_(leaves m below the node) exp(z_m)

  For a leaf this is cross-entropy. For ROOT it is 0, and so is its gradient. It is the marginal likelihood of Deng et
  al. 2014 (Large-scale object classification using label relation graphs) for a tree of labels.

  Args:
    logits: one a leaf, in the order of `tree.leaves`.
    nodes: the deepest known node of each label.
    tree: the tree.
  """
  logits = logits.astype(jnp.float32)
  return jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(logits, axis=1, where=_leaves_below(nodes, tree))


def _leaves_below(nodes: Int[Array, "b"], tree: TreeArrays) -> Bool[Array, "b m"]:
  """Returns which leaves are the node or below it, in the order of `tree.leaves`."""
  spans = jnp.asarray(tree.leaf_spans)
  number = spans[jnp.asarray(tree.leaves) + 1, 0][None]
  first, end = jnp.split(spans[nodes + 1], 2, axis=1)
  return (first <= number) & (number < end)


@checked
def hierarchical_cross_entropy(
  logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays, alpha: float = 0.1
) -> Float[Array, "b"]:
  """Returns the hierarchical cross-entropy, HXE (Bertinetto et al. 2020, Making better mistakes, eqs. 3 to 5):

      L = -sum_(c = the node and its ancestors) exp(-alpha h(c)) log p(c | parent(c)),
      p(c | parent(c)) = sum_(leaves m below c) exp(z_m) / sum_(leaves m below parent(c)) exp(z_m)

  where h is the height: the edges down to the farthest leaf. With alpha = 0 it is `subtree_cross_entropy`. For ROOT it
  is 0, and so is its gradient.

  Args:
    logits: one a leaf, in the order of `tree.leaves`.
    nodes: the deepest known node of each label.
    tree: the tree.
    alpha: 0 or more; the larger, the more the lower levels weigh.
  """
  logits, height = logits.astype(jnp.float32), heights(tree).astype(jnp.float32)
  above, loss = jax.nn.logsumexp(logits, axis=1), jnp.zeros(len(logits), jnp.float32)
  for node in climb(nodes, tree).T:
    here = jax.nn.logsumexp(logits, axis=1, where=_leaves_below(jnp.maximum(node, ROOT), tree))
    weight = jnp.where(node >= 0, jnp.exp(-alpha * height[jnp.maximum(node, ROOT) + 1]), 0.0)
    loss, above = loss + weight * (above - here), jnp.where(node >= 0, here, above)
  return loss


@checked
def soft_label_cross_entropy(
  logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays, beta: float = 10.0
) -> Float[Array, "b"]:
  """Returns the cross-entropy with soft labels (Bertinetto et al. 2020, Making better mistakes, eq. 6):

      L = -sum_(leaves m) y_m log p_m,   y_m = exp(-beta d(m)) / sum_(leaves i) exp(-beta d(i)),   p = softmax(z),

  where d(m) is the height of the lowest common ancestor of m and the node, divided by that of the tree. For a label
  that ends above a leaf, the leaves below it are one class. For ROOT the loss is 0, and so is its gradient.

  Args:
    logits: one a leaf, in the order of `tree.leaves`.
    nodes: the deepest known node of each label.
    tree: the tree.
    beta: 0 or more; the larger, the nearer to `subtree_cross_entropy`.
  """
  target = jax.nn.softmax(-beta * _leaf_distances(nodes, tree), axis=1)
  below, log_prob = _leaves_below(nodes, tree), jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)
  own = jnp.where(below, target, 0.0).sum(axis=1) * jax.nn.logsumexp(log_prob, axis=1, where=below)
  return -own - jnp.where(below, 0.0, target * log_prob).sum(axis=1)


@checked
def smoothed_cross_entropy(
  logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays, epsilon: float = 0.1
) -> Float[Array, "b"]:
  """Returns the cross-entropy with label smoothing (Szegedy et al. 2016, Rethinking the Inception architecture, 7):

      L = -(1 - epsilon) log P(node) - epsilon / M sum_(leaves m) log p_m,   p = softmax(z),

  for M leaves, with P of `subtree_cross_entropy`. For ROOT the loss is 0, and so is its gradient.

  Args:
    logits: one a leaf, in the order of `tree.leaves`.
    nodes: the deepest known node of each label.
    tree: the tree.
    epsilon: 0 to 1; 0 is `subtree_cross_entropy`.
  """
  uniform = -jax.nn.log_softmax(logits.astype(jnp.float32), axis=1).mean(axis=1)
  return jnp.where(nodes == ROOT, 0.0, (1 - epsilon) * subtree_cross_entropy(logits, nodes, tree) + epsilon * uniform)


@checked
def soft_max_margin(
  logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays, scale: float = 1.0
) -> Float[Array, "b"]:
  """Returns the softmax-margin loss (Gimpel and Smith 2010, eq. 5) whose cost is the distance in the tree:

      L = log sum_(leaves m) exp(z_m + scale d(m)) - log sum_(leaves m below the node) exp(z_m),

  where d(m) is 0 below the node, and else the height of the lowest common ancestor of m and the node, divided by that
  of the tree. Valmadre 2022 (Hierarchical classification at multiple operating points) has such losses of label trees.
  For ROOT it is 0, and so is its gradient.

  Args:
    logits: one a leaf, in the order of `tree.leaves`.
    nodes: the deepest known node of each label.
    tree: the tree.
    scale: 0 or more; 0 is `subtree_cross_entropy`.
  """
  logits, below = logits.astype(jnp.float32), _leaves_below(nodes, tree)
  cost = jnp.where(below, 0.0, scale * _leaf_distances(nodes, tree))
  return jax.nn.logsumexp(logits + cost, axis=1) - jax.nn.logsumexp(logits, axis=1, where=below)


def _leaf_distances(nodes: Int[Array, "b"], tree: TreeArrays) -> Float[Array, "b m"]:
  """Returns the height of the lowest common ancestor of each node and each leaf, divided by that of the tree."""
  height = heights(tree).astype(jnp.float32) / tree.depth
  found = jnp.ones((len(nodes), tree.num_leaves), jnp.float32)
  for node in climb(nodes, tree).T:
    below = _leaves_below(jnp.maximum(node, ROOT), tree) & (node >= 0)[:, None]
    found = jnp.where(below, height[jnp.maximum(node, ROOT) + 1][:, None], found)
  return found


@checked
def conditional_cross_entropy(
  logits: Float[Array, "b o"], paths: Int[Array, "b l"], tree: TreeArrays
) -> Float[Array, "b"]:
  """Returns the cross-entropy of a label path y_1, y_2, ... under a softmax over the siblings of each of its nodes:

      L = -sum_t (z[y_t] - log sum_(i = y_t and its siblings) exp(z_i)) = -log P(y_T)

  (Redmon and Farhadi 2017, YOLO9000, section 4). The end of a path at an inner node, where the tree has such ends, is a
  sibling of the children of this node, and a target where the label says STOP. A label that ends above a leaf is the
  likelihood of its subtree. For a label of which no node is known the loss is 0.

  Args:
    logits: see `by_siblings`.
    paths: the targets.
    tree: the tree.
  """
  log_prob, log_end = by_siblings(logits, tree)
  end = ends(paths)
  number = jnp.maximum(end, 0)[:, None]
  node, stop = (jnp.take_along_axis(x, number, axis=1)[:, 0] for x in (log_prob, log_end))
  stops = (paths == STOP).any(axis=1)
  return jnp.where(end >= 0, -node - jnp.where(stops, stop, 0.0), 0.0)


def path_ends(tree: TreeArrays) -> Int[Array, "m"]:
  """Returns the nodes at which a path may end: the leaves, and then, with `stop_at` of `node`, all inner nodes."""
  leaves = jnp.asarray(tree.leaves)
  return jnp.concatenate([leaves, jnp.asarray(tree.inner)]) if tree.stop_at == "node" else leaves


def are_below(nodes: Int[Array, "m"], ends: Int[Array, "b"], tree: TreeArrays) -> Bool[Array, "b m"]:
  """Returns which of `nodes` are each of `ends` or below it; all are below ROOT."""
  spans = jnp.asarray(tree.leaf_spans)
  (first, last), (own_first, own_last) = spans[ends + 1].T[..., None], spans[nodes + 1].T[:, None]
  return (nodes[None] >= ends[:, None]) & (first <= own_first) & (own_last <= last)


def end_log_softmax(logits: Float[Array, "b e"], tree: TreeArrays) -> Float[Array, "b e"]:
  """Returns the log-softmax over those of `path_ends` where paths end (`may_end`); -inf for the others."""
  may_end = jnp.asarray(tree.may_end)[path_ends(tree)][None]
  return jax.nn.log_softmax(jnp.where(may_end, logits.astype(jnp.float32), -jnp.inf), axis=1)


@checked
def end_cross_entropy(logits: Float[Array, "b e"], paths: Int[Array, "b l"], tree: TreeArrays) -> Float[Array, "b"]:
  """Returns the cross-entropy of the node y where a label ends, under one softmax over all ends (Koo et al., Table 2):

      L = -log sum_(ends e) exp(z_e) / sum_(all ends m) exp(z_m)

  over e = y, where the label says that it ends there, and over y and all ends below it where its rest is unknown. For a
  label of which no node is known it is 0. It is infinite where y is an inner node at which no label of training ends.

  Args:
    logits: one an end, in the order of `path_ends`.
    paths: the targets.
    tree: the tree.
  """
  nodes, end = path_ends(tree), ends(paths)
  exact = (paths == STOP).any(axis=1, keepdims=True)
  target = jnp.where(exact, nodes[None] == end[:, None], are_below(nodes, end, tree))
  loss = -jax.nn.logsumexp(end_log_softmax(logits, tree), axis=1, where=target)
  return jnp.where(end >= 0, loss, 0.0)


def level_cross_entropy(
  log_probs: Float[Array, "b m"], entries: Int[Array, "m"], nodes: Int[Array, "b"], tree: TreeArrays
) -> Float[Array, "b"]:
  """Returns -log P(node) under the distribution p of one level:

      L = -log sum_(entries m of the level that are the node, its ancestor or its descendants) p_m

  On a level that the node's path passes, one entry counts, and L is cross-entropy. On a level below the node, its
  descendants count. For ROOT the loss is 0, and so is its gradient. Merged networks sum it over levels (READINGS D5).

  Args:
    log_probs: the level's distribution, over its block.
    entries: the nodes of the block, see `hierjax.functional.distributions`.
    nodes: the deepest known node of each label.
    tree: the tree.
  """
  spans = jnp.asarray(tree.leaf_spans)
  first, end = jnp.split(spans[nodes + 1], 2, axis=1)
  on_its_way = (first < spans[entries + 1, 1][None]) & (spans[entries + 1, 0][None] < end)
  return jnp.where(nodes >= 0, -jax.nn.logsumexp(log_probs, axis=1, where=on_its_way), 0.0)


@checked
def path_cross_entropy(
  logits: Float[Array, "b l o"],
  paths: Int[Array, "b l"],
  tree: TreeArrays,
  reduction: Literal["sum", "mean"] = "sum",
  weights: tuple[float, ...] = (),
  epsilon: float = 0.0,
) -> Float[Array, "b"]:
  """Returns the cross-entropy of a label path y_1, y_2, ..., the likelihood of the path (Guo et al., eq. 8; G1):

      L = -sum_t w_t sum_m q_t[m] log softmax(z_t)[m],   over the steps t that have a target,
      q_t[m] = (1 - epsilon) [m = y_t] + epsilon [m in C_t] / |C_t|

  where C_t are the children of y_(t-1), and STOP where a path can end there. With epsilon = 0, as in the paper, L is
  -sum_t w_t log softmax(z_t)[y_t]; above it is label smoothing (Szegedy et al. 2016, eq. 7) over what can follow. STOP
  is a target where the head has an output for it; PAD and UNKNOWN are not. An example without targets has loss 0.

  Args:
    logits: z_t of each step, one for each node and then STOP's.
    paths: the targets.
    tree: the tree.
    reduction: `mean` divides by the number of targets.
    weights: w_t of each step (Koo et al., section 3.1); () for 1.
    epsilon: 0 to 1.
  """
  known = (paths >= 0) | ((paths == STOP) & tree.has_stop)
  targets = jnp.where(paths == STOP, tree.num_nodes, paths)
  targets = jnp.where(known, targets, 0)
  logits = logits.astype(jnp.float32)
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  if epsilon:
    picked = _smoothed(picked, logits, _can_follow(before(paths), tree), epsilon)
  losses = jax.nn.logsumexp(logits, axis=-1) - picked
  return _over_steps(losses * jnp.array(weights, jnp.float32)[None] if weights else losses, known, reduction)


@checked
def sibling_cross_entropy(
  logits: Float[Array, "b l w"],
  tokens: Int[Array, "b l w"],
  allowed: Bool[Array, "b l w"],
  paths: Int[Array, "b l"],
  reduction: Literal["sum", "mean"] = "sum",
  epsilon: float = 0.0,
) -> Float[Array, "b"]:
  """Returns the cross-entropy of a label path y_1, y_2, ... under a softmax over the children C_t of y_(t-1):

      L = -sum_t sum_(m in C_t) q_t[m] (z_t[m] - log sum_(i in C_t) exp(z_t[i])),   over the steps t with y_t in C_t,
      q_t[m] = (1 - epsilon) [m = y_t] + epsilon / |C_t|

  C_t includes STOP where a path can end at y_(t-1). PAD, UNKNOWN and nodes outside of C_t are not targets.

  Args:
    logits: of each step's `tokens`.
    tokens: the window of nodes and STOP of each step, see `search.continuations`.
    allowed: whether a token is in C_t.
    paths: the targets.
    reduction: `mean` divides by the number of targets.
    epsilon: 0 to 1; above 0 it is label smoothing.
  """
  target = allowed & (tokens == paths[..., None])
  known = target.any(axis=-1)
  picked = jnp.where(target, logits, 0.0).sum(axis=-1)
  if epsilon:
    picked = _smoothed(picked, logits, allowed, epsilon)
  return _over_steps(jax.nn.logsumexp(logits, axis=-1, where=allowed) - picked, known, reduction)


def _smoothed(
  picked: Float[Array, "b l"], logits: Float[Array, "b l o"], allowed: Bool[Array, "b l o"], epsilon: float
) -> Float[Array, "b l"]:
  """Returns the logit of each target, with a share of the mean of those that are allowed."""
  mean = jnp.where(allowed, logits, 0.0).sum(axis=-1) / jnp.maximum(allowed.sum(axis=-1), 1).astype(jnp.float32)
  return (1 - epsilon) * picked + epsilon * mean


def _can_follow(nodes: Int[Array, "b l"], tree: TreeArrays) -> Bool[Array, "b l o"]:
  """Returns which outputs can follow each node: its children, and STOP where a path may end at it."""
  found = jnp.asarray(tree.parent)[None, None] == nodes[..., None]
  if not tree.has_stop:
    return found
  return jnp.concatenate([found, may_stop(nodes, tree)[..., None]], axis=-1)


def _over_steps(
  losses: Float[Array, "b l"], known: Bool[Array, "b l"], reduction: Literal["sum", "mean"]
) -> Float[Array, "b"]:
  total = jnp.where(known, losses, 0.0).sum(axis=-1)
  return total if reduction == "sum" else total / jnp.maximum(known.sum(axis=-1), 1).astype(jnp.float32)


LEAF_LOSSES: dict[str, Callable[..., Array]] = {
  "cross_entropy": subtree_cross_entropy,
  "hxe": hierarchical_cross_entropy,
  "soft_labels": soft_label_cross_entropy,
  "label_smoothing": smoothed_cross_entropy,
  "soft_max_margin": soft_max_margin,
}
"""Losses of a softmax over the leaves, `(logits f32[b m], nodes i32[b], tree) -> f32[b]`, by name.

Those after the first have a fourth argument, their strength: alpha, beta, epsilon, or the scale.
"""
