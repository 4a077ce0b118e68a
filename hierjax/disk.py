"""Files that outlive a power cut, and room on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hierjax.errors import UserError

WAIT_S = 600  # for room, where a run meets a full disk
_POLL_S = 2
_SPARE = 2**20  # bytes of names and metadata
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoom(UserError):
  """The disk is full; `what` has the path, the bytes that are needed and those that are free."""

  def __init__(self, path: Path, needed: int, then: str):
    self.what = f"{path}: the disk is full: {needed:,} bytes are needed, {room(path.parent):,} are free"
    super().__init__(f"{self.what}; {then}")


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
  """Raises NoRoom where the block meets a full disk while it writes a number of bytes to a file."""
  try:
    yield
  except OSError as error:
    if error.errno not in _FULL:
      raise
    raise NoRoom(path, needed, "make room, and run the same command again") from None


def is_full(error: BaseException | None) -> bool:
  """Returns whether an error, or one that it was raised from, is that a disk is full, also as C++ says it."""
  while error is not None:
    text = str(error)
    if getattr(error, "errno", None) in _FULL or "No space left on device" in text or "quota exceeded" in text:
      return True
    error = error.__cause__ or error.__context__
  return False


def when_there_is_room(attempt: Callable[[], object]) -> None:
  """Calls a function again and again, for up to `WAIT_S` seconds, while it raises NoRoom, and says so once.

  Raises:
    NoRoom: the last one.
  """
  end, waits = time.monotonic() + WAIT_S, False
  while True:
    try:
      attempt()
    except NoRoom as error:
      if time.monotonic() > end:
        raise
      if not waits:
        print(f"warning: {error.what}; the run waits for room, {WAIT_S // 60} minutes at most", file=sys.stderr)
      waits = True
      time.sleep(_POLL_S)
    else:
      break
  if waits:
    print("there is room again: the run goes on", file=sys.stderr, flush=True)


def check_room(path: Path, needed: int, then: str) -> None:
  """Raises NoRoom where the disk has fewer free bytes than are to be written.

  Args:
    path: to be written.
    needed: bytes.
    then: a clause that ends the message: what to do.
  """
  if room(path.parent) < needed + _SPARE:
    raise NoRoom(path, needed + _SPARE, then)
