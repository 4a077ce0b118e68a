"""Drafts of label trees: nodes in the order of a file, with their lines and faults."""

from __future__ import annotations

import unicodedata
from collections import defaultdict

from hierjax.tree.checks.findings import Finding
from hierjax.tree.label_tree import ROOT, LabelTree

# Path arrays are as long as the tree is deep, so a chain of a million nodes must not become one. WordNet needs 20.
MAX_DEPTH = 100


class Draft:
  """Nodes in file order, which is the order that siblings keep.

  A node is a number from 0 here too, but in file order, and its parent may have a higher number.
  """

  def __init__(self, file: str, root_given: bool = False):
    """Starts an empty tree.

    Args:
      file: the name of the file or folder in findings.
      root_given: whether the tops have a known root. Otherwise a sole top that has children is the root itself, and
        several tops get one (READINGS A1).
    """
    self.file = file
    self.root_given = root_given
    self.root_name = "root"
    self.level_names: tuple[str, ...] = ()
    self.names: list[str] = []
    self.ids: list[str] | None = None
    self.parents: list[int] = []
    self.lines: list[int | None] = []
    self.findings: list[Finding] = []

  @classmethod
  def of_tree(cls, tree: LabelTree, file: str) -> Draft:
    """Returns the draft of an existing tree, for the linter."""
    draft = cls(file, root_given=True)
    draft.root_name = tree.root_name
    draft.level_names = tree.level_names
    draft.names = list(tree.names)
    draft.ids = None if tree.ids is None else list(tree.ids)
    draft.parents = tree.parent.tolist()
    draft.lines = [None] * tree.num_nodes
    return draft

  def add(self, parent: int, name: str, line: int | None = None) -> int:
    """Adds a node below `parent` (ROOT for a top), its name in the Unicode form NFC, and returns its number."""
    self.names.append(unicodedata.normalize("NFC", name))
    self.parents.append(parent)
    self.lines.append(line)
    return len(self.names) - 1

  def report(self, kind: str, line: int | None, node: str, message: str) -> None:
    """Adds an error to the findings."""
    self.findings.append(Finding("error", kind, self.file, line, node, message))

  def warn(self, kind: str, line: int | None, node: str, message: str) -> None:
    """Adds a warning to the findings."""
    self.findings.append(Finding("warning", kind, self.file, line, node, message))

  def name_of(self, node: int) -> str:
    """Returns the name of a node, or of ROOT."""
    return self.root_name if node == ROOT else self.names[node]

  def text_of(self, node: int) -> str:
    """Returns the name of a node and, where it has one, its id."""
    return self.name_of(node) if self.ids is None or node == ROOT else f"{self.names[node]} [{self.ids[node]}]"

  def line_of(self, node: int) -> int | None:
    """Returns the line a node came from; None for ROOT."""
    return None if node == ROOT else self.lines[node]


class Structure:
  """The parents and children of a draft.

  Attributes:
    children: the children of each node that has some, in file order; ROOT's are the tops.
    root: the node that is the root, or ROOT where the root is none of the nodes.
    order: the nodes below the root, breadth-first; those that a cycle keeps from it are missing.
    depth: the number of levels below the root.
  """

  def __init__(self, draft: Draft):
    children: dict[int, list[int]] = defaultdict(list)
    for node, parent in enumerate(draft.parents):
      children[parent].append(node)
    self.children = dict(children)
    tops = self.below(ROOT)
    sole_root = len(tops) == 1 and tops[0] in self.children and not draft.root_given
    self.root = tops[0] if sole_root else ROOT
    self.order: list[int] = []
    self.depth = 0
    level = self.below(self.root)
    while level:
      self.order += level
      self.depth += 1
      level = [child for node in level if node in self.children for child in self.children[node]]

  def below(self, node: int) -> list[int]:
    """Returns the children of a node."""
    return self.children.get(node, [])
