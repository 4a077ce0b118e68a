"""What a jitted function needs of a label tree, as arrays and static sizes."""

from __future__ import annotations

import numpy as np
from flax import struct
from numpy.typing import NDArray

from hierjax.tree.label_tree import LabelTree, ShortLabels
from hierjax.types import Leaf


@struct.dataclass
class TreeArrays:
  """The structure of a `LabelTree` as a pytree: an argument of jitted calls, never a field of a module.

  Attributes:
    parent: `i32[n]`, -1 at the top level.
    child_offsets: `i32[n + 2]`; the children of node i are [child_offsets[i + 1], child_offsets[i + 2]); root: -1.
    leaves: `i32[m]`, the nodes without children, in rising order.
    inner: `i32[i]`, the nodes with children, in rising order.
    may_end: `bool[n]`, where a path may end above the deepest level: at leaves, and with `short_labels = stop` at the
      nodes where training labels end, or at any node where these are not known.
    leaf_spans: `i32[n + 1, 2]`; with the leaves counted depth-first, those below node i are [first, end) of row i + 1,
      of ROOT row 0. A leaf's own number is its `first`.
    level_offsets: static; the nodes of level t are [level_offsets[t], level_offsets[t + 1]).
    inner_offsets: static; the inner nodes of level t are `inner[inner_offsets[t] : inner_offsets[t + 1]]`.
    max_children: static; the largest fan-out, the root's included.
    stop_at: static; where a path may end. `bottom`: only on the deepest level, so that no STOP is needed; `leaf`: at
      any leaf; `node`: at any node of `may_end` (`short_labels = stop`).
  """

  parent: Leaf
  child_offsets: Leaf
  leaves: Leaf
  inner: Leaf
  may_end: Leaf
  leaf_spans: Leaf
  level_offsets: tuple[int, ...] = struct.field(pytree_node=False)
  inner_offsets: tuple[int, ...] = struct.field(pytree_node=False)
  max_children: int = struct.field(pytree_node=False)
  stop_at: str = struct.field(pytree_node=False)

  @property
  def num_nodes(self) -> int:
    """Nodes, the root not counted."""
    return self.level_offsets[-1]

  @property
  def num_leaves(self) -> int:
    """Nodes without children."""
    return self.num_nodes - self.inner_offsets[-1]

  @property
  def depth(self) -> int:
    """Levels, and the length of every path."""
    return len(self.level_offsets) - 1

  @property
  def block_sizes(self) -> tuple[int, ...]:
    """Entries of the distribution of each level: its nodes, and the leaves of all levels above."""
    return tuple(end - inner for end, inner in zip(self.level_offsets[1:], self.inner_offsets[:-1], strict=True))

  @property
  def has_stop(self) -> bool:
    """Whether a head with an output a node has one more, for STOP (READINGS G4); its number is `num_nodes`."""
    return self.stop_at != "bottom"

  @property
  def num_outputs(self) -> int:
    """Outputs of a head with one a node: n, and then STOP where paths may end above the deepest level."""
    return self.num_nodes + self.has_stop


def _leaf_spans(tree: LabelTree) -> NDArray[np.int32]:
  offsets = tree.child_offsets
  below = (np.diff(offsets) == 0).astype(np.int32)  # leaves below each node, the root first; a leaf counts itself
  for t in reversed(range(tree.depth)):
    block = slice(tree.level_offsets[t], tree.level_offsets[t + 1])
    np.add.at(below, tree.parent[block] + 1, below[1:][block])
  first = np.zeros_like(below)
  before = np.concatenate([[0], np.cumsum(below[1:])])  # leaves below all nodes of smaller number, level upon level
  for t in range(tree.depth):
    nodes = np.arange(tree.level_offsets[t], tree.level_offsets[t + 1])
    parents = tree.parent[nodes] + 1
    first[nodes + 1] = first[parents] + before[nodes] - before[offsets[parents]]
  return np.stack([first, first + below], axis=1).astype(np.int32)


def _may_end(tree: LabelTree, short_labels: ShortLabels) -> NDArray[np.bool_]:
  anywhere = short_labels == "stop" and tree.label_ends is None
  found = np.full(tree.num_nodes, anywhere)
  found[tree.leaves] = True
  if short_labels == "stop":
    found[list(tree.label_ends or ())] = True
  return found


def tree_arrays(tree: LabelTree, short_labels: ShortLabels = "unknown") -> TreeArrays:
  """Returns the arrays of `tree`, whose labels that end above a leaf are read as `short_labels` says (READINGS A2)."""
  if short_labels not in ("unknown", "stop"):
    raise ValueError(f"short_labels = {short_labels!r}: choose from unknown, stop")
  inner = np.flatnonzero(np.diff(tree.child_offsets)[1:]).astype(np.int32)
  return TreeArrays(
    parent=tree.parent,
    child_offsets=tree.child_offsets,
    leaves=tree.leaves,
    inner=inner,
    may_end=_may_end(tree, short_labels),
    leaf_spans=_leaf_spans(tree),
    level_offsets=tree.level_offsets,
    inner_offsets=tuple(np.searchsorted(inner, tree.level_offsets).tolist()),
    max_children=tree.max_children,
    stop_at="node" if short_labels == "stop" else "bottom" if tree.uniform else "leaf",
  )
