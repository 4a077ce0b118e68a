"""Writing of packs, see `packs.py`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hierjax.data.config import PACK, DataConfig
from hierjax.data.source import FileSource
from hierjax.data.sources.folders import FolderSource, folder_splits
from hierjax.data.sources.packs import FORMAT, MISSING, TREE, Index, checksum, file_of
from hierjax.disk import check_room, said_where_full, sync
from hierjax.errors import UserError
from hierjax.tree.label_tree import PAD, LabelTree

_WRITER = "group_size:1,uncompressed"  # a record can be read alone; images are compressed already


@dataclasses.dataclass(frozen=True)
class Packed:
  """What a pack has.

  Attributes:
    images: the number of files, by split.
    num_bytes: of all files.
    unreadable: the files that could not be read; they are in the pack without bytes.
  """

  images: dict[str, int]
  num_bytes: int
  unreadable: list[str]


def write_pack(folder: Path, config: DataConfig, tree: LabelTree) -> Packed:
  """Writes the image files of a set, with labels in a tree, into a folder.

  Args:
    folder: an empty folder.
    config: of the set `folder`: where its images and labels are. Where `on_bad_image` is `skip`, a file that cannot be
      read is kept without bytes, so that training skips it as it would without a pack.
    tree: the labels' tree, which is kept too.

  Raises:
    UserError: the labels cannot be used, a file cannot be read, the set is a pack itself, or the disk is full.
  """
  if config.is_pack:
    raise UserError(f"{config.root} is a pack already")
  sources = {split: _opened(opened) for split, opened in folder_splits(config, tree).items()}
  needed = sum(_size(file) for source in sources.values() for file in source.files)
  check_room(folder / PACK, needed, "make room, and run the same command again")
  indices: dict[str, Index] = {}
  unreadable: list[str] = []
  with said_where_full(folder, needed), _bar(sources) as bar:
    for split, source in sources.items():
      records = file_of(folder, split, ".array_record")
      sizes, crcs = _write_records(records, _files(source, config.on_bad_image, unreadable), bar)
      labels, ends = _labels(source.nodes, tree)
      indices[split] = Index(_names(source, config.root), sizes, crcs, ends, labels)
    _write_about(folder, indices, tree)
  total = sum(int(index.sizes[index.sizes > 0].sum()) for index in indices.values())
  return Packed({split: len(index.names) for split, index in indices.items()}, total, unreadable)


def _opened(split: Callable[[], FileSource]) -> FolderSource:
  source = split()
  assert isinstance(source, FolderSource)  # of the set `folder`
  return source


def _bar(sources: Mapping[str, FolderSource]) -> tqdm[Any]:
  total = sum(map(len, sources.values()))
  return tqdm(total=total, desc="packing", unit=" images", delay=2, leave=False, disable=None)


def _files(source: FolderSource, on_bad_image: str, unreadable: list[str]) -> Iterator[bytes | None]:
  """Yields the bytes of each file; None for one that cannot be read, and adds it to a list."""
  for row, file in enumerate(source.files):
    try:
      yield source.file_bytes(row)
    except OSError as error:
      if on_bad_image == "stop":
        skip = "config.data.on_bad_image = skip packs the others"
        raise UserError(f"{file}: cannot be read ({error.strerror}); {skip}") from None
      unreadable.append(file)
      yield None


def _write_records(records: Path, files: Iterable[bytes | None], bar: tqdm[Any]) -> tuple[np.ndarray, np.ndarray]:
  """Writes the files of a split, and returns their sizes, `i64[n]`, and checksums, `u32[n]`."""
  from array_record.python.array_record_module import ArrayRecordWriter

  sizes, crcs = [], []
  writer = ArrayRecordWriter(str(records), _WRITER)
  for data in files:
    sizes.append(MISSING if data is None else len(data))
    crcs.append(zlib.crc32(data or b""))
    writer.write(data or b"")
    bar.update()
  writer.close()
  return np.array(sizes, np.int64), np.array(crcs, np.uint32)


def _names(source: FolderSource, root: str) -> list[str]:
  above = os.path.abspath(os.path.expanduser(root))
  return [os.path.relpath(os.path.abspath(file), above) for file in source.files]


def _write_about(folder: Path, indices: Mapping[str, Index], tree: LabelTree) -> None:
  """Writes all but the records, and waits until everything has reached the disk."""
  splits = {}
  for split, index in indices.items():
    data, records = index.to_bytes(), file_of(folder, split, ".array_record")
    file_of(folder, split, ".npz").write_bytes(data)
    about = {"labels": index.labels, "index": hashlib.sha256(data).hexdigest(), "bytes": records.stat().st_size}
    splits[split] = about
  fields = {"format": FORMAT, "tree": tree.checksum, "splits": splits}
  (folder / TREE).write_text(tree.to_json(), encoding="utf-8")
  (folder / PACK).write_text(json.dumps(fields | {"sha256": checksum(fields)}) + "\n", encoding="utf-8")
  sync(folder)


def _labels(nodes: np.ndarray, tree: LabelTree) -> tuple[list[list[str]], np.ndarray]:
  """Returns the label paths of a split, and `Index.ends`."""
  used = np.unique(nodes[nodes >= 0])
  table = np.arange(PAD, tree.num_nodes, dtype=np.int32)  # PAD and ROOT stay
  table[used - PAD] = np.arange(len(used))
  return [list(tree.path_names(node)) for node in used.tolist()], table[nodes - PAD]


def _size(file: str) -> int:
  try:
    return os.path.getsize(file)
  except OSError:
    return 0
