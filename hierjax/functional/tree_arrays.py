"""What a jitted function needs of a label tree, as arrays and static sizes."""

from __future__ import annotations

from flax import struct
from hierjax.tree.label_tree import LabelTree, ShortLabels
from hierjax.types import Leaf


@struct.dataclass
class TreeArrays:
  """The structure of a `LabelTree` as a pytree: an argument of jitted calls, never a field of a module.

  Attributes:
    parent: `i32[n]`, -1 at the top level.
    child_offsets: `i32[n + 2]`; the children of node i are [child_offsets[i + 1], child_offsets[i + 2]); root: -1.
    level_offsets: static; the nodes of level t are [level_offsets[t], level_offsets[t + 1]).
    max_children: static; the largest fan-out, the root's included.
    stop_at: static; where a path may end. `bottom`: only on the deepest level, so that no STOP is needed; `leaf`: at
      any leaf; `node`: at any node (`short_labels = stop`).
  """

  parent: Leaf
  child_offsets: Leaf
  level_offsets: tuple[int, ...] = struct.field(pytree_node=False)
  max_children: int = struct.field(pytree_node=False)
  stop_at: str = struct.field(pytree_node=False)

  @property
  def num_nodes(self) -> int:
    """Nodes, the root not counted."""
    return self.level_offsets[-1]

  @property
  def depth(self) -> int:
    """Levels, and the length of every path."""
    return len(self.level_offsets) - 1

  @property
  def num_outputs(self) -> int:
    """Outputs of a head with one a node: n, and then STOP where paths may end above the deepest level (READINGS G4)."""
    return self.num_nodes + (self.stop_at != "bottom")


def tree_arrays(tree: LabelTree, short_labels: ShortLabels = "unknown") -> TreeArrays:
  """Returns the arrays of `tree`, whose labels that end above a leaf are read as `short_labels` says (READINGS A2)."""
  stop_at = "node" if short_labels == "stop" else "bottom" if tree.uniform else "leaf"
  return TreeArrays(
    parent=tree.parent,
    child_offsets=tree.child_offsets,
    level_offsets=tree.level_offsets,
    max_children=tree.max_children,
    stop_at=stop_at,
  )
