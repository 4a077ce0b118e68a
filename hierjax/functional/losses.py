"""Losses, one number an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import STOP


def subtree_cross_entropy(logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays) -> Float[Array, "b"]:
  """Returns -log P(node) under a softmax over the leaves, where P of an inner node is the sum over its leaves.

  For a leaf this is cross-entropy; for ROOT it is 0, and so is its gradient.

  Args:
    logits: one a leaf, in the order of `tree.leaves`.
    nodes: the deepest known node of each label.
    tree: the tree.
  """
  spans = jnp.asarray(tree.leaf_spans)
  number = spans[jnp.asarray(tree.leaves) + 1, 0][None]
  first, end = jnp.split(spans[nodes + 1], 2, axis=1)
  below = (first <= number) & (number < end)
  logits = logits.astype(jnp.float32)
  return jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(logits, axis=1, where=below)


def level_cross_entropy(
  log_probs: Float[Array, "b m"], entries: Int[Array, "m"], nodes: Int[Array, "b"], tree: TreeArrays
) -> Float[Array, "b"]:
  """Returns -log P(node) by the distribution of one level.

  For a level that a node's path goes through, P is that of the node's ancestor there, or of the node: cross-entropy. On
  a level below, it is the sum over the node's descendants there. For ROOT it is 0, and so is its gradient.

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


def path_cross_entropy(
  logits: Float[Array, "b l o"],
  paths: Int[Array, "b l"],
  tree: TreeArrays,
  reduction: Literal["sum", "mean"] = "sum",
  weights: tuple[float, ...] = (),
) -> Float[Array, "b"]:
  """Returns the sum over the steps of a path of -log softmax_t[y_t] (Guo et al., eq. 8; READINGS G1).

  STOP is a target where the head has an output for it; PAD and UNKNOWN are none, and an example without targets has
  loss 0.

  Args:
    logits: at each step, one a node and then STOP's.
    paths: the targets.
    tree: the tree.
    reduction: `mean` divides by the number of targets.
    weights: w_t of each step (Koo et al., section 3.1); () for 1.
  """
  known = (paths >= 0) | ((paths == STOP) & tree.has_stop)
  targets = jnp.where(paths == STOP, tree.num_nodes, paths)
  targets = jnp.where(known, targets, 0)
  logits = logits.astype(jnp.float32)
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  losses = jax.nn.logsumexp(logits, axis=-1) - picked
  return _over_steps(losses * jnp.array(weights, jnp.float32)[None] if weights else losses, known, reduction)


def sibling_cross_entropy(
  logits: Float[Array, "b l w"],
  tokens: Int[Array, "b l w"],
  allowed: Bool[Array, "b l w"],
  paths: Int[Array, "b l"],
  reduction: Literal["sum", "mean"] = "sum",
) -> Float[Array, "b"]:
  """Returns `path_cross_entropy` where each step's softmax runs over what can follow the node before.

  What cannot follow it is no target; neither are PAD and UNKNOWN.

  Args:
    logits: of each step's `tokens`.
    tokens: the window of nodes and STOP of each step, see `decoding.continuations`.
    allowed: which of them can follow.
    paths: the targets.
    reduction: `mean` divides by the number of targets.
  """
  target = allowed & (tokens == paths[..., None])
  known = target.any(axis=-1)
  mass = jax.nn.logsumexp(logits, axis=-1, where=allowed)
  return _over_steps(mass - jnp.where(target, logits, 0.0).sum(axis=-1), known, reduction)


def _over_steps(
  losses: Float[Array, "b l"], known: Bool[Array, "b l"], reduction: Literal["sum", "mean"]
) -> Float[Array, "b"]:
  total = jnp.where(known, losses, 0.0).sum(axis=-1)
  return total if reduction == "sum" else total / jnp.maximum(known.sum(axis=-1), 1).astype(jnp.float32)


LEAF_LOSSES: dict[str, Callable[[Array, Array, TreeArrays], Array]] = {"cross_entropy": subtree_cross_entropy}
"""Losses of a softmax over the leaves, `(logits f32[b m], nodes i32[b], tree) -> f32[b]`, by name."""
