"""CSV files of labels: the tree of their labels, and faults of their images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hierjax.tree.checks.findings import Finding
from hierjax.tree.draft import Draft
from hierjax.tree.label_finder import LabelFinder
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.readers.columns import names_an_image_column
from hierjax.tree.readers.folders import is_image_name
from hierjax.tree.readers.label_rows import LabelRow, LabelTable, read_label_table
from hierjax.tree.readers.tables import Row

_SHOWN = 5


def holds_labels(rows: Sequence[Row]) -> bool:
  """Returns whether a table is one of images and labels, not a tree: by its header or its first two rows."""
  return any(is_image_name(cell) for row in rows[:2] for cell in row.cells) or (
    bool(rows) and names_an_image_column(rows[0].cells)
  )


def read_labels(path: str | Path) -> Draft:
  """Reads the tree of the labels of a CSV file, see `read_label_table`."""
  return draft_of_labels(read_label_table(path), str(path))


def draft_of_labels(table: LabelTable, file: str) -> Draft:
  """Returns the tree of the labels of rows; rows with a fault are left out, or reported where there are no others.

  As in folders, the root is no node of it, also where all labels lie below one top.
  """
  draft = Draft(file, root_given=True)
  draft.level_names = table.columns.level_names
  node_of: dict[tuple[int, str], int] = {}
  faulty = []
  for row in table.rows:
    if row.fault:
      faulty.append(row)
      continue
    node = ROOT
    for name in row.label:
      if (node, name) not in node_of:
        node_of[node, name] = draft.add(node, name, row.line)
      node = node_of[node, name]
  for row in faulty if not draft.names else ():
    draft.report("row without a label", row.line, row.image, row.fault)
  return draft


def missing_images(rows: Iterable[LabelRow], root: str | Path) -> list[LabelRow]:
  """Returns the first row of each image that is no file below `root`."""
  first: dict[str, LabelRow] = {}
  for row in rows:
    if row.image:
      first.setdefault(row.image, row)
  return [row for row in first.values() if not (Path(root) / row.image).is_file()]


def named_with_lines(rows: Sequence[LabelRow]) -> str:
  """Returns the images of the first few rows, each with its line, and how many more there are."""
  shown = ", ".join(f"{row.image!r} (line {row.line})" for row in rows[:_SHOWN])
  return shown + (f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else "")


def check_images(rows: Sequence[LabelRow], root: str | Path, file: str) -> list[Finding]:
  """Returns an error that counts the images that are not below `root` and names a few; nothing where all are."""
  missing = missing_images(rows, root)
  if not missing:
    return []
  first, *others = missing
  more = (
    f", nor {'are' if len(others) > 1 else 'is'} {len(others):,} more: {named_with_lines(others)}" if others else ""
  )
  return [Finding("error", "missing image", file, first.line, first.image, f"is no file below {str(root)!r}{more}")]


def check_several(rows: Iterable[LabelRow], tree: LabelTree, file: str) -> list[Finding]:
  """Returns a warning that counts the images with several labels and names a few, with their lines."""
  finder = LabelFinder(tree)
  lines_of: dict[str, dict[int, int]] = {}
  for row in rows:
    try:
      node = ROOT if row.fault else finder.node(row.label)
    except KeyError:  # an error of its own
      continue
    if node != ROOT:
      lines_of.setdefault(os.path.normpath(row.image), {}).setdefault(node, row.line)
  several = [(image, lines) for image, found in lines_of.items() if len(lines := _without_upper(found, tree)) > 1]
  if not several:
    return []
  texts = []
  for image, lines in several[:_SHOWN]:
    labels = ", ".join(f"{tree.path_text(node)} (line {line})" for node, line in lines.items())
    texts.append(f"{image!r} has {len(lines)} labels: {labels}")
  more = f"; {len(several) - _SHOWN:,} more images have several" if len(several) > _SHOWN else ""
  first, lines = several[0]
  message = f"{'; '.join(texts).removeprefix(repr(first) + ' ')}{more}; heads that predict one path refuse them"
  return [Finding("warning", "several labels", file, max(lines.values()), first, message)]


def _without_upper(lines: dict[int, int], tree: LabelTree) -> dict[int, int]:
  """Returns the lines by node, without the nodes above another of them, which are left out as labels too."""
  upper: set[int] = set()
  for node in lines:
    while (node := int(tree.parent[node])) != ROOT:
      upper.add(node)
  return {node: line for node, line in lines.items() if node not in upper}
