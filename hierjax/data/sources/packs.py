"""Packs: the image files of a set in one file a split, byte for byte, with their names, labels and tree.

    pack.json              the format, and of each split the label paths and the checksum of its index
    tree.json              the label tree of the set
    SPLIT.array_record     the bytes of the files, one after the other, read by number
    SPLIT.npz              the index: of each file its name, size, checksum, and the label paths that it ends at

A pack takes the place of the folder that it was made of, `config.data.root`: the same splits, names, labels and bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer, UInt8

from hierjax.config import read_json
from hierjax.data.config import PACK, DataConfig
from hierjax.data.images.read_image import image_extent, read_image
from hierjax.data.source import FileSplits, content_of_bytes, deepest_nodes, squares
from hierjax.errors import UserError
from hierjax.tree.label_finder import LabelFinder
from hierjax.tree.label_tree import PAD, ROOT, LabelTree

FORMAT, TREE = "hierjax pack 1", "tree.json"
MISSING = -1  # in place of the size of a file that could not be read
_READER = "readahead_buffer_size:0,max_parallelism:0"  # for records in any order
_BUFFER, _AT_ONCE = 2**15, 2**25
_SHOWN = 5


class DamagedPack(UserError):
  """A pack is not what `hierjax data pack` wrote."""

  def __init__(self, file: Path, why: str):
    super().__init__(f"{file}: {why}; it is not what `hierjax data pack` wrote: pack the images again")


@dataclasses.dataclass(frozen=True)
class Index:
  """What a pack keeps of the files of a split.

  Attributes:
    names: the paths of the files below the folder that was packed.
    sizes: `i64[n]`, their bytes; MISSING where a file could not be read.
    crcs: `u32[n]`, their CRC-32.
    ends: `i32[n p]`, the label paths of each, by their number in `labels`; ROOT and PAD as in `Source.nodes`.
    labels: the label paths of the split, as names from the top level down.
  """

  names: list[str]
  sizes: np.ndarray
  crcs: np.ndarray
  ends: np.ndarray
  labels: list[list[str]]

  def to_bytes(self) -> bytes:
    """Returns the contents of SPLIT.npz."""
    names = np.frombuffer("\0".join(self.names).encode("utf-8", "surrogateescape"), np.uint8)
    file = io.BytesIO()
    np.savez(file, names=names, sizes=self.sizes, crcs=self.crcs, ends=self.ends)
    return file.getvalue()

  @classmethod
  def from_bytes(cls, data: bytes, labels: list[list[str]]) -> Index:
    """Undoes `to_bytes`; raises ValueError for anything else."""
    try:
      with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        names, sizes, crcs, ends = (arrays[key] for key in ("names", "sizes", "crcs", "ends"))
    except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
      raise ValueError(str(error)) from None
    if names.dtype != np.uint8 or ends.ndim != 2 or [a.dtype for a in (sizes, crcs, ends)] != ["i8", "u4", "i4"]:
      raise ValueError("its arrays are of other types")
    texts = names.tobytes().decode("utf-8", "surrogateescape").split("\0")
    if not len(texts) == len(sizes) == len(crcs) == len(ends) or not np.all((ends >= PAD) & (ends < len(labels))):
      raise ValueError("its arrays do not go together")
    return cls(texts, sizes, crcs, ends, labels)


class PackSource:
  """One split of a pack."""

  def __init__(self, records: Path, index: Index, nodes: Int[np.ndarray, "n p"], config: DataConfig):
    """Opens the file of the images.

    Args:
      records: SPLIT.array_record.
      index: of the split.
      nodes: as in `Source`.
      config: `resize`, `stored_fit`, `keeps_extents` and `interpolation` are read, see `read_image`.

    Raises:
      DamagedPack: the file has another number of records.
    """
    self.name = os.path.abspath(records)
    self.nodes = nodes
    self.shape = (config.resize, config.resize, 3)
    self.settings = config.decoding
    self._fit, self._interpolation = config.stored_fit, config.interpolation
    self._keeps_extents = config.keeps_extents
    self._index = index
    self._records = records
    self._reader = _opened(records)
    if self._reader.num_records() != len(index.names):
      raise DamagedPack(records, f"{self._reader.num_records():,} images, of {len(index.names):,}")
    self.fingerprint = f"{self.settings} {hashlib.sha256(index.sizes.tobytes() + index.crcs.tobytes()).hexdigest()}"

  def __len__(self) -> int:
    return len(self._index.names)

  def file_bytes(self, index: int) -> bytes:
    """Returns the bytes of a file; raises DamagedPack where they are not those that were packed."""
    return self._files([index])[0]

  def read(self, indices: Integer[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w c"]:
    """Returns decoded images; raises BadImageError for one that cannot be decoded, and as `file_bytes` does."""
    images = np.empty((len(indices), *self.shape), np.uint8)
    for row, (index, data) in enumerate(zip(indices.tolist(), self._files_in_turn(indices), strict=True)):
      name = self.name_of(index)
      images[row] = read_image(data, self.shape[0], self._fit, name, interpolation=self._interpolation)
    return images

  def _files_in_turn(self, indices: Integer[np.ndarray, "m"]) -> Iterator[bytes]:
    """Yields the bytes of files, which are read together where they are small: it waits for the disk less often."""
    small = self._index.sizes[indices].sum() <= _AT_ONCE
    for group in [indices.tolist()] if small else [[index] for index in indices.tolist()]:
      yield from self._files(group)

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns heights and widths; see `Source`."""
    if not self._keeps_extents:
      return squares(len(indices), self.shape)
    return np.array([image_extent(data) for data in self._files_in_turn(indices)], np.int32).reshape(-1, 2)

  def name_of(self, index: int) -> str:
    """Returns the path that the file would have below the pack."""
    return os.path.join(self._records.parent, self._index.names[index])

  def content(self, index: int, most: int) -> bytes:
    """Returns the file's size and bytes of it; see `Source`."""
    size = int(self._index.sizes[index])
    if size == MISSING:
      return b"missing "
    return content_of_bytes(self.file_bytes(index), most) if most else f"{size} ".encode()

  def _files(self, indices: list[int]) -> list[bytes]:
    try:
      found: list[bytes] = self._reader.read(indices) if indices else []
    except Exception as error:  # of a damaged file: several types, of C++
      raise DamagedPack(self._records, f"{self.name_of(indices[0])} cannot be read ({_line(error)})") from None
    for index, data in zip(indices, found, strict=True):
      if len(data) != max(0, self._index.sizes[index]) or zlib.crc32(data) != self._index.crcs[index]:
        raise DamagedPack(self._records, f"{self.name_of(index)} has other bytes than it had")
    return found


