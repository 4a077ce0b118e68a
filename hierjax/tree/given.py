"""Probabilities and nodes that people bring, checked, in the order of a tree's nodes; numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierjax.errors import UserError, few
from hierjax.tree.label_finder import LabelFinder, split_path
from hierjax.tree.label_tree import PAD, ROOT, LabelTree

ROUNDING = 1e-3  # how far the probabilities of an image may sum from 1


class RowError(UserError):
  """What is given for one image is wrong.

  Attributes:
    row: the number of the image.
    reason: what is wrong.
  """

  def __init__(self, row: int, reason: str):
    super().__init__(f"image {row}: {reason}")
    self.row, self.reason = row, reason


def leaf_probabilities(probs: ArrayLike, tree: LabelTree, names: Sequence[str] | None = None) -> NDArray[np.float32]:
  """Returns the probabilities of all nodes, `f32[n nodes]`, from those of the leaves.

  Args:
    probs: `f[n leaves]`, each row with the sum 1.
    tree: the tree.
    names: the leaf of each column, as `nodes_named` reads names; None for the order of `tree.leaves`.

  Raises:
    UserError: the shape is another, a number is not finite or negative, a row does not sum to 1, or a name is wrong.
  """
  order = _order(names, tree.leaves, tree, "leaf")
  found = _checked(probs, len(tree.leaves), "leaves")
  _check_sums(found.sum(axis=1, dtype=np.float64), "the probabilities of the leaves")
  result = np.zeros((len(found), tree.num_nodes), np.float32)
  result[:, span(tree.leaves[order])] = found
  for first, last in reversed(list(zip(tree.level_offsets[1:-1], tree.level_offsets[2:], strict=True))):
    above, starts = np.unique(tree.parent[first:last], return_index=True)  # children are ranges
    result[:, span(above)] += np.add.reduceat(result[:, first:last], starts, axis=1)
  return result


def span(numbers: NDArray[np.integer[Any]]) -> slice | NDArray[np.integer[Any]]:
  """Returns numbers as a slice where they rise by 1, as columns are then taken without a copy."""
  rising = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
  return slice(int(numbers[0]), int(numbers[-1]) + 1) if rising else numbers


def node_probabilities(
  probs: ArrayLike, tree: LabelTree, names: Sequence[str] | None = None, several: bool = False
) -> NDArray[np.float32]:
  """Returns the probabilities of all nodes, `f32[n nodes]`, in the order of the tree.

  Args:
    probs: `f[n nodes]`. The top level sums to 1, and the children of a node to at most its own probability, so that
      paths may end at inner nodes; with `several` each number is from 0 to 1 by itself.
    tree: the tree.
    names: the node of each column, as `nodes_named` reads names; None for the order of the tree, breadth-first.
    several: whether an image may have several label paths.

  Raises:
    UserError: the shape is another, a number is not finite or negative, sums are wrong, or a name is.
  """
  order = _order(names, np.arange(tree.num_nodes), tree, "node")
  found = np.empty((len(np.atleast_1d(probs)), tree.num_nodes), np.float32)
  found[:, span(order)] = _checked(probs, tree.num_nodes, "nodes")
  if several:
    if (found > 1 + ROUNDING).any():
      row, node = np.argwhere(found > 1 + ROUNDING)[0].tolist()
      raise RowError(row, f"the probability of {tree.path_text(node)!r} is {found[row, node]:.6g}, more than 1")
    return np.minimum(found, 1)
  _check_sums(found[:, : tree.level_offsets[1]].sum(axis=1, dtype=np.float64), "the probabilities of the top level")
  _check_children(found, tree)
  return found


def _check_children(found: NDArray[np.float32], tree: LabelTree) -> None:
  """Raises UserError where the children of a node have more than it."""
  for first, last in zip(tree.level_offsets[1:-1], tree.level_offsets[2:], strict=True):
    above, starts = np.unique(tree.parent[first:last], return_index=True)
    sums = np.add.reduceat(found[:, first:last], starts, axis=1)
    wrong = sums > found[:, above] + ROUNDING
    if wrong.any():
      row, column = np.argwhere(wrong)[0].tolist()
      raise RowError(
        row,
        f"the children of {tree.path_text(above[column])!r} have {sums[row, column]:.6g} together, and it "
        f"has {found[row, above[column]]:.6g}; a node is at least as probable as its children together. For a sigmoid "
        "a node give several=True; for a softmax a level give the leaves' probabilities, or the predicted nodes",
      )


def _checked(probs: ArrayLike, columns: int, of: str) -> NDArray[np.float32]:
  try:
    found = np.asarray(probs, np.float32)
  except (TypeError, ValueError):
    raise UserError(f"probabilities: must be an array of numbers, images x {of}") from None
  if found.ndim != 2 or found.shape[1] != columns:
    raise UserError(
      f"probabilities of shape {found.shape}: must be (images, {columns}), as the tree has {columns} {of}"
    )
  if found.size and not (np.min(found) >= 0 and np.max(found) < np.inf):
    row, column = np.argwhere(~np.isfinite(found) | (found < 0))[0].tolist()
    what = f"is {found[row, column]:g}; probabilities are 0 or more, and finite: take the softmax of logits first"
    raise RowError(row, f"the probability in column {column} {what}")
  return found


def _check_sums(sums: NDArray[np.float64], what: str) -> None:
  wrong = np.flatnonzero(np.abs(sums - 1) > ROUNDING)
  if len(wrong):
    more = f" ({len(wrong) - 1:,} more images are like it)" if len(wrong) > 1 else ""
    raise RowError(int(wrong[0]), f"{what} sum to {sums[wrong[0]]:.6g}, not to 1{more}")


def _order(
  names: Sequence[str] | None, nodes: NDArray[np.integer[Any]], tree: LabelTree, kind: str
) -> NDArray[np.intp]:
  """Returns the number among `nodes` of the node of each column."""
  if names is None:
    return np.arange(len(nodes))
  found = nodes_named(names, tree)
  other = np.flatnonzero(~np.isin(found, nodes))
  if len(other):
    raise UserError(f"column {names[other[0]]!r} is no {kind} of {tree.root_name!r}")
  first = np.unique(found, return_index=True)[1]
  if len(first) < len(found):
    again = names[np.setdiff1d(np.arange(len(found)), first)[0]]
    raise UserError(f"column {again!r}: the {kind} has a column already")
  missing = np.setdiff1d(nodes, found)
  if len(missing):
    shown = few([tree.path_text(node) for node in missing], 3)
    raise UserError(f"{len(missing):,} of {len(nodes):,} have no column: {shown}")
  return np.searchsorted(nodes, found)


def nodes_named(names: Iterable[str | None], tree: LabelTree) -> NDArray[np.int32]:
  """Returns the node of each name: an id, a path `animal/dog`, or a name that one node has; ROOT for None and ''.

  Raises:
    UserError: the tree has no such node, or several.
  """
  finder, found = LabelFinder(tree), []
  known: dict[str, int] = {}
  for name in names:
    if not name:
      found.append(ROOT)
      continue
    if name not in known:
      known[name] = node_named(name, finder)
    found.append(known[name])
  return np.asarray(found, np.int32)


def node_named(name: str, finder: LabelFinder) -> int:
  """Returns the node of an id, of a path such as `animal/dog`, or of a name that one node has.

  Raises:
    UserError: the tree has no such node, or several.
  """
  try:
    return finder.class_node(name) if finder.knows(name) else finder.node(split_path(name))
  except (KeyError, IndexError) as error:
    raise UserError(str(error.args[0])) from None


def given_nodes(nodes: Any, tree: LabelTree) -> NDArray[np.int32]:
  """Returns nodes given by number or by name, `i32[n]`; ROOT for none: -1, None or ''.

  Raises:
    UserError: they are neither, or the tree has no such node.
  """
  values = [nodes] if isinstance(nodes, str) or not np.iterable(nodes) else list(nodes)
  if isinstance(nodes, str) or any(np.iterable(value) and not isinstance(value, str) for value in values):
    raise UserError("nodes: must be a list of one node an image, by number or by name")
  if all(value is None or isinstance(value, str) for value in values):
    return nodes_named(values, tree)
  array = np.asarray([ROOT if value is None else value for value in values])
  if array.dtype.kind not in "iu":
    raise UserError("nodes: must be numbers of nodes, or names, or paths such as 'animal/dog'")
  wrong = np.flatnonzero((array < ROOT) | (array >= tree.num_nodes))
  if len(wrong):
    raise RowError(int(wrong[0]), f"node {array[wrong[0]]}; the tree has nodes 0 to {tree.num_nodes - 1}, -1 for none")
  return array.astype(np.int32)


def paths_of(nodes: ArrayLike, tree: LabelTree) -> NDArray[np.int32]:
  """Returns the path down to each node, `i32[n l]`, PAD after it; all PAD for ROOT."""
  paths = tree.encode(np.asarray(nodes), "stop")
  return np.where(paths >= 0, paths, PAD).astype(np.int32)


def level_argmaxes(node_prob: NDArray[np.float32], tree: LabelTree) -> NDArray[np.int32]:
  """Returns the most probable node of each level, `i32[n l]`; PAD where a leaf above has more than any of them."""
  found, early = [], np.zeros(len(node_prob), np.float32)
  is_leaf = np.diff(tree.child_offsets)[1:] == 0
  for first, last in zip(tree.level_offsets[:-1], tree.level_offsets[1:], strict=True):
    block = node_prob[:, first:last]
    found.append(np.where(block.max(axis=1) >= early, first + block.argmax(axis=1), PAD))
    early = np.maximum(early, block[:, is_leaf[first:last]].max(axis=1, initial=0))
  return np.stack(found, axis=1).astype(np.int32)


def likely_ends(node_prob: NDArray[np.float32], tree: LabelTree) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
  """Returns the node at which the path ends most probably, and the probability that it ends there.

  That is a node's own probability less that of its children together; at inner nodes rounding does not count.
  """
  left = node_prob.copy()
  for first, last in zip(tree.level_offsets[1:-1], tree.level_offsets[2:], strict=True):
    above, starts = np.unique(tree.parent[first:last], return_index=True)
    left[:, above] -= np.add.reduceat(node_prob[:, first:last], starts, axis=1)
  inner = np.diff(tree.child_offsets)[1:] > 0
  left[:, inner] = np.where(left[:, inner] > ROUNDING, left[:, inner], 0)
  ends = left.argmax(axis=1)
  return ends.astype(np.int32), left[np.arange(len(ends)), ends]
