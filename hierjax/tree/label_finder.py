"""Lookup of nodes by the names and ids that data sets use for their labels."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hierjax.errors import did_you_mean, few
from hierjax.tree.label_tree import LabelTree, TreeError

_MOST_COMPARED = 5000


def split_path(text: str) -> tuple[str, ...]:
  r"""Returns the names of a path written `animal/dog/basenji`, with `\/` and `\\` in names: undoes `path_text`."""
  return tuple(re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in re.findall(r"(?:[^/\\]|\\.|\\$)+", text))


class LabelFinder:
  """Lookup of the nodes of labels; made once for many labels."""

  def __init__(self, tree: LabelTree):
    self._tree = tree
    self._by_id = _positions(enumerate(tree.ids or []))
    self._by_leaf = _positions((int(leaf), tree.names[leaf]) for leaf in tree.leaves)
    self._by_name = _positions(enumerate(tree.names))
    self._hints: dict[str, str] = {}

  def knows(self, name: str) -> bool:
    """Returns whether a node has the id `name`, or a leaf has this name."""
    return name in self._by_id or name in self._by_leaf

  def class_node(self, name: str) -> int:
    """Returns the node whose id is `name`, or else the leaf of this name; raises KeyError."""
    nodes = self._by_id.get(name) or self._by_leaf.get(name) or []
    if len(nodes) == 1:
      return nodes[0]
    if not nodes:
      raise KeyError(f"{name!r} is neither an id nor a leaf of {self._tree.root_name!r}")
    places = few([self._tree.path_text(node) for node in nodes])
    raise KeyError(f"{name!r} names {len(nodes)} nodes: {places}")

  def node(self, label: Sequence[str]) -> int:
    """Returns the node of a label, in any Unicode form.

    Args:
      label: a path of names from the top level down, which may start with the root's name and may end above a leaf; or
        one string: an id, a name of the top level, or a name that only one node has.

    Raises:
      KeyError: the tree has no such node, or several.
    """
    composed = tuple(unicodedata.normalize("NFC", name) for name in label)
    if composed != tuple(label):
      with contextlib.suppress(KeyError):
        return self.node(composed)
    if len(label) == 1 and label[0] in self._by_id:
      return self.class_node(label[0])
    try:
      return self._tree.find(label)
    except KeyError as missing:
      if label[0] == self._tree.root_name:
        return self._tree.find(label[1:])
      nodes = self._by_name.get(label[0], []) if len(label) == 1 else []
      if len(nodes) == 1:
        return nodes[0]
      if len(nodes) > 1:
        places = few([self._tree.path_text(node) for node in nodes])
        raise KeyError(
          f"{missing.args[0]}; {label[0]!r} names {len(nodes)} nodes further down: {places}; give the whole path of one"
        ) from None
      raise KeyError(f"{missing.args[0]}{self._nearest(label[-1])}") from None

  def _nearest(self, name: str) -> str:
    """Returns the nearest name of the tree as a hint; "" where none is near, or the tree has very many names."""
    if name not in self._hints:
      self._hints[name] = did_you_mean(name, self._by_name) if len(self._by_name) <= _MOST_COMPARED else ""
    return self._hints[name]


def _positions(pairs: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
  found: dict[str, list[int]] = defaultdict(list)
  for node, text in pairs:
    found[text].append(node)
  return dict(found)


def class_nodes(tree: LabelTree, class_names: Sequence[str], absent: int | None = None) -> NDArray[np.int32]:
  """Returns the node of each class of a data set, `i32[len(class_names)]`.

  Args:
    tree: the tree, whose ids are looked up first, and then the names of its leaves.
    class_names: the data set's names of its classes, in the order of its label numbers.
    absent: the result for classes that are not in the tree; None where all classes must be in it.

  Raises:
    TreeError: some are not in the tree, or could be several nodes; a few are listed.
  """
  finder = LabelFinder(tree)
  nodes, faults = [], []
  for name in class_names:
    try:
      nodes.append(finder.class_node(name) if absent is None or finder.knows(name) else absent)
    except KeyError as error:
      faults.append(error.args[0])
  if faults:
    shown = few(faults, separator="; ")
    raise TreeError(f"{len(faults)} of {len(class_names)} classes cannot be found in {tree!r}: {shown}")
  return np.asarray(nodes, dtype=np.int32)
