"""The user's own images: nested folders that are the label paths, or one folder and a CSV file of labels."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, UInt8

from hierjax.data.config import DataConfig
from hierjax.data.images import read_image
from hierjax.data.source import Splits, pad_nodes
from hierjax.errors import UserError
from hierjax.tree.builders import from_folder, from_paths
from hierjax.tree.folders import walk
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.labels import LabelFinder, split_path
from hierjax.tree.tables import read_rows, without_blank_end

_SHOWN = 10


class FolderSource:
  """Images in files."""

  def __init__(self, name: str, files: Sequence[str], nodes: Int[np.ndarray, "n p"], resize: int):
    """Opens nothing yet.

    Args:
      name: what the set is called in messages.
      files: their paths.
      nodes: as in `Source`.
      resize: the side of the squares that `read` returns, in pixels.
    """
    self.name = name
    self.files = files
    self.nodes = nodes
    self.shape = (resize, resize, 3)

  def __len__(self) -> int:
    return len(self.files)

  def read(self, indices: Integer[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w c"]:
    """Returns decoded images; raises BadImageError for one that cannot be decoded."""
    images = np.empty((len(indices), *self.shape), np.uint8)
    for row, index in enumerate(indices.tolist()):
      images[row] = read_image(self.files[index], self.shape[0])
    return images

  def describe(self, index: int) -> str:
    """Returns the file's path."""
    return self.files[index]

  @functools.cached_property
  def fingerprint(self) -> str:
    """Everything that the pixels depend on: files by path, size and time of their last change."""
    return "\n".join([str(self.shape), *(f"{os.path.abspath(file)} {_status(file)}" for file in self.files)])


def _status(file: str) -> str:
  try:
    status = os.stat(file)
  except OSError:
    return "missing"
  return f"{status.st_size} {status.st_mtime_ns}"


def folder_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns the splits of the images below `config.root`.

  With `config.labels`, see `_csv_rows`. Otherwise the folders an image is in are its label path. Where `root` has a
  folder called as `config.train_split`, the folders of `root` are the splits; else all of `root` is to train on.

  Raises:
    UserError: there is no such folder, or an image's label is not in `tree`.
  """
  root = _root(config)
  if config.labels:
    return _csv_splits(Path(config.labels).expanduser(), root, config, tree)
  splits = _split_folders(root, config.train_split)
  return {split: functools.partial(_nested, folder, config.resize, tree) for split, folder in splits.items()}


def tree_of(config: DataConfig) -> LabelTree:
  """Returns the label tree that the set itself is: the folders to train on, or all labels of the CSV file.

  Raises:
    UserError: there is no such folder or file, or it holds no tree.
  """
  if config.labels:
    return from_paths(row.label for row in _csv_rows(Path(config.labels).expanduser(), config.train_split))
  return from_folder(_split_folders(_root(config), config.train_split)[config.train_split])


def _root(config: DataConfig) -> Path:
  root = Path(config.root).expanduser()
  if not config.root or not root.is_dir():
    raise UserError(f"config.data.root = {config.root!r}: there is no such folder")
  return root


def _split_folders(root: Path, train_split: str) -> dict[str, Path]:
  if not (root / train_split).is_dir():
    return {train_split: root}
  return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _nested(root: Path, resize: int, tree: LabelTree) -> FolderSource:
  finder = LabelFinder(tree)
  files: list[str] = []
  nodes: list[list[int]] = []
  faults: list[str] = []
  for folder in walk(root):
    if not folder.images:
      continue
    try:
      node = finder.node(folder.parts) if folder.parts else ROOT
    except KeyError as error:
      faults.append(f"{folder.path}: {error.args[0]}")
      continue
    if node == ROOT:
      faults.append(f"{folder.path}: {folder.images[0]} lies in no folder of a label")
    files += [os.path.join(folder.path, image) for image in folder.images]
    nodes += [[node]] * len(folder.images)
  _raise_faults(faults, str(root))
  if not files:
    raise UserError(f"{root}: there is no image below it")
  return FolderSource(str(root), files, pad_nodes(nodes), resize)


@dataclasses.dataclass(frozen=True)
class _Row:
  """A row of the CSV file of labels: its line, and what it says."""

  line: int
  image: str
  split: str
  label: tuple[str, ...]


def _csv_rows(path: Path, train_split: str) -> list[_Row]:
  """Reads a CSV file of labels, whose first row is a header.

  The first column is the image's path below `config.root`. The second may be called `split`; a blank there, or no such
  column, means `train_split`. The rest is a label: a cell a level, of which the last ones may be blank; or one cell,
  `animal/dog`, or an id, or the name of a leaf. Several rows of one image are several label paths of it.
  """
  rows = read_rows(path)
  if not rows or len(rows[0].cells) < 2:
    raise UserError(f"{path}: its first row must be a header: the image, perhaps `split`, and the label's levels")
  has_split = rows[0].cells[1].lower() == "split"
  found = []
  for row in rows[1:]:
    image, *cells = without_blank_end(row.cells)
    split = (cells[0] if has_split and cells else "") or train_split
    cells = cells[has_split:]
    label = split_path(cells[0]) if len(cells) == 1 else tuple(cells)
    if not image or not label or "" in label:
      raise UserError(f"{path}:{row.line}: the row has no image, no label, or a blank in mid-label")
    found.append(_Row(row.line, image, split, label))
  return found


def _csv_splits(path: Path, root: Path, config: DataConfig, tree: LabelTree) -> Splits:
  finder = LabelFinder(tree)
  labels: dict[str, dict[str, list[int]]] = {}
  split_of: dict[str, str] = {}
  faults: list[str] = []
  for row in _csv_rows(path, config.train_split):
    if split_of.setdefault(row.image, row.split) != row.split:
      faults.append(f"{path}:{row.line}: {row.image!r} is in split {split_of[row.image]!r} too, not only {row.split!r}")
    try:
      node = finder.node(row.label)
    except KeyError as error:
      faults.append(f"{path}:{row.line}: {error.args[0]}")
      continue
    nodes = labels.setdefault(row.split, {}).setdefault(row.image, [])
    if node not in nodes:
      nodes.append(node)
  _raise_faults(faults, str(path))
  return {split: functools.partial(_listed, images, root, config.resize) for split, images in labels.items()}


def _listed(labels: dict[str, list[int]], root: Path, resize: int) -> FolderSource:
  return FolderSource(str(root), [str(root / image) for image in labels], pad_nodes(list(labels.values())), resize)


def _raise_faults(faults: list[str], where: str) -> None:
  if faults:
    more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    raise UserError(f"{where}: these labels cannot be used:\n" + "\n".join(faults[:_SHOWN]) + more)
