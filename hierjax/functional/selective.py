"""Abstaining: the deepest node of a probability of at least the confidence threshold, or no answer."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierjax.config import checked
from hierjax.functional.distributions import end_probability
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, ROOT, UNKNOWN
from hierjax.types import DecodeOptions, Prediction

UNSHORTENED = 1e-30  # a confidence threshold that no path of a network falls below


def confidence(paths: Int[Array, "b k l"], node_prob: Float[Array, "b n"]) -> Float[Array, "b k l"]:
  """Returns the confidence in each path down to each level, 0 to 1: the smallest node probability on the way.

  For a path of the tree that is the node's own probability. It is 0 after a path's end, and where there is no path.
  """
  rows = jnp.arange(paths.shape[0])[:, None, None]
  own = jnp.where(paths >= 0, node_prob[rows, jnp.maximum(paths, 0)], 0.0)
  return jax.lax.cummin(own, axis=2)


def surest_path(node_prob: Float[Array, "b n"], tree: TreeArrays) -> Int[Array, "b l"]:
  """Returns from the top level down the most probable child of the node before, PAD where the path more probably ends.

  A node of a probability above 1/2 is more probable than its siblings and than an end above it, and so are its
  ancestors: the path contains all such nodes, wherever the best path goes. It does not depend on a threshold, so a
  smaller threshold only lets an answer go on.

  Args:
    node_prob: 0 to 1, never larger than the parent's.
    tree: the tree.
  """
  tree = jax.tree.map(jnp.asarray, tree)
  ends, offsets = end_probability(node_prob, tree), tree.child_offsets
  node, going, path = jnp.full(len(node_prob), ROOT, jnp.int32), jnp.ones(len(node_prob), bool), []
  for first, end in itertools.pairwise(tree.level_offsets):
    block = jnp.arange(first, end)[None]
    below = (offsets[node + 1][:, None] <= block) & (block < offsets[node + 2][:, None])
    shares = jnp.where(below, node_prob[:, first:end], -1.0)
    stop = jnp.where(node >= 0, jnp.take_along_axis(ends, jnp.maximum(node, 0)[:, None], axis=1)[:, 0], -1.0)
    going &= (shares.max(axis=1) >= stop) & below.any(axis=1)
    node = jnp.where(going, first + shares.argmax(axis=1).astype(jnp.int32), node)
    path.append(jnp.where(going, node, PAD))
  return jnp.stack(path, axis=1)


def surest_first(prediction: Prediction, tree: TreeArrays, options: DecodeOptions) -> Prediction:
  """Returns the prediction whose first path is the one that a confidence threshold shortens: that of `surest_path`.

  Multi-label predictions, and the paths of other rules than `beam`, stay as they are.
  """
  if prediction.node_score is not None or options.rule != "beam":
    return prediction
  best = surest_path(prediction.node_prob, tree)
  return dataclasses.replace(prediction, paths=prediction.paths.at[:, 0].set(best))


@checked
def abstain(
  prediction: Prediction,
  threshold: Float[Array, ""] | float,
  tree: TreeArrays,
  options: DecodeOptions = DecodeOptions(),
) -> Prediction:
  """Returns the prediction whose answers are the deepest nodes that are probable enough.

  The first path is that of `surest_path` down to its last node with a probability of at least `threshold`. With a
  threshold above 1/2 no other node at its level or below has one. Further paths, and those of other rules, end above
  their first node of a smaller probability. A path whose first node is less probable becomes all PAD. `log_prob` and
  `stop_prob` stay those of the decoded paths.

  Args:
    prediction: the decoded one, or that of any model.
    threshold: 0 to 1.
    tree: the tree.
    options: with which it was decoded.
  """
  prediction = jax.tree.map(jnp.asarray, prediction)  # those of other models hold numpy arrays
  return shortened(surest_first(prediction, tree, options), threshold)


def shortened(prediction: Prediction, threshold: Float[Array, ""] | float) -> Prediction:
  """Returns the prediction whose paths end above their first node of a probability below `threshold`."""
  confident = confidence(prediction.paths, prediction.node_prob) >= threshold
  return dataclasses.replace(prediction, paths=jnp.where(confident, prediction.paths, PAD))


def not_contradicted(predicted: Int[Array, "*b l"], paths: Int[Array, "*b l"]) -> Bool[Array, "*b l"]:
  """Returns whether a label contradicts none of the nodes predicted for its image, down to each level.

  An ancestor of the label is right. So is a descendant, where the rest of the label is unknown.
  """
  agrees = jnp.where(paths >= 0, predicted == paths, (paths == UNKNOWN) | (predicted < 0))
  return jax.lax.cummin(agrees.astype(jnp.int32), axis=agrees.ndim - 1) > 0
