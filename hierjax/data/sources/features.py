"""Precomputed features in .npy files, memory-mapped and read by row."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Integer

from hierjax.config import read_json
from hierjax.data.config import DataConfig
from hierjax.data.images.read_image import BadImageError
from hierjax.data.source import Splits, checked_nodes
from hierjax.errors import UserError
from hierjax.tree.label_finder import class_nodes
from hierjax.tree.label_tree import PAD, LabelTree, TreeError

FEATURES, NODES, TREE, ABOUT = "features.npy", "nodes.npy", "tree.json", "features.json"
_LAYOUT = (
  f"a folder with a folder a split (train and test, say), and in each {FEATURES}, float32[n d], and {NODES}, integers "
  f"[n] or [n p]: the tree nodes that the labels end at. Its {TREE} is the tree, unless config.tree.source names it. "
  "`hierjax data features` makes such a folder; configs/features.py says how to make one of any arrays"
)


@dataclasses.dataclass(frozen=True)
class FeatureSource:
  """One split of a folder of features, a `Source`.

  Attributes:
    features: `f32[n d]`, mapped from its file.
    nodes: `i32[n p]`, as in `Source`.
    file: where the features are, for messages.
  """

  features: np.ndarray
  nodes: np.ndarray
  file: Path

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of one vector, (d,)."""
    return self.features.shape[1:]

  def __len__(self) -> int:
    return len(self.features)

  def read(self, indices: Integer[np.ndarray, "m"]) -> Float32[np.ndarray, "m d"]:
    """Returns vectors; raises BadImageError for one with a value that is not finite."""
    rows = np.asarray(self.features[indices])
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
      raise BadImageError(f"{self.name_of(int(indices[np.argmin(finite)]))} has values that are NaN or infinite")
    return rows

  def name_of(self, index: int) -> str:
    """Returns the name of a vector in messages."""
    return f"{self.file} row {index}"

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns ones: features have neither height nor width."""
    return np.ones((len(indices), 2), np.int32)

  def content(self, index: int, most: int) -> bytes:
    """Returns the bytes of a vector; see `Source`."""
    return np.asarray(self.features[index]).tobytes() if most else b""


def feature_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns the splits `config.root/SPLIT`, each with features.npy, `f32[n d]`, and nodes.npy, `i[n]` or `i[n p]`.

  Where the folder has a tree.json that is not `tree`, labels are looked up in `tree` by their ids or names.

  Raises:
    UserError: there is no such folder, or it holds something else, or nodes of another tree than that of features.json.
    TreeError: tree.json is damaged, or a label is not in `tree`.
  """
  folder, files = _files(config)
  own = LabelTree.load(folder / TREE) if (folder / TREE).exists() else tree
  about = folder / ABOUT  # folders made by hand have none
  if about.exists() and read_json(about, "what `features` writes").get("tree_sha256", own.checksum) != own.checksum:
    raise UserError(
      f"{folder}: the nodes of its rows are those of another tree than its {TREE}, or else config.tree, says; {ABOUT} "
      "has the checksum of the tree that they are of: put that tree back, or write the features anew"
    )
  return {file.parent.name: functools.partial(_open, file, own, tree) for file in files}


def tree_of(config: DataConfig) -> LabelTree:
  """Returns the tree of a folder of features; raises TreeError or UserError where it has none."""
  folder, _ = _files(config)
  if not (folder / TREE).exists():
    raise UserError(
      f"config.tree.source = 'images': there is no {TREE} in config.data.root = {config.root!r}; name the tree of its "
      "nodes: one of the catalogue, imagenet1k say, or a file"
    )
  return LabelTree.load(folder / TREE)


def _files(config: DataConfig) -> tuple[Path, list[Path]]:
  """Returns the folder, and the file of features of each split."""
  folder = Path(config.root).expanduser()
  files = sorted(folder.glob(f"[!.]*/{FEATURES}")) if config.root else []
  if not files:
    raise UserError(f"config.data.root = {config.root!r}: must be {_LAYOUT}")
  return folder, files


def _open(file: Path, own: LabelTree, tree: LabelTree) -> FeatureSource:
  nodes_file = file.with_name(NODES)
  features, nodes = _load(file), _load(nodes_file)
  if features.ndim != 2 or features.dtype != np.float32:
    raise UserError(f"{file}: is {features.dtype}{list(features.shape)}; want float32[n d]")
  column = checked_nodes(nodes, own.num_nodes, str(nodes_file))
  if len(column) != len(features):
    raise UserError(f"{file.parent}: {len(features)} rows of features and labels of {len(column)}")
  return FeatureSource(features, column if own == tree else _looked_up(column, own, tree, file.parent), file)


def _load(file: Path) -> np.ndarray:
  try:
    return np.load(file, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    why = error if isinstance(error, OSError) else "it holds no array"  # numpy would have users unpickle it
    raise UserError(f"{file}: cannot be read ({why}); there must be {_LAYOUT}") from None


def _looked_up(nodes: Int[np.ndarray, "n p"], own: LabelTree, tree: LabelTree, folder: Path) -> Int[np.ndarray, "n p"]:
  used = np.unique(nodes[nodes >= 0])
  names = own.ids if own.ids and tree.ids else own.names
  table = np.arange(PAD, own.num_nodes, dtype=np.int32)  # row 0 is PAD, row 1 ROOT
  try:
    table[used - PAD] = class_nodes(tree, [names[node] for node in used.tolist()])
  except TreeError as error:
    raise TreeError(f"{folder}: labelled by another tree than config.tree names, and of its labels {error}") from None
  return table[nodes - PAD]


def write_rows(file: Path, width: int, blocks: Iterable[Float32[np.ndarray, "m d"]]) -> None:
  """Writes blocks of rows, one below the other, as one array `f32[n d]`, d the `width`.

  How many rows there are need not be known before the last, and no more than a block is ever in memory.
  """
  header = {"descr": "<f4", "fortran_order": False, "shape": (0, width)}
  rows = 0
  with file.open("wb") as out:
    np.lib.format.write_array_header_1_0(out, header)
    start = out.tell()
    for block in blocks:
      out.write(np.ascontiguousarray(block, "<f4").data)
      rows += len(block)
    out.seek(0)
    np.lib.format.write_array_header_1_0(out, header | {"shape": (rows, width)})
    assert out.tell() == start  # numpy leaves room for the first axis to grow
