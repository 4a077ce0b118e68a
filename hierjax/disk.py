"""Files that outlive a power cut, and room on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hierjax.errors import UserError

_SPARE = 2**20  # bytes of names and metadata


def sync(path: Path) -> None:
  """Waits until a file, or a folder with all that is in it, and its name have reached the disk."""
  for folder, _, files in os.walk(path):
    for file in files:
      sync_one(Path(folder) / file)
    sync_one(Path(folder))
  if not path.is_dir():
    sync_one(path)
  sync_one(path.parent)


def sync_one(path: Path) -> None:
  """Waits until a file, or the names in a folder, have reached the disk."""
  opened = os.open(path, os.O_RDONLY)
  try:
    os.fsync(opened)
  finally:
    os.close(opened)


def room(folder: Path) -> int:
  """Returns the free bytes of the disk that a folder, or the nearest one above it that is there, lies on."""
  while not folder.exists() and folder != folder.parent:
    folder = folder.parent
  return shutil.disk_usage(folder).free


@contextlib.contextmanager
def said_where_full(path: Path, needed: int) -> Iterator[None]:
  """Raises UserError where the block meets a full disk while it writes a number of bytes to a file."""
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    raise UserError(
      f"{path}: the disk is full: {needed:,} bytes are needed, {room(path.parent):,} are free; make room, and run the "
      "same command again"
    ) from None


def check_room(path: Path, needed: int, then: str) -> None:
  """Raises UserError where the disk has fewer free bytes than are to be written.

  Args:
    path: to be written.
    needed: bytes.
    then: a clause that ends the message: what to do.
  """
  free = room(path.parent)
  if free < needed + _SPARE:
    raise UserError(f"{path}: the disk is too full: {needed + _SPARE:,} bytes are needed, {free:,} are free; {then}")
