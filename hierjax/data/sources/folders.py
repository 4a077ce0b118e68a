"""Image files of the user: nested folders that are the label paths, or a folder and a CSV file of labels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, UInt8

from hierjax.data.config import DataConfig
from hierjax.data.images.read_image import image_extent, read_ahead, read_image
from hierjax.data.source import FileSplits, deepest_nodes, file_content, pad_nodes, squares
from hierjax.data.sources.packs import TREE, pack_splits
from hierjax.errors import UserError
from hierjax.tree.builders import build
from hierjax.tree.draft import Draft
from hierjax.tree.label_finder import LabelFinder
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.open_tree import open_draft
from hierjax.tree.readers.folders import NO_LABEL, read_images_folder, split_folders, walk
from hierjax.tree.readers.label_files import draft_of_labels, missing_images, named_with_lines
from hierjax.tree.readers.label_rows import (
  LabelFormat,
  LabelRow,
  LabelTable,
  image_key,
  read_label_table,
  split_faults,
)
from hierjax.tree.readers.split_words import same_split

_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Fault:
  """A fault of a label, of a folder or of a row.

  Attributes:
    file: the file or folder.
    line: its line; None where there are no lines.
    message: the fault.
  """

  file: str
  line: int | None
  message: str

  def __str__(self) -> str:
    return f"{self.file}: {self.message}" if self.line is None else f"{self.file}:{self.line}: {self.message}"


class FaultyLabels(UserError):
  """Labels that cannot be used; the message lists the first ones, `faults` all."""

  def __init__(self, where: Path, faults: Sequence[Fault]):
    self.faults = tuple(faults)
    more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    shown = "\n".join(map(str, faults[:_SHOWN]))
    super().__init__(f"{where}: these labels and folders cannot be used:\n{shown}{more}")


_OR_SKIP = "; config.data.on_no_label = skip leaves such images out"


class FolderSource:
  """Images in files."""

  def __init__(self, name: str, files: Sequence[str], nodes: Int[np.ndarray, "n p"], config: DataConfig):
    """Keeps the paths; no file is opened yet.

    Args:
      name: of the split in messages and in the cache, different from those of other splits.
      files: their paths.
      nodes: as in `Source`.
      config: `resize`, `stored_fit`, `keeps_extents` and `interpolation` are read, see `read_image`.
    """
    self.name = name
    self.files = files
    self.nodes = nodes
    self.shape = (config.resize, config.resize, 3)
    self.settings = config.decoding
    self._fit, self._interpolation = config.stored_fit, config.interpolation
    self._keeps_extents = config.keeps_extents

  def __len__(self) -> int:
    return len(self.files)

  def read(self, indices: Integer[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w c"]:
    """Returns decoded images; raises BadImageError for one that cannot be decoded."""
    images = np.empty((len(indices), *self.shape), np.uint8)
    files = [self.files[index] for index in indices.tolist()]
    with contextlib.closing(read_ahead(files)) as found:
      for row, (file, image) in enumerate(zip(files, found, strict=True)):
        images[row] = read_image(image, self.shape[0], self._fit, file, interpolation=self._interpolation)
    return images

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns heights and widths; see `Source`."""
    if not self._keeps_extents:
      return squares(len(indices), self.shape)
    return np.array([image_extent(self.files[i]) for i in indices.tolist()], np.int32).reshape(-1, 2)

  def file_bytes(self, index: int) -> bytes:
    """Returns the bytes of a file; raises OSError where it cannot be read."""
    return Path(self.files[index]).read_bytes()

  def name_of(self, index: int) -> str:
    """Returns the file's path."""
    return self.files[index]

  def content(self, index: int, most: int) -> bytes:
    """Returns the file's size and bytes of it; see `Source`."""
    return file_content(self.files[index], most)

  @functools.cached_property
  def fingerprint(self) -> str:
    """All that the pixels depend on: files by path, size and time of their last change."""
    return "\n".join([self.settings, *(f"{os.path.abspath(file)} {_status(file)}" for file in self.files)])


def _status(file: str) -> str:
  try:
    status = os.stat(file)
  except OSError:
    return "missing"
  return f"{status.st_size} {status.st_mtime_ns}"


def folder_splits(config: DataConfig, tree: LabelTree) -> FileSplits:
  """Returns the splits of the images below `config.root`.

  A pack has its own splits, see `packs.py`. With `config.labels`, see `read_label_table`; without a column of splits
  all images are training images. Otherwise the folders of an image are its label path. Folders of `root` that have the
  names of splits are the splits, see `split_folders`; without such folders all images below `root` are training images.

  Raises:
    UserError: there is no such folder, a part of it cannot be read, or an image's label is not in `tree`.
  """
  root = _root(config)
  if config.is_pack:
    return pack_splits(config, tree)
  if config.labels:
    return _csv_splits(labels_file(config), root, config, tree)
  splits = split_folders(root, config.split_rules)
  if not splits:
    return {config.train_split: functools.partial(_nested, root, config, tree, config.ignore)}
  return {split: functools.partial(_nested, folder, config, tree) for split, folder in splits.items()}


def tree_of(config: DataConfig) -> LabelTree:
  """Returns the label tree of the set: that of a pack, of the folders of training images, or of the CSV file's labels.

  Raises:
    UserError: there is no such folder or file, or it holds no tree.
  """
  return build(draft_of(config))


def draft_of(config: DataConfig) -> Draft:
  """Returns the draft of `tree_of`."""
  if config.is_pack:
    return open_draft(_root(config) / TREE)
  if config.labels:
    path = labels_file(config)
    return draft_of_labels(label_table(path, config), str(path))
  return read_images_folder(_root(config), config.split_rules)


