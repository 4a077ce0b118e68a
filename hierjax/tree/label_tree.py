"""A tree of labels as a few numpy arrays, with the definitions of its tokens, levels and path lengths.

Nodes are numbered breadth-first from 0; the root is not a node (READINGS A1). So the nodes of a level are one block of
numbers, the children of a node are one range, and cutting a tree at a level keeps a prefix of the numbers.

A label path is one node a level, the top level first, `i32[l]` with l = `tree.depth`. All other entries are tokens:
PAD after the end of a path, STOP right after the last node of a path that ends above the deepest level, UNKNOWN where a
label exists but is not known (READINGS A2). ROOT is the parent of the top level, and the first input of a decoder.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierjax.errors import UserError
from hierjax.tree.strings import Strings as Strings

ROOT = -1
PAD = -2
STOP = -3
UNKNOWN = -4

Node = int | np.integer
ShortLabels = Literal["unknown", "stop"]
_FORMAT = "hierjax tree 1"


class TreeError(UserError):
  """A tree, or a file of one, is invalid; the message gives the place and the allowed forms."""


def _frozen(values: ArrayLike) -> NDArray[np.int32]:
  array = np.ascontiguousarray(values, dtype=np.int32)
  array.flags.writeable = False
  return array


@dataclasses.dataclass(frozen=True, eq=False)
class LabelTree:
  """An immutable tree of labels, breadth-first.

  Make one with the functions of `hierjax.tree.builders` or `hierjax.tree.catalog`, or with `LabelTree.load`.

  Attributes:
    names: the name of each node; siblings differ.
    child_offsets: `i32[n + 2]`; the children of node i are `range(child_offsets[i + 1], child_offsets[i + 2])`, and
      those of ROOT, which is -1, `range(child_offsets[0], child_offsets[1])`.
    root_name: the name of the root, which stands for the whole tree.
    ids: an outside identifier of each node, such as a WordNet id, or None. Class names of data sets are looked up here
      too.
    level_names: the names of the levels, such as `order`, `family`, `species`, for tables and pages; () where they have
      none. They are no part of the checksum.
    label_ends: the nodes at which training labels end, where `short_labels = stop`; None where that is not known, and
      paths may end at any node. They are no part of the checksum.
  """

  names: Strings
  child_offsets: NDArray[np.int32]
  root_name: str = "root"
  ids: Strings | None = None
  level_names: tuple[str, ...] = ()
  label_ends: tuple[int, ...] | None = None

  @classmethod
  def from_children(
    cls, names: Sequence[str], num_children: ArrayLike, root_name: str = "root", ids: Sequence[str] | None = None
  ) -> LabelTree:
    """Builds a tree from breadth-first arrays.

    Args:
      names: n names, breadth-first, without the root's.
      num_children: `i32[n + 1]`, how many children the root and then each node has.
      root_name: the name of the root.
      ids: n outside identifiers, or None.

    Raises:
      TreeError: the arrays are not those of one tree, a name is blank, or two siblings share a name.
    """
    counts = np.asarray(num_children, dtype=np.int64).reshape(-1)
    n = len(names)
    if n == 0:
      raise TreeError("a label tree needs at least one node below its root")
    if len(counts) != n + 1 or (counts < 0).any() or counts.sum() != n:
      raise TreeError(f"num_children must hold {n + 1} counts (the root's first) whose sum is {n}, the number of nodes")
    if ids is not None and len(ids) != n:
      raise TreeError(f"{len(ids)} ids for {n} nodes")
    tree = cls(
      names=names if isinstance(names, Strings) else Strings(names),
      child_offsets=_frozen(np.concatenate([[0], np.cumsum(counts)])),
      root_name=root_name,
      ids=ids if ids is None or isinstance(ids, Strings) else Strings(ids),
    )
    late = np.flatnonzero(tree.parent >= np.arange(n))
    if len(late):
      raise TreeError(f"node {late[0]} ({tree.names[late[0]]!r}) comes before its parent: nodes must be breadth-first")
    tree._check_names()
    return tree

  def with_level_names(self, names: Sequence[str]) -> LabelTree:
    """Returns the tree with names of its levels, the top level's first; those of further levels are dropped."""
    return dataclasses.replace(self, level_names=tuple(names[: self.depth]))

  def with_label_ends(self, nodes: ArrayLike) -> LabelTree:
    """Returns the tree with the end nodes of training labels, in any order and number; negative ones are left out."""
    ends = np.unique(np.asarray(nodes, np.int64))
    if len(ends) and ends[-1] >= self.num_nodes:
      raise TreeError(f"a label ends at node {ends[-1]}; the tree has nodes 0 to {self.num_nodes - 1}")
    return dataclasses.replace(self, label_ends=tuple(ends[ends >= 0].tolist()))

  def _check_names(self) -> None:
    names = list(self.names)
    blank = next((i for i, name in enumerate(names) if not name.strip()), None)
    if blank is not None:
      above = int(self.parent[blank])
      raise TreeError(f"a child of {self.path_text(above) or self.root_name!r} has a blank name")
    for parent in (np.flatnonzero(np.diff(self.child_offsets) > 1) - 1).tolist():
      children = self.children(parent)
      siblings = names[children.start : children.stop]
      if len(set(siblings)) != len(siblings):
        twice = next(name for name in siblings if siblings.count(name) > 1)
        raise TreeError(f"two children of {self.path_text(parent) or self.root_name!r} are named {twice!r}")

  # Sizes.

  @property
  def num_nodes(self) -> int:
    """Nodes, the root not counted."""
    return len(self.names)

  @functools.cached_property
  def level_offsets(self) -> tuple[int, ...]:
    """`depth + 1` numbers: the nodes of level t are `range(level_offsets[t], level_offsets[t + 1])`."""
    offsets = [0, int(self.child_offsets[1])]
    while offsets[-1] < self.num_nodes:
      offsets.append(int(self.child_offsets[offsets[-1] + 1]))
    return tuple(offsets)

  @property
  def depth(self) -> int:
    """Levels, and the length of every path array."""
    return len(self.level_offsets) - 1

  @functools.cached_property
  def max_children(self) -> int:
    """The largest fan-out, the root's included."""
    return int(np.diff(self.child_offsets).max())

  # One number a node.

  @functools.cached_property
  def parent(self) -> NDArray[np.int32]:
    """`i32[n]`, the parent of each node, ROOT at the top level."""
    return _frozen(np.repeat(np.arange(-1, self.num_nodes), np.diff(self.child_offsets)))

  @functools.cached_property
  def level(self) -> NDArray[np.int32]:
    """`i32[n]`, the level of each node: 0 at the top."""
    return _frozen(np.repeat(np.arange(self.depth), np.diff(self.level_offsets)))

  @functools.cached_property
  def leaves(self) -> NDArray[np.int32]:
    """`i32[...]`, the nodes without children, in rising order."""
    return _frozen(np.flatnonzero(np.diff(self.child_offsets)[1:] == 0))

  @property
  def uniform(self) -> bool:
    """Whether every leaf is on the deepest level."""
    return int(self.leaves[0]) >= self.level_offsets[-2]

  def children(self, node: Node) -> range:
    """Returns the children of `node`, or of ROOT."""
    return range(int(self.child_offsets[node + 1]), int(self.child_offsets[node + 2]))

  def is_leaf(self, node: Node) -> bool:
    """Returns whether `node` has no children."""
    return len(self.children(node)) == 0

  # Paths.

  def path(self, node: Node) -> tuple[int, ...]:
    """Returns the nodes from the top level down to `node`; () for ROOT."""
    nodes = []
    while node != ROOT:
      nodes.append(int(node))
      node = self.parent[node]
    return tuple(reversed(nodes))

  def encode(self, nodes: ArrayLike | int, short_labels: ShortLabels = "unknown") -> NDArray[np.int32]:
    """Returns the label path of each of `nodes` (READINGS A2).

    Args:
      nodes: `i32[...]`, the node each label ends at. ROOT means that nothing is known, PAD that there is no path.
      short_labels: the meaning of a label that ends above a leaf: `unknown`, the rest exists but is not known; `stop`,
        the path truly ends there.

    Returns:
      `i32[... depth]`.
    """
    if short_labels not in ("unknown", "stop"):
      raise ValueError(f"short_labels = {short_labels!r}: choose from unknown, stop")
    nodes = np.asarray(nodes, dtype=np.int32)
    real = nodes >= 0
    safe = np.where(real, nodes, 0)
    ended = np.where(real, np.diff(self.child_offsets)[1:][safe] == 0, False) | (real & (short_labels == "stop"))
    lengths = np.where(real, self.level[safe] + 1, 0)
    steps = np.arange(self.depth)
    after = np.where(ended[..., None], np.where(steps == lengths[..., None], STOP, PAD), UNKNOWN)
    paths = np.where((nodes == PAD)[..., None], PAD, after).astype(np.int32)
    current = nodes.copy()
    for t in reversed(range(self.depth)):
      here = (current >= 0) & (np.where(current >= 0, self.level[np.maximum(current, 0)], -1) == t)
      paths[..., t] = np.where(here, current, paths[..., t])
      current = np.where(here, self.parent[np.maximum(current, 0)], current)
    return paths

  def ends(self, paths: ArrayLike) -> NDArray[np.int32]:
    """Returns the last node of each path `i32[... l]`; ROOT where a path has none."""
    paths = np.asarray(paths)
    steps = np.where(paths >= 0, np.arange(paths.shape[-1]), -1).max(axis=-1)
    last = np.take_along_axis(paths, np.maximum(steps, 0)[..., None], axis=-1)[..., 0]
    return np.where(steps >= 0, last, ROOT).astype(np.int32)

  def is_path(self, path: ArrayLike) -> bool:
    """Returns whether the nodes of `path`, up to the first token, are a walk down from the top level."""
    parent = ROOT
    for node in np.asarray(path).tolist():
      if node < 0:
        break
      if node not in self.children(parent):
        return False
      parent = node
    return parent != ROOT

  def truncated(self, levels: int) -> LabelTree:
    """Returns the tree of the top `levels` levels; its nodes keep their numbers."""
    if not 1 <= levels <= self.depth:
      raise TreeError(f"levels = {levels}: this tree has levels 1 to {self.depth}")
    n = self.level_offsets[levels]
    counts = np.diff(self.child_offsets)[: n + 1].copy()
    counts[self.level_offsets[levels - 1] + 1 :] = 0
    tree = LabelTree.from_children(self.names[:n], counts, self.root_name, self.ids and self.ids[:n])
    return tree.with_level_names(self.level_names)

  # Names.

  def level_name(self, level: int) -> str:
    """Returns the name of a level, from 0 at the top, such as `family`; `level 1` for the top level without a name."""
    return self.level_names[level] if level < len(self.level_names) else f"level {level + 1}"

  @property
  def named_levels(self) -> tuple[str, ...]:
    """The name of every level, the top level's first."""
    return tuple(map(self.level_name, range(self.depth)))

  @functools.cached_property
  def _named(self) -> dict[int, dict[str, int]]:
    """The children by name of the nodes that `find` has come through; all at once would be larger than the tree."""
    return {}

  def find(self, path: Sequence[str]) -> int:
    """Returns the node at the end of a path of names.

    Raises:
      KeyError: there is no such path; the message gives the part that exists and the names that can follow it.
    """
    node = ROOT
    for depth, name in enumerate(path):
      if node not in self._named:
        self._named[node] = {self.names[i]: i for i in self.children(node)}
      child = self._named[node].get(name)
      if child is None:
        allowed = [self.names[i] for i in self.children(node)]
        shown = ", ".join(allowed[:20]) + (f", ... ({len(allowed)} in all)" if len(allowed) > 20 else "")
        where = f"not below {'/'.join(path[:depth])!r}" if depth else "no top-level label"
        raise KeyError(f"{name!r} is {where}; there are: {shown or 'none, it is a leaf'}")
      node = child
    return node

  def path_names(self, node: Node) -> tuple[str, ...]:
    """Returns the names from the top level down to `node`."""
    return tuple(self.names[i] for i in self.path(node))

  def path_text(self, node: Node) -> str:
    r"""Returns a path as text, `animal/dog/basenji`; a slash or backslash in a name is written `\/` or `\\`."""
    return self.nodes_text(self.path(node))

  def nodes_text(self, nodes: Iterable[Node]) -> str:
    """Returns nodes as text, as `path_text` writes a path; they need not be one."""
    return "/".join(self.names[i].replace("\\", "\\\\").replace("/", "\\/") for i in nodes)

  def _repr_html_(self) -> str:
    """Returns what a notebook shows."""
    from hierjax.tree.render import to_html  # imports this module

    return to_html(self)

  # Files.

  @functools.cached_property
  def checksum(self) -> str:
    """SHA-256 of the names, ids and structure, as 64 hexadecimal digits: equal trees have equal checksums."""
    digest = hashlib.sha256(_FORMAT.encode())
    for strings in ([self.root_name], self.names, self.ids or []):
      for text in strings:
        encoded = text.encode("utf-8")
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
      digest.update(b"\xff")
    digest.update(self.child_offsets.astype("<i4").tobytes())
    return digest.hexdigest()

  def to_json(self) -> str:
    """Returns the tree as JSON text, its checksum within."""
    return json.dumps(
      {
        "format": _FORMAT,
        "sha256": self.checksum,
        "root": self.root_name,
        "num_children": np.diff(self.child_offsets).tolist(),
        "names": list(self.names),
        "ids": None if self.ids is None else list(self.ids),
        "level_names": list(self.level_names),
        "label_ends": self.label_ends,
      },
      ensure_ascii=False,
    )

  @classmethod
  def from_json(cls, text: str, source: str = "tree") -> LabelTree:
    """Reads the result of `to_json`.

    Args:
      text: the JSON.
      source: its name in errors, such as that of a file.

    Raises:
      TreeError: the text is not a saved tree, or was changed since.
    """
    try:
      saved = json.loads(text)
    except json.JSONDecodeError as error:
      raise TreeError(f"{source}:{error.lineno}: not JSON ({error.msg})") from None
    except (RecursionError, ValueError):
      raise TreeError(f"{source}: not a tree that hierjax saved (brackets or digits without end)") from None
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
      raise TreeError(f'{source}: not a tree that hierjax saved (its "format" must be {_FORMAT!r})')
    wanted = {"num_children": int, "names": str, "ids": str, "level_names": str, "label_ends": int}
    for key, kind in wanted.items():
      values = saved.get(key)
      if key in ("ids", "level_names", "label_ends") and values is None:
        continue
      if not isinstance(values, list) or not all(type(v) is kind for v in values):
        raise TreeError(f"{source}: {key!r} must be a list of {kind.__name__}")
    if not isinstance(saved.get("root"), str):
      raise TreeError(f"{source}: 'root' must be a string")
    try:
      tree = cls.from_children(saved["names"], saved["num_children"], saved["root"], saved.get("ids"))
      tree = tree.with_level_names(saved.get("level_names") or ())
      tree = tree if saved.get("label_ends") is None else tree.with_label_ends(saved["label_ends"])
      checksum = tree.checksum
    except (TreeError, OverflowError, UnicodeEncodeError) as error:
      raise TreeError(f"{source}: {error}") from None
    if saved.get("sha256") != checksum:
      raise TreeError(f"{source}: the checksum does not match: the file was changed or damaged after it was saved")
    return tree

  @classmethod
  def load(cls, path: str | Path) -> LabelTree:
    """Reads a file with the result of `to_json`; raises TreeError as `from_json` does."""
    try:
      text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
      raise TreeError(f"{path}: not a tree that hierjax saved ({error})") from None
    return cls.from_json(text, source=str(path))

  @property
  def nbytes(self) -> int:
    """Bytes of memory of the tree, without the arrays that are derived on demand."""
    return self.names.nbytes + self.child_offsets.nbytes + (self.ids.nbytes if self.ids else 0)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, LabelTree) and self.checksum == other.checksum

  def __hash__(self) -> int:
    return hash(self.checksum)

  def __repr__(self) -> str:
    return f"LabelTree({self.root_name!r}: {self.num_nodes} nodes, {len(self.leaves)} leaves, {self.depth} levels)"
