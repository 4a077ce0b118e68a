"""Sequences of strings in one buffer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class Strings(Sequence[str]):
  """An immutable sequence of strings in one UTF-8 buffer: a million names take their bytes and 8 more each."""

  def __init__(self, strings: Sequence[str]):
    encoded = [s.encode("utf-8") for s in strings]
    self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    self._buffer = b"".join(encoded)

  def __len__(self) -> int:
    return len(self._ends) - 1

  def __getitem__(self, i: Any) -> Any:
    if isinstance(i, slice):
      return [self[j] for j in range(*i.indices(len(self)))]
    if not -len(self) <= i < len(self):
      raise IndexError(f"string {i} of {len(self)}")
    i = i % len(self)
    return self._buffer[self._ends[i] : self._ends[i + 1]].decode("utf-8")

  def __iter__(self) -> Iterator[str]:
    return (self._buffer[start:end].decode("utf-8") for start, end in itertools.pairwise(self._ends.tolist()))

  @property
  def nbytes(self) -> int:
    """Bytes of memory that the strings take."""
    return len(self._buffer) + self._ends.nbytes
