"""Counts of images at each node of a tree, and the images whose labels are not in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hierjax.tree import catalog
from hierjax.tree.checks.findings import Finding
from hierjax.tree.label_finder import LabelFinder, split_path
from hierjax.tree.label_tree import ROOT, LabelTree, TreeError
from hierjax.tree.readers.folders import NO_LABEL, SPLIT_NAMES, is_image_name, split_folders, walk
from hierjax.tree.readers.tables import read_rows, without_blank_end


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


@dataclasses.dataclass(frozen=True)
class LabelRow:
  """A row of a CSV file of labels.

  Attributes:
    line: where it is, from 1.
    image: the image's path.
    split: the part of the data set that it belongs to; "" where the file has no splits.
    label: the argument of `LabelFinder.node`; () where there is no label.
    bad_split: the fault of its split; "" where there is none.
  """

  line: int
  image: str
  split: str
  label: tuple[str, ...]
  bad_split: str = ""

  @property
  def only_image(self) -> bool:
    """Whether the row names an image and no label of it."""
    return bool(self.image) and not self.bad_split and not self.label

  @property
  def fault(self) -> str:
    """The fault of the row by itself; "" where there is none."""
    if not self.image:
      return "the row has no image"
    if self.bad_split:
      return self.bad_split
    if not self.label:
      return "the row has no label"
    return "the row has a blank in mid-label" if "" in self.label else ""


def read_label_rows(
  path: str | Path, splits: Iterable[str] = SPLIT_NAMES, root: str | Path | None = None
) -> list[LabelRow]:
  """Reads a CSV file of labels, whose first row is a header.

  The first column is the image. The second may be called `split`, and then names one of `splits` in every row, in
  capitals or not. The rest is its label: a cell a level, of which the last ones may be blank; or one cell,
  `animal/dog`, or an id, or a name that only one node has. Several rows of one image are several label paths of it.

  Args:
    path: the file.
    splits: the allowed names of splits; of two that differ only in capitals, the last counts.
    root: the folder of the images, or None. A cell of the first row that is a file there shows that the header is
      missing.

  Raises:
    TreeError: the file is not CSV in UTF-8, or its first row is no header of such columns.
  """
  rows = read_rows(path)
  has_split = bool(rows) and [cell.lower() for cell in rows[0].cells[1:2]] == ["split"]
  if not rows or len(rows[0].cells) < 2 + has_split:
    only = f", not the one cell {rows[0].cells[0]!r}" if rows and len(rows[0].cells) == 1 else ""
    raise TreeError(
      f"{path}: its first row must be a header{only}: the image, perhaps `split`, and the label or its levels, parted "
      "by commas, semicolons or tabs"
    )
  first = rows[0].cells[0]
  if is_image_name(first) or (root is not None and first and (Path(root) / first).is_file()):
    raise TreeError(
      f"{path}:{rows[0].line}: the header is missing, as {first!r} is an image: write a first row above it, `image`, "
      "perhaps `split`, and `label` or a name for each level"
    )
  found = []
  split_of = {name.casefold(): name for name in splits}
  for row in rows[1:]:
    image, *cells = row.cells
    written = cells[0] if has_split and cells else ""
    split = split_of.get(written.casefold(), "")
    what = f"the split {written!r} is not known" if written else "the split is blank"
    bad_split = (
      f"{what}; write one of {', '.join(sorted(split_of.values()))}, or what config.data names"
      if has_split and not split
      else ""
    )
    names = without_blank_end(cells[has_split:])
    label = split_path(names[0]) if len(names) == 1 else tuple(names)
    found.append(LabelRow(row.line, image, split, label, bad_split))
  return found


def count_in_csv(tree: LabelTree, path: str | Path) -> ImageCount:
  """Counts the images of a CSV file of labels, see `read_label_rows`."""
  count = ImageCount.none(tree)
  finder = LabelFinder(tree)
  for row in read_label_rows(path):
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