def _root(config: DataConfig) -> Path:
  root = Path(config.root).expanduser()
  if not config.root:
    raise UserError("config.data.root = '': set config.data.root to the folder of the images")
  if not root.is_dir():
    raise UserError(
      f"config.data.root = {config.root!r}: there is no such folder; set config.data.root or, for a trained run, "
      "--data-root"
    )
  return root


def labels_file(config: DataConfig) -> Path:
  """Returns the CSV file of labels; a relative path is tried from the working folder and from the images' folder."""
  path = Path(config.labels).expanduser()
  below = _root(config) / path if config.root and not path.is_file() else path
  if not below.is_file():
    places = dict.fromkeys([os.path.abspath(path), os.path.abspath(below)])
    raise UserError(f"config.data.labels = {config.labels!r}: there is no such file; looked for {' and '.join(places)}")
  return below


def _nested(root: Path, config: DataConfig, tree: LabelTree, ignored: Sequence[str] = ()) -> FolderSource:
  finder = LabelFinder(tree)
  files: list[str] = []
  nodes: list[list[int]] = []
  faults: list[Fault] = []

  def report(kind: str, path: str, name: str, message: str) -> None:
    faults.append(Fault(path, None, f"{name!r} {message}"))

  for folder in walk(root, report, ignored):
    if not folder.images:
      continue
    try:
      node = finder.node(folder.parts) if folder.parts else ROOT
    except KeyError as error:
      faults.append(Fault(folder.path, None, error.args[0]))
      continue
    if node == ROOT and not _may_lack_label(config):
      others = f" ({len(folder.images):,} images do)" if len(folder.images) > 1 else ""
      faults.append(Fault(folder.path, None, f"{folder.images[0]} {NO_LABEL}{others}{_OR_SKIP}"))
    files += [os.path.join(folder.path, image) for image in folder.images]
    nodes += [[node]] * len(folder.images)
  _raise_faults(faults, root)
  if not files:
    raise UserError(f"{root}: there is no image below it")
  return FolderSource(os.path.abspath(root), files, pad_nodes(nodes), config)


def _may_lack_label(config: DataConfig) -> bool:
  """Returns whether images without a label are left out later, or may get a pseudo-label."""
  return config.on_no_label == "skip" or config.partial_labels in ("drop", "pseudo")


def label_table(path: Path, config: DataConfig) -> LabelTable:
  """Returns a CSV file of labels; raises UserError with the rows that have a fault."""
  named = filter(None, (config.train_split, config.validation_split, config.test_split))
  root = os.path.expanduser(config.root) or None
  table = read_label_table(path, LabelFormat(tuple(named), tuple(config.ignore), tuple(config.levels), root))
  skip = _may_lack_label(config)
  of_splits = [Fault(str(path), line, message) for line, message in split_faults(table.rows)]
  if of_splits:
    of_splits[0] = dataclasses.replace(of_splits[0], message=of_splits[0].message + _splits_remedy(table))
  faults = of_splits + [
    Fault(str(path), row.line, f"{row.fault}{_OR_SKIP * row.only_image}")
    for row in table.rows
    if row.fault and not row.bad_split and not (skip and row.only_image)
  ]
  _raise_faults(faults, path)
  return table


def _splits_remedy(table: LabelTable) -> str:
  return (
    f"; for other names in the column {table.columns.header[table.columns.split or 0]!r}, set config.data.train_split, "
    "config.data.validation_split and config.data.test_split, or leave them out by config.data.ignore"
  )


def _csv_splits(path: Path, root: Path, config: DataConfig, tree: LabelTree) -> FileSplits:
  finder = LabelFinder(tree)
  labels: dict[str, dict[str, list[int]]] = {}
  split_of: dict[str, str] = {}
  spelt: dict[str, str] = {}
  faults: list[Fault] = []
  rows = label_table(path, config).rows
  for row in rows:
    split = row.split or config.train_split
    image = spelt.setdefault(image_key(root, row.image), row.image)  # a.png and ./a.png are one image
    if split_of.setdefault(image, split) != split:
      message = f"{row.image!r} is in split {split_of[image]!r} too, not only {split!r}"
      faults.append(Fault(str(path), row.line, message))
    try:
      node = finder.node(row.label) if row.label else ROOT
    except KeyError as error:
      faults.append(Fault(str(path), row.line, error.args[0]))
      continue
    nodes = labels.setdefault(split, {}).setdefault(image, [])
    if node not in (ROOT, *nodes):  # a row without a label changes nothing for the other rows of its image
      nodes.append(node)
  for one, other, *_ in same_split(labels, (config.train_split, config.validation_split, config.test_split)):
    faults.append(Fault(str(path), None, f"some rows are in split {one!r} and others in {other!r}; write one of them"))
  _raise_faults(faults, path)

  def opened(split: str) -> FolderSource:
    images = labels[split]
    if config.on_bad_image == "stop":
      _check_files(path, root, [row for row in rows if row.image in images], len(images))
    files = [str(root / image) for image in images]
    nodes = deepest_nodes(pad_nodes(list(images.values())), tree)
    return FolderSource(f"{os.path.abspath(path)} {split}", files, nodes, config)

  return {split: functools.partial(opened, split) for split in labels}


def _check_files(path: Path, root: Path, rows: list[LabelRow], count: int) -> None:
  """Raises UserError where some of the `count` images of rows are missing."""
  missing = missing_images(rows, root)
  if not missing:
    return
  what = f"{path}: {len(missing):,} of {count:,} images are not files below {root}: {named_with_lines(missing)}"
  remedy = "is config.data.root right?"
  if len(missing) < count:
    remedy = "correct them, or set config.data.on_bad_image = skip to leave them out"
  raise UserError(f"{what}; {remedy}")


def _raise_faults(faults: list[Fault], where: Path) -> None:
  if faults:
    raise FaultyLabels(where, faults)
