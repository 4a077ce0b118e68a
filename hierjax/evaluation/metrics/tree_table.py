"""Numbers of the nodes of a tree that metrics look up; numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from hierjax.tree.label_tree import ROOT, LabelTree


@dataclasses.dataclass(frozen=True, eq=False)
class TreeTable:
  """A tree of n nodes on l levels, and of each node its path, its height and its information.

  Attributes:
    tree: the tree.
    paths: `i32[n l]`, from the top level down to each node; negative after it.
    height: `i64[n + 1]`, the edges down to the deepest leaf below node i, in row i + 1; those of the root in row 0.
    information: `f64[n + 1]`, in the same rows: 1 - log(leaves below) / log(leaves), 0 at the root and 1 at leaves.
  """

  tree: LabelTree
  paths: Int[np.ndarray, "n l"]
  height: Int[np.ndarray, "_"]
  information: Float[np.ndarray, "_"]

  @classmethod
  def of(cls, tree: LabelTree) -> TreeTable:
    """Computes the numbers of a tree."""
    paths = tree.encode(np.arange(tree.num_nodes), "stop")
    below = (np.diff(tree.child_offsets) == 0).astype(np.int64)  # leaves, the root's first
    height = np.zeros(tree.num_nodes + 1, np.int64)
    for first, end in reversed(list(zip(tree.level_offsets[:-1], tree.level_offsets[1:], strict=True))):
      above, block = tree.parent[first:end] + 1, slice(first + 1, end + 1)
      np.add.at(below, above, below[block])
      np.maximum.at(height, above, height[block] + 1)
    many = np.log(max(len(tree.leaves), 2))
    return cls(tree, paths, height, np.where(below == len(tree.leaves), 0.0, 1 - np.log(below) / many))

  @property
  def depth(self) -> int:
    """Levels."""
    return self.tree.depth


def last_common(first: Int[np.ndarray, "*b l"], second: Int[np.ndarray, "*b l"]) -> Int[np.ndarray, "*b"]:
  """Returns the lowest common ancestor of the ends of two paths; ROOT where they share no node."""
  shared = np.logical_and.accumulate((first == second) & (first >= 0), axis=-1).sum(axis=-1)
  nodes = np.take_along_axis(first, np.maximum(shared - 1, 0)[..., None], axis=-1)[..., 0]
  return np.where(shared > 0, nodes, ROOT)
