"""Abstaining: paths that end above their first node of a probability below the confidence threshold."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierjax.tree.label_tree import PAD, UNKNOWN
from hierjax.types import Prediction


def confidence(paths: Int[Array, "b k l"], node_prob: Float[Array, "b n"]) -> Float[Array, "b k l"]:
  """Returns the confidence in each path down to each level, 0 to 1: the smallest node probability on the way.

  For a path of the tree that is the node's own probability. It is 0 after a path's end, and where there is no path.
  """
  rows = jnp.arange(paths.shape[0])[:, None, None]
  own = jnp.where(paths >= 0, node_prob[rows, jnp.maximum(paths, 0)], 0.0)
  return jax.lax.cummin(own, axis=2)


def abstain(prediction: Prediction, threshold: Float[Array, ""] | float) -> Prediction:
  """Returns the prediction whose paths end above their first node of a probability below `threshold`.

  An ancestor is never less probable than its descendants, so the last node that stays is the deepest one on the path
  with at least this probability. A path whose first node is less probable becomes all PAD.
  """
  confident = confidence(prediction.paths, prediction.node_prob) >= threshold
  return dataclasses.replace(prediction, paths=jnp.where(confident, prediction.paths, PAD))


def not_contradicted(predicted: Int[Array, "*b l"], paths: Int[Array, "*b l"]) -> Bool[Array, "*b l"]:
  """Returns whether a label contradicts none of the nodes predicted for its image, down to each level.

  An ancestor of the label is right. So is a descendant, where the rest of the label is unknown.
  """
  agrees = jnp.where(paths >= 0, predicted == paths, (paths == UNKNOWN) | (predicted < 0))
  return jax.lax.cummin(agrees.astype(jnp.int32), axis=agrees.ndim - 1) > 0
