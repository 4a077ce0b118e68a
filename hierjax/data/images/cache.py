"""The user's cache folder, for arrays that take long to read, such as decoded images. It may be deleted at any time.

For each name, the newest fingerprint is kept. All files together take at most `config.data.cache_gib`, by default
`MOST_BYTES`: beyond that, the least recently used files are removed, but never the file that was just written. Partial
files of killed writers are removed after a day. A file ends with a checksum of the rest, which is compared when it is
read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from absl import logging

from hierjax.disk import sync_one

MOST_BYTES = 32 * 2**30

_SHOWN, _NAME, _DIGEST = 80, 12, 20  # characters of a file's name: for people, of the name's hash and the fingerprint's
_OURS = re.compile(rf".*-[0-9a-f]{{{_DIGEST}}}\.npy")
_LEFT_S = 24 * 3600
_TRAILER, _MAGIC, _BLOCK = struct.Struct("<8sI"), b"hj crc32", 2**20


def cache_folder() -> Path:
  """Returns where arrays are kept: `$XDG_CACHE_HOME/hierjax`, by default `~/.cache/hierjax`. It may be deleted."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hierjax"


@dataclasses.dataclass(frozen=True)
class CachePlace:
  """Where arrays are kept, and how many bytes of them.

  Attributes:
    folder: the folder; "" for `cache_folder()`.
    most_bytes: of all files together; None for `MOST_BYTES`, and 0 to keep nothing.
  """

  folder: str = ""
  most_bytes: int | None = None

  @property
  def path(self) -> Path:
    """The folder."""
    return Path(self.folder).expanduser() if self.folder else cache_folder()

  @property
  def limit(self) -> int:
    """The bytes of all files together."""
    return MOST_BYTES if self.most_bytes is None else self.most_bytes


USUAL = CachePlace()


def load(
  name: str,
  fingerprint: str,
  shape: tuple[int | None, ...],
  dtype: type[np.generic],
  place: CachePlace = USUAL,
) -> np.ndarray | None:
  """Returns the array that was saved under this name and fingerprint, mapped from its file; None where there is none.

  Args:
    name: of the data, and the settings of its making; arrays of several names are kept side by side.
    fingerprint: all that the array depends on.
    shape: of the array, None for any size; a file of another shape counts as missing.
    dtype: of the array; likewise.
    place: where arrays are kept.
  """
  path = _path(name, fingerprint, place)
  try:
    if not _is_whole(path):
      logging.warning("%s is damaged: it is made again", path)
      return None
    saved = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError):  # Missing, or no array.
    return None
  with contextlib.suppress(OSError):
    os.utime(path)  # when it was used last
  fits = saved.ndim == len(shape) and all(size in (None, own) for size, own in zip(shape, saved.shape, strict=True))
  return saved if fits and saved.dtype == dtype else None


def save(name: str, fingerprint: str, array: np.ndarray, place: CachePlace = USUAL) -> Path | None:
  """Writes the file whole or not at all, removes older files, see above, and returns its path.

  A folder that cannot be written costs only time, so it does not stop a run, and the result is None. So it is where
  `place` keeps nothing.
  """
  if not place.limit:
    return None
  path = _path(name, fingerprint, place)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
      try:
        _write(file, array)
        file.close()
        os.replace(file.name, path)
        sync_one(path.parent)
      except BaseException:
        os.unlink(file.name)
        raise
  except OSError as error:
    logging.warning("%s cannot be written (%s): it is made again next time", path, error.strerror)
    return None
  with contextlib.suppress(OSError):
    _remove_others(path, place.limit)
  return path


class _Summed:
  """A file to write to, and the CRC-32 of what was written."""

  def __init__(self, file: IO[bytes]):
    self.file = file
    self.crc = 0

  def write(self, data: bytes) -> int:
    self.crc = zlib.crc32(data, self.crc)
    return self.file.write(data)


def _write(file: IO[bytes], array: np.ndarray) -> None:
  """Writes an array and its checksum, and waits until they have reached the disk."""
  summed = _Summed(file)
  np.save(cast("IO[bytes]", summed), array, allow_pickle=False)
  file.write(_TRAILER.pack(_MAGIC, summed.crc))
  file.flush()
  os.fsync(file.fileno())


def _is_whole(path: Path) -> bool:
  """Returns whether a file ends with the checksum of the rest: 0.9 s for a GiB; raises OSError where there is none."""
  with path.open("rb") as file:
    rest, crc = os.fstat(file.fileno()).st_size - _TRAILER.size, 0
    while rest > 0 and (data := file.read(min(rest, _BLOCK))):
      crc, rest = zlib.crc32(data, crc), rest - len(data)
    return rest == 0 and file.read() == _TRAILER.pack(_MAGIC, crc)


def clear(place: CachePlace = USUAL) -> tuple[int, int]:
  """Removes all files that `save` wrote; returns their number and their bytes."""
  count = removed = 0
  for path in sorted(place.path.iterdir()) if place.path.is_dir() else ():
    if _OURS.fullmatch(path.name) or (path.suffix == ".part" and _OURS.match(path.name)):
      size = path.stat().st_size
      path.unlink()
      count, removed = count + 1, removed + size
  return count, removed


def _remove_others(path: Path, limit: int) -> None:
  of_the_name = path.name[: -_DIGEST - len(".npy")]
  used = path.stat().st_size
  for other in sorted(path.parent.iterdir(), key=_last_used, reverse=True):
    with contextlib.suppress(OSError):  # Another process was faster, or holds it open.
      if other.suffix == ".part":
        unwanted = time.time() - _last_used(other) > _LEFT_S
      elif other == path or not _OURS.fullmatch(other.name):
        unwanted = False
      elif other.name.startswith(of_the_name):
        unwanted = True
      else:
        used += other.stat().st_size
        unwanted = used > limit
      if unwanted:
        other.unlink()


def _last_used(path: Path) -> float:
  try:
    return path.stat().st_mtime
  except OSError:
    return 0.0


def _path(name: str, fingerprint: str, place: CachePlace) -> Path:
  of_name, of_print = (
    hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() for text in (name, fingerprint)
  )
  readable = "".join(c if (c.isascii() and c.isalnum()) or c in ".-" else "_" for c in name)
  return place.path / f"{readable[-_SHOWN:]}-{of_name[:_NAME]}-{of_print[:_DIGEST]}.npy"
