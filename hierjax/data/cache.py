"""The user's cache folder: arrays that took long to read, decoded images above all. All of it can be made again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from absl import logging

_DIGEST = 20


def cache_folder() -> Path:
  """Returns where arrays are kept: `$XDG_CACHE_HOME/hierjax`, by default `~/.cache/hierjax`. It may be deleted."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hierjax"


def load(name: str, fingerprint: str, shape: tuple[int | None, ...], dtype: type[np.generic]) -> np.ndarray | None:
  """Returns the array that was saved under this name and fingerprint, mapped from its file; None where there is none.

  Args:
    name: the beginning of the file's name, for people.
    fingerprint: everything that the array depends on; another fingerprint is another file.
    shape: of the array, None for a size that may be any; a file that holds something else counts as none.
    dtype: of the array; likewise.
  """
  try:
    saved = np.load(_path(name, fingerprint), mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError):  # Missing, or cut short, or no array.
    return None
  fits = saved.ndim == len(shape) and all(size in (None, own) for size, own in zip(shape, saved.shape, strict=True))
  return saved if fits and saved.dtype == dtype else None


def save(name: str, fingerprint: str, array: np.ndarray) -> None:
  """Writes the file whole or not at all, and removes those of the same name and another fingerprint.

  A folder that cannot be written costs time only, so it does not stop a run.
  """
  path = _path(name, fingerprint)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
      try:
        np.save(file, array, allow_pickle=False)
        file.close()
        os.replace(file.name, path)
      except BaseException:
        os.unlink(file.name)
        raise
  except OSError as error:
    logging.warning("%s cannot be written (%s): it is made again next time", path, error.strerror)
  else:
    _remove_others(path)


def _remove_others(path: Path) -> None:
  beginning = path.name[: -_DIGEST - len(".npy")]
  for other in path.parent.glob("*.npy"):
    rest = other.name.removeprefix(beginning)
    if other != path and rest != other.name and re.fullmatch(rf"[0-9a-f]{{{_DIGEST}}}\.npy", rest):
      with contextlib.suppress(OSError):  # Another process was faster, or holds it open.
        other.unlink()


def _path(name: str, fingerprint: str) -> Path:
  digest = hashlib.sha256(fingerprint.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST]
  readable = "".join(c if (c.isascii() and c.isalnum()) or c in ".-" else "_" for c in name)
  return cache_folder() / f"{readable}-{digest}.npy"
