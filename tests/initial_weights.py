"""Weights of numpy where a test needs some to begin with: programs that draw them compile longer than a train step."""

import jax
import numpy as np


def initial_weights(shapes, seed=0):
  """Returns variables of the shapes of `init`: kernels by the inputs of a unit, zeros for biases, ones for scales."""
  rng = np.random.default_rng(seed)

  def leaf(path, like):
    name = path[-1].key
    if name in ("scale", "var", "s"):
      return np.ones(like.shape, like.dtype)
    if name in ("bias", "mean"):
      return np.zeros(like.shape, like.dtype)
    return rng.normal(size=like.shape).astype(like.dtype) / np.sqrt(np.prod(like.shape[:-1]) or 1).astype(like.dtype)

  return jax.tree_util.tree_map_with_path(leaf, shapes)
