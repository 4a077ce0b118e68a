"""Fresh variables of a network, and their shapes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from hierjax.nn.classifier import Classifier
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import Variables


def init_variables(module: Classifier, key: jax.Array, size: tuple[int, ...], depth: int) -> Variables:
  """Returns fresh variables; jittable.

  Args:
    module: the network.
    key: of the random numbers.
    size: of one example as the backbone reads it: (h, w, c), or (d,) of precomputed features.
    depth: levels of the label tree.
  """
  paths = jnp.full((1, 1, depth), UNKNOWN, jnp.int32)
  return module.init({"params": key, "dropout": key}, jnp.zeros((1, *size)), paths)


def variable_shapes(module: Classifier, size: tuple[int, ...], depth: int) -> Variables:
  """Returns the shapes of `init_variables`, in dictionaries of the caller's own.

  They are kept for equal arguments: tracing a deep network takes seconds, and runs of several seeds have the same.
  """
  try:
    hash(module)
  except TypeError:  # of a part that holds a dictionary, such as a module of nnx
    return _traced(module, size, depth)
  return jax.tree.map(lambda leaf: leaf, _kept(module, size, depth))


def _traced(module: Classifier, size: tuple[int, ...], depth: int) -> Variables:
  return jax.eval_shape(lambda: init_variables(module, jax.random.key(0), size, depth))


_kept = functools.lru_cache(maxsize=32)(_traced)