def pack_splits(config: DataConfig, tree: LabelTree) -> FileSplits:
  """Returns the splits of the pack `config.root`.

  Raises:
    UserError: it is damaged, or of another format; a label is not in `tree`; or `config` reads labels from elsewhere.
  """
  root = Path(config.root).expanduser()
  plain = DataConfig()
  for key in ("labels", "levels", "folders", "ignore"):
    if getattr(config, key) != getattr(plain, key):
      raise UserError(
        f"config.data.{key} = {getattr(config, key)!r}: {root} is a pack, whose labels were read when it was made; "
        f"set {getattr(plain, key)!r}"
      )
  return {split: functools.partial(_open, root, split, about, config, tree) for split, about in _splits(root).items()}


def file_of(root: Path, split: str, suffix: str) -> Path:
  """Returns a file of a split, in the pack for any name of the split."""
  return root / f"{urllib.parse.quote(split, safe='')}{suffix}"


def checksum(fields: Mapping[str, Any]) -> str:
  """Returns the checksum of the contents of pack.json without it."""
  return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _splits(root: Path) -> dict[str, Any]:
  """Returns what pack.json says of each split."""
  found = read_json(root / PACK, "what `hierjax data pack` writes")
  if found.get("format") != FORMAT:
    raise UserError(
      f"{root / PACK}: its format is {found.get('format')!r}, and this version of hierjax reads {FORMAT!r}"
    )
  if found.pop("sha256", None) != checksum(found):
    raise DamagedPack(root / PACK, "it has changed since")
  tree, splits = LabelTree.load(root / TREE), found.get("splits")
  if tree.checksum != found.get("tree"):
    raise DamagedPack(root / TREE, "it is another tree")
  if not isinstance(splits, dict) or not all(map(_is_split, splits.values())):
    raise DamagedPack(root / PACK, "it has no splits")
  return splits


def _is_split(about: Any) -> bool:
  labels = about.get("labels") if isinstance(about, dict) else None
  return isinstance(labels, list) and all(
    isinstance(path, list) and path and all(isinstance(name, str) for name in path) for path in labels
  )


def _open(root: Path, split: str, about: Mapping[str, Any], config: DataConfig, tree: LabelTree) -> PackSource:
  records, index_file = (file_of(root, split, suffix) for suffix in (".array_record", ".npz"))
  try:
    data, size = index_file.read_bytes(), records.stat().st_size
  except OSError as error:
    raise DamagedPack(Path(error.filename), f"cannot be read ({error.strerror})") from None
  if hashlib.sha256(data).hexdigest() != about.get("index"):
    raise DamagedPack(index_file, "it has changed since")
  if size != about.get("bytes"):
    raise DamagedPack(records, f"{size:,} bytes, of {about.get('bytes')}")
  try:
    index = Index.from_bytes(data, about["labels"])
  except ValueError as error:
    raise DamagedPack(index_file, str(error)) from None
  return PackSource(records, index, deepest_nodes(_nodes(root, index, tree), tree), config)


def _nodes(root: Path, index: Index, tree: LabelTree) -> Int[np.ndarray, "n p"]:
  """Returns the nodes of `tree` that the labels end at; raises UserError where some are not in it."""
  finder, faults = LabelFinder(tree), []
  table = np.full(len(index.labels) - PAD, ROOT, np.int32)  # row 0 is PAD, row 1 ROOT
  table[0] = PAD
  for number, path in enumerate(index.labels):
    try:
      table[number - PAD] = finder.node(path)
    except KeyError as error:
      faults.append(error.args[0])
  if faults:
    more = f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
    raise UserError(f"{root}: labels of the pack are not in the tree: {'; '.join(faults[:_SHOWN])}{more}")
  return table[index.ends - PAD]


def _opened(records: Path) -> Any:
  from array_record.python.array_record_module import ArrayRecordReader  # only sets that are packs need it

  try:
    return ArrayRecordReader(str(records), _READER, file_reader_buffer_size=_BUFFER)
  except Exception as error:
    raise DamagedPack(records, f"it cannot be read ({_line(error)})") from None


def _line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
