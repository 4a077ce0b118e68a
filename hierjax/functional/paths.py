"""Label paths in jitted code; `LabelTree` has the same in numpy, one path at a time."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, ROOT


def single_path(paths: Int[Array, "b *p l"]) -> Int[Array, "b l"]:
  """Returns the one path of each image, for heads that predict one.

  Raises:
    UserError: images may have several.
  """
  if paths.ndim == 3 and paths.shape[1] != 1:
    raise UserError(
      f"images with up to {paths.shape[1]} label paths need a multi-label head: this one predicts a single path; "
      "give each image one path, or choose another head"
    )
  return paths.reshape(paths.shape[0], paths.shape[-1])


def ends(paths: Int[Array, "*b l"]) -> Int[Array, "*b"]:
  """Returns the deepest node of each path; ROOT where no node is known."""
  return jnp.maximum(paths.max(axis=-1), ROOT)  # breadth-first: the deepest node has the largest number


def before(paths: Int[Array, "*b l"]) -> Int[Array, "*b l"]:
  """Returns the node before each step of a path: ROOT at first, and after a token."""
  return jnp.concatenate([jnp.full_like(paths[..., :1], ROOT), jnp.maximum(paths[..., :-1], ROOT)], axis=-1)


def may_stop(nodes: Int[Array, "*b"], tree: TreeArrays) -> Bool[Array, "*b"]:
  """Returns whether a path may end at each of `nodes`; not at ROOT, for a path has at least one node."""
  return (nodes >= 0) & jnp.asarray(tree.may_end)[jnp.maximum(nodes, 0)]


def climb(nodes: Int[Array, "*b"], tree: TreeArrays) -> Int[Array, "*b l"]:
  """Returns the path from the top level down to each of `nodes`, PAD after it; all PAD for ROOT."""
  parent = jnp.asarray(tree.parent)
  steps = []
  for first in reversed(tree.level_offsets[:-1]):  # from the bottom: the node sits here if it is not above this level
    here = nodes >= first
    steps.append(jnp.where(here, nodes, PAD))
    nodes = jnp.where(here, parent[jnp.maximum(nodes, 0)], nodes)
  return jnp.stack(steps[::-1], axis=-1)


def complete(known: Int[Array, "b l"], tree: TreeArrays) -> Int[Array, "b l"]:
  """Returns `known` with the ancestors of its deepest node filled in, whatever stood in their place."""
  above = climb(ends(known), tree)
  return jnp.where(above >= 0, above, known)


def are_walks(paths: Int[Array, "*b l"], tree: TreeArrays) -> Bool[Array, "*b"]:
  """Returns whether the nodes of each path, up to its first token, lead from the top level from parent to child."""
  is_edge = jnp.asarray(tree.parent)[jnp.maximum(paths, 0)] == before(paths)
  going = jnp.cumprod(paths >= 0, axis=-1) == 1
  return (is_edge | ~going).all(axis=-1) & going[..., 0]
