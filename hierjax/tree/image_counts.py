"""Counts of images at each node of a tree, and the images whose labels are not in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hierjax.tree import catalog
from hierjax.tree.checks.findings import Finding
from hierjax.tree.label_finder import LabelFinder
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.readers.folders import NO_LABEL, split_folders, walk
from hierjax.tree.readers.label_rows import read_label_table


@dataclasses.dataclass
class ImageCount:
  """Images by the node that their label ends at.

  Attributes:
    at_node: `i64[n]`.
    findings: images whose label is not in the tree.
  """

  at_node: NDArray[np.int64]
  findings: list[Finding]

  @classmethod
  def none(cls, tree: LabelTree) -> ImageCount:
    """Returns the count before the first image."""
    return cls(np.zeros(tree.num_nodes, np.int64), [])

  def note(self, file: str, line: int | None, label: str, message: str) -> None:
    """Adds an image whose label is not in the tree to the findings."""
    self.findings.append(Finding("error", "image whose label is not in the tree", file, line, label, message))


def count_images(
  tree: LabelTree, source: str | Path, images: str | Path | None, labels: str | Path | None
) -> ImageCount | None:
  """Counts the images of the CSV file `labels`, of the folder `images`, or of `source` where that is a folder itself.

  Returns:
    The count; None where there are no images to count.
  """
  if labels is not None:
    return count_in_csv(tree, labels)
  if images is not None:
    return count_in_folders(tree, images)
  if str(source) in catalog.names() or not Path(source).is_dir():
    return None
  count = count_in_folders(tree, source)
  return count if count.at_node.any() else None  # folders alone are a tree too


def count_in_folders(tree: LabelTree, root: str | Path) -> ImageCount:
  """Counts the images of nested folders, where the folders an image is in, from `root` down, are its label.

  Where the folders of `root` are splits, see `split_folders`, labels begin below them, and all splits count. Folders
  that cannot be read are among the findings.
  """
  count = ImageCount.none(tree)
  finder = LabelFinder(tree)

  def report(kind: str, path: str, name: str, message: str) -> None:
    count.findings.append(Finding("error", kind, path, None, name, message))

  for part in split_folders(root).values() or [root]:
    for folder in walk(part, report):
      if not folder.images:
        continue
      what = f"labels {len(folder.images)} images, {folder.images[0]} for one"
      if not folder.parts:
        count.note(folder.path, None, tree.root_name, f"{what}: it {NO_LABEL}")
        continue
      try:
        node = finder.node(folder.parts)
      except KeyError as error:
        count.note(folder.path, None, "/".join(folder.parts), f"{what}: {error.args[0]}")
      else:
        _add(count, node, len(folder.images))
  return count


def count_in_csv(tree: LabelTree, path: str | Path) -> ImageCount:
  """Counts the images of a CSV file of labels, see `read_label_table`."""
  count = ImageCount.none(tree)
  finder = LabelFinder(tree)
  for row in read_label_table(path).rows:
    try:
      if row.fault:
        raise KeyError(row.fault)
      node = finder.node(row.label)
    except KeyError as error:
      count.note(str(path), row.line, "/".join(row.label), f"labels {row.image}: {error.args[0]}")
    else:
      _add(count, node, 1)
  return count


def _add(count: ImageCount, node: int, images: int) -> None:
  if node != ROOT:
    count.at_node[node] += images


def leaves_without_images(tree: LabelTree, count: ImageCount, file: str, lines: Sequence[int | None]) -> list[Finding]:
  """Returns a warning for each leaf that no image is labelled with.

  Args:
    tree: the tree.
    count: of the images at its nodes.
    file: the file of the tree.
    lines: the line of each node in the file; None where it has no lines.
  """
  message = "has no images, so it cannot be learnt"
  return [
    Finding("warning", "leaf without images", file, lines[leaf], tree.path_text(leaf), message)
    for leaf in tree.leaves[count.at_node[tree.leaves] == 0].tolist()
  ]
