"""Losses of single examples, under a softmax over leaves, a level distribution, or the outputs of each step of a path.

The mean over a batch, with its mask and class weights, is made by the training step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import STOP


def subtree_cross_entropy(logits: Float[Array, "b m"], nodes: Int[Array, "b"], tree: TreeArrays) -> Float[Array, "b"]:
  """Returns -log P(node) under a softmax over the leaves, where P of an inner node is the sum over its leaves:

      L = log sum_(all leaves m) exp(z_m) - log sum_(leaves m below the node) exp(z_m)

  For a leaf this is cross-entropy. For ROOT it is 0, and so is its gradient.

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


def path_cross_entropy(
  logits: Float[Array, "b l o"],
  paths: Int[Array, "b l"],
  tree: TreeArrays,
  reduction: Literal["sum", "mean"] = "sum",
  weights: tuple[float, ...] = (),
) -> Float[Array, "b"]:
  """Returns the cross-entropy of a label path y_1, y_2, ... (Guo et al., eq. 8, without its mean over examples; G1):

      L = -sum_t w_t log softmax(z_t)[y_t],   over the steps t that have a target

  STOP is a target where the head has an output for it; PAD and UNKNOWN are not. An example without targets has loss 0.

  Args:
    logits: z_t of each step, one for each node and then STOP's.
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
  """Returns the cross-entropy of a label path y_1, y_2, ... under a softmax over the children C_t of y_(t-1):

      L = -sum_t (z_t[y_t] - log sum_(m in C_t) exp(z_t[m])),   over the steps t with y_t in C_t

  C_t includes STOP where a path can end at y_(t-1). PAD, UNKNOWN and nodes outside of C_t are not targets.

  Args:
    logits: of each step's `tokens`.
    tokens: the window of nodes and STOP of each step, see `search.continuations`.
    allowed: whether a token is in C_t.
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
  if reduction not in ("sum", "mean"):
    raise ValueError(f"reduction = {reduction!r}: choose from sum, mean")
  total = jnp.where(known, losses, 0.0).sum(axis=-1)
  return total if reduction == "sum" else total / jnp.maximum(known.sum(axis=-1), 1).astype(jnp.float32)


LEAF_LOSSES: dict[str, Callable[[Array, Array, TreeArrays], Array]] = {"cross_entropy": subtree_cross_entropy}
"""Losses of a softmax over the leaves, `(logits f32[b m], nodes i32[b], tree) -> f32[b]`, by name."""
