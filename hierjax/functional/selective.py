"""Paths that end where the model is no longer sure: their lower nodes are left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierjax.tree.label_tree import PAD, UNKNOWN


def sureness(paths: Int[Array, "b k l"], node_prob: Float[Array, "b n"]) -> Float[Array, "b k l"]:
  """Returns how sure a model is of each path down to each level, from 0 to 1: the smallest probability on the way.

  For paths of the tree that is the node's own. It is 0 after a path's end, and where there is no path.
  """
  rows = jnp.arange(paths.shape[0])[:, None, None]
  own = jnp.where(paths >= 0, node_prob[rows, jnp.maximum(paths, 0)], 0.0)
  return jax.lax.cummin(own, axis=2)


def stopped(
  paths: Int[Array, "b k l"], node_prob: Float[Array, "b n"], below: Float[Array, ""] | float
) -> Int[Array, "b k l"]:
  """Returns paths that end above their first node of a probability smaller than `below`; all PAD if that is the first.

  An ancestor is never less probable than its descendants, so the last node that stays is the deepest answer on the path
  that the model gives at least this probability.
  """
  return jnp.where(sureness(paths, node_prob) >= below, paths, PAD)


def not_contradicted(predicted: Int[Array, "*b l"], paths: Int[Array, "*b l"]) -> Bool[Array, "*b l"]:
  """Returns whether a label contradicts none of the nodes predicted for its image, down to each level.

  So an ancestor of the label is right, and a descendant is where the rest of the label is not known.
  """
  agrees = jnp.where(paths >= 0, predicted == paths, (paths == UNKNOWN) | (predicted < 0))
  return jax.lax.cummin(agrees.astype(jnp.int32), axis=agrees.ndim - 1) > 0
