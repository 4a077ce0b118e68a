"""Label trees from folders, CSV files, nested JSON, or plain Python paths.

Siblings keep the order of the file; folders are sorted. The root of a tree of folders is the folder that holds them.
Elsewhere a sole top that has children is the root; otherwise a root is made (READINGS A1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hierjax.tree.checks.findings import FaultyTree, errors_of
from hierjax.tree.checks.laws import check
from hierjax.tree.draft import Draft, Structure
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.readers.folders import read_folder
from hierjax.tree.readers.nested_json import read_nested
from hierjax.tree.readers.tables import read_edges, read_levels, read_rows, read_text


def build(draft: Draft) -> LabelTree:
  """Returns the breadth-first tree of a draft; the one way that a read tree is made.

  Raises:
    FaultyTree: the draft has errors; all of them are listed.
  """
  shape = Structure(draft)
  errors = errors_of(check(draft, shape))
  if errors:
    raise FaultyTree(errors)
  ids = draft.ids
  return LabelTree.from_children(
    names=[draft.names[i] for i in shape.order],
    num_children=[len(shape.below(i)) for i in (shape.root, *shape.order)],
    root_name=draft.name_of(shape.root),
    ids=None if ids is None else [ids[i] for i in shape.order],
  ).with_level_names(draft.level_names[(shape.root != ROOT) :])


def from_folder(root: str | Path) -> LabelTree:
  """Builds a tree from nested folders.

  Args:
    root: the folder whose sub-folders are the top level. Files do not matter here, and hidden folders are passed over.

  Raises:
    TreeError: `root` is no folder, or what is below it is no tree; a `FaultyTree` lists every error.
  """
  return build(read_folder(root))


def from_levels(path: str | Path) -> LabelTree:
  """Builds a tree from a CSV file with a column a level, the top level first; blank cells end a path early.

  The first row is a header, unless one of its cells comes again below it in the same column.

  Raises:
    TreeError: the file is not CSV in UTF-8, or holds no tree; a `FaultyTree` lists every error.
  """
  return build(read_levels(read_rows(path), str(path)))


def from_edges(path: str | Path) -> LabelTree:
  """Builds a tree from a CSV file with an edge a row, `parent,child` or `parent,child,name`; a header is optional.

  With two columns the cells are names. With three, the first two are ids, which the tree keeps, and the third is the
  child's name. A blank parent marks a top.

  Raises:
    TreeError: the file is not CSV in UTF-8, or holds no tree; a `FaultyTree` lists every error.
  """
  return build(read_edges(read_rows(path), str(path)))


def from_nested(path: str | Path) -> LabelTree:
  """Builds a tree from a JSON file: `{name: {...}}`, `{name: [leaves]}` or `{"name": ..., "children": [...]}`.

  Raises:
    TreeError: the file is not such JSON in UTF-8, or holds no tree; a `FaultyTree` lists every error.
  """
  return build(read_nested(read_text(path), str(path)))


def from_paths(paths: Iterable[Sequence[str]]) -> LabelTree:
  """Builds a tree from label paths, `[("animal", "dog"), ("thing", "cup")]`; a path may come many times.

  Raises:
    TreeError: a name is blank, or there are no paths.
  """
  draft = Draft("paths")
  node_of: dict[tuple[int, str], int] = {}
  for path in paths:
    node = ROOT
    for name in path:
      key = (node, name)
      if key not in node_of:
        node_of[key] = draft.add(node, name)
      node = node_of[key]
  return build(draft)
