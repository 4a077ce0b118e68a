"""A label tree as text, and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hierjax.tree.checks.findings import printable
from hierjax.tree.label_tree import ROOT, LabelTree

_WHOLE = 200


def below(tree: LabelTree, at_node: NDArray[np.int64]) -> NDArray[np.int64]:
  """Returns the sum of `at_node`, `i64[n]`, over each node and all below it, `i64[n + 1]`: the last is the root's."""
  total = np.append(at_node, 0)
  for level in reversed(range(tree.depth)):
    block = slice(tree.level_offsets[level], tree.level_offsets[level + 1])
    np.add.at(total, tree.parent[block], total[block])  # ROOT is -1, the last
  return total


def fitting_depth(tree: LabelTree) -> int:
  """Returns the number of levels that `render` shows by default: as many as have 200 nodes together, at least one."""
  return max(1, sum(offset <= _WHOLE for offset in tree.level_offsets[1:]))


def render(
  tree: LabelTree, images: NDArray[np.int64] | None = None, depth: int | None = None, max_children: int = 20
) -> Iterator[str]:
  """Yields the lines of a drawing of the tree, with the number of leaves and images below each node.

  Args:
    tree: the tree.
    images: `i64[n]`, images whose label ends at each node, or None.
    depth: levels to show, or None for as many as fit on a few screens.
    max_children: children of a node to show; the rest is counted.
  """
  is_leaf = np.zeros(tree.num_nodes, np.int64)
  is_leaf[tree.leaves] = 1
  leaves = below(tree, is_leaf)
  totals = None if images is None else below(tree, images)
  depth = fitting_depth(tree) if depth is None else depth
  size = _size(tree)
  yield f"{_title(tree, ROOT, leaves, totals)}, {size}"

  # The lines left to draw, the next one last: a stack, since a tree may be deeper than Python's recursion limit.
  waiting = _children_lines(tree, ROOT, "", max_children)
  while waiting:
    node, prefix, last, hidden = waiting.pop()
    branch = prefix + ("└── " if last else "├── ")
    if hidden:
      yield f"{branch}... {hidden:,} more"
      continue
    yield branch + _title(tree, node, leaves, totals)
    if int(tree.level[node]) + 1 < depth:
      waiting += _children_lines(tree, node, prefix + ("    " if last else "│   "), max_children)


_Line = tuple[int, str, bool, int]  # node, prefix, whether it is the last child, number of children not shown


def _children_lines(tree: LabelTree, node: int, prefix: str, max_children: int) -> list[_Line]:
  children = tree.children(node)
  shown = children[:max_children]
  hidden = len(children) - len(shown)
  lines = [(child, prefix, child == children[-1], 0) for child in shown]
  if hidden:
    lines.append((ROOT, prefix, True, hidden))
  return lines[::-1]


def _title(tree: LabelTree, node: int, leaves: NDArray[np.int64], images: NDArray[np.int64] | None) -> str:
  name = tree.root_name if node == ROOT else tree.names[node]
  notes = []
  if node == ROOT or not tree.is_leaf(node):
    notes.append(counted(int(leaves[node]), "leaf", "leaves"))
  if images is not None:
    notes.append(counted(int(images[node]), "image", "images") + _ending_here(tree, node, images))
  known_as = f" [{printable(tree.ids[node])}]" if tree.ids is not None and node != ROOT else ""
  return f"{printable(name)}{known_as}" + (f"  {', '.join(notes)}" if notes else "")


def _ending_here(tree: LabelTree, node: int, images: NDArray[np.int64]) -> str:
  children = tree.children(node)
  own = int(images[node]) - int(images[children.start : children.stop].sum())
  return f" ({own:,} {'ends' if own == 1 else 'end'} here)" if own and len(children) else ""


def _size(tree: LabelTree) -> str:
  names = f" ({', '.join(map(printable, tree.level_names))})" if tree.level_names else ""
  return f"{counted(tree.num_nodes, 'node', 'nodes')}, {counted(tree.depth, 'level', 'levels')}{names}"


def to_html(tree: LabelTree) -> str:
  """Returns the first 200 nodes, breadth-first, as nested `<details>`; the children left out are counted."""
  size = _size(tree)
  title = f"{html.escape(printable(tree.root_name))} <small>{html.escape(size)}</small>"
  return f"<details open><summary>{title}</summary>{_html_children(tree, ROOT)}</details>"


def _html_children(tree: LabelTree, node: int) -> str:
  children = tree.children(node)
  shown = range(children.start, max(children.start, min(children.stop, _WHOLE)))
  hidden = len(children) - len(shown)
  items = [_html_node(tree, child) for child in shown] + [f"<li>... {hidden:,} more</li>"] * (hidden > 0)
  return f"<ul>{''.join(items)}</ul>"


def _html_node(tree: LabelTree, node: int) -> str:
  name = html.escape(printable(tree.names[node]))
  if tree.is_leaf(node):
    return f"<li>{name}</li>"
  return f"<li><details><summary>{name}</summary>{_html_children(tree, node)}</details></li>"


def counted(number: int, one: str, many: str) -> str:
  """Returns a number with its noun, in the singular for 1."""
  return f"{number:,} {one if number == 1 else many}"
