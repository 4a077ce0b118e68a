"""What the entries of a head's weights stand for: by this a run that extends another finds those that it carries over.

An axis over the tree is a tuple with the meaning of each entry: a node by its number, STOP, ROOT for START, or a level
as text. An axis over anything else is None. Weights without an axis over the tree are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import STOP

Axis = tuple[int | str, ...] | None
WeightAxes = Mapping[str, tuple[Axis, ...]]


def dense_axes(layer: str, outputs: Sequence[int | str], inputs: Axis = None) -> dict[str, tuple[Axis, ...]]:
  """Returns the axes of kernel and bias of a layer with such outputs, of the features where `inputs` is None."""
  return {f"{layer}/kernel": (inputs, tuple(outputs)), f"{layer}/bias": (tuple(outputs),)}


def node_outputs(tree: TreeArrays) -> tuple[int, ...]:
  """Returns the meaning of each output of a head that has one a node, and STOP's where the tree needs it."""
  return (*range(tree.num_nodes), *((STOP,) if tree.has_stop else ()))


def level_outputs(tree: TreeArrays) -> tuple[str, ...]:
  """Returns the meaning of each entry of an axis over the levels."""
  return tuple(f"level {t + 1}" for t in range(tree.depth))
