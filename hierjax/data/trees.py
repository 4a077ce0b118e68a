"""The label tree of the config section `tree`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hierjax.config import checked
from hierjax.data.config import DataConfig
from hierjax.data.sources import features, folders, shapes, tfds
from hierjax.errors import UserError
from hierjax.tree.checks.findings import FaultyTree
from hierjax.tree.draft import Draft
from hierjax.tree.label_tree import ROOT, LabelTree, ShortLabels, TreeError
from hierjax.tree.open_tree import open_draft
from hierjax.tree.open_tree import open_tree as open_tree_file

_SHOWN = 5


@checked
@dataclasses.dataclass(frozen=True)
class TreeConfig:
  """The section `tree` of a config.

  Attributes:
    source: `images`, the tree of the data set itself: of its folders or CSV file, of the classes of a TFDS set, or in
      the folder of precomputed features;
      `shapes`; the name of a tree of the catalogue; or the path of a folder, a CSV file or a JSON file.
    levels: only that many levels from the top; 0 for all. Labels below count for their ancestors.
    short_labels: the meaning of a label that ends above a leaf (READINGS A2): the rest is `unknown`, or a true `stop`.
    level_names: names of all levels, the top level's first, such as `(order,family,species)`, for tables and pages. ():
      those in the header of the file, where it has some.
    alike_names: for the tree of `folder`'s images, names below one node that differ in capitals or blanks only: `stop`
      the run, or `keep` them as several labels.
  """

  source: str = "images"
  levels: int = 0
  short_labels: ShortLabels = "unknown"
  level_names: Sequence[str] = ()
  alike_names: Literal["stop", "keep"] = "stop"

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    if self.levels < 0:
      raise UserError(f"config.tree.levels = {self.levels}: must be 0 (all) or more")
    if not self.source:
      raise UserError("config.tree.source = '': set images, for the tree of the labels, or the name or path of a tree")


def open_tree(config: TreeConfig, data: DataConfig) -> LabelTree:
  """Returns the whole tree of `config.source`, for any `config.levels`.

  Raises:
    UserError: there is no such tree, or it leaves nothing to learn, as each label is the same.
  """
  forgotten = _forgotten_labels(config, data)
  try:
    tree = _open_tree(config, data)
  except FaultyTree as error:
    if forgotten and any(finding.kind == "empty" for finding in error.findings):
      raise TreeError(f"{error}{forgotten}") from None
    raise
  tree = _with_level_names(tree, config)
  if config.source == "images" and data.name == "folder" and config.alike_names == "stop":
    _check_names_differ(tree)
  # Where short labels stop, a label may end at any node.
  if (tree.num_nodes if config.short_labels == "stop" else len(tree.leaves)) == 1:
    leaf = tree.path_text(int(tree.leaves[0]))
    raise UserError(
      f"config.tree.source = {config.source!r}: a tree of the single leaf {leaf!r} leaves nothing to learn{forgotten}"
    )
  return tree


def draft_of_files(config: TreeConfig, data: DataConfig) -> Draft:
  """Returns the nodes of a set of files as they are written, whatever is wrong with them.

  Raises:
    UserError: there is no such tree.
  """
  if config.source == "shapes":
    return Draft.of_tree(shapes.tree(), "shapes")
  return folders.draft_of(data) if config.source == "images" else open_draft(os.path.expanduser(config.source))


def _with_level_names(tree: LabelTree, config: TreeConfig) -> LabelTree:
  if not config.level_names:
    return tree
  if len(config.level_names) != tree.depth:
    raise UserError(f"config.tree.level_names = {config.level_names}: the tree has {tree.depth} levels; name each")
  return tree.with_level_names(config.level_names)


def _check_names_differ(tree: LabelTree) -> None:
  faults = []
  for parent in range(ROOT, tree.num_nodes):
    first: dict[str, int] = {}
    for child in tree.children(parent):
      before = first.setdefault("".join(tree.names[child].casefold().split()), child)
      if before != child:
        faults.append(f"{tree.path_text(before)!r} and {tree.path_text(child)!r}")
  if faults:
    more = f" and {len(faults) - _SHOWN} more pairs" if len(faults) > _SHOWN else ""
    raise UserError(
      f"labels differ in capitals or blanks only: {', '.join(faults[:_SHOWN])}{more}; give them one name, or, if they "
      "are several classes, set config.tree.alike_names = keep"
    )


def _forgotten_labels(config: TreeConfig, data: DataConfig) -> str:
  """Returns a hint at a CSV file among the images where no file of labels is named; else ""."""
  if config.source != "images" or data.name != "folder" or data.labels:
    return ""
  file = next(iter(sorted(Path(data.root).expanduser().glob("*.csv"))), None)
  return "" if file is None else f"; if the labels are in {file}, set config.data.labels = {file.name}"


def _open_tree(config: TreeConfig, data: DataConfig) -> LabelTree:
  if config.source == "shapes":
    return shapes.tree()
  if config.source != "images":
    return open_tree_file(os.path.expanduser(config.source))
  if data.name == "shapes":
    return shapes.tree()
  if data.name == "features":
    return features.tree_of(data)
  if data.name in ("arrays", "noise"):
    raise UserError(
      "config.tree.source = 'images' needs images whose labels have names; for "
      f"config.data.name = {data.name!r} name the tree: one of the catalogue, or a file"
    )
  return folders.tree_of(data) if data.name == "folder" else tfds.tree_of(data)
