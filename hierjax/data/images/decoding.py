"""The memory of large images that are decoded at the same time, by any threads of the process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

MOST_BYTES = 2**30

_used = 0
_freed = threading.Condition()


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
  """Waits until a number of bytes is free, and keeps them while the context lasts; one that is too large waits for all.

  With 0 it does not wait.
  """
  global _used
  kept = min(count, MOST_BYTES)
  with _freed:
    _freed.wait_for(lambda: not kept or _used + kept <= MOST_BYTES)
    _used += kept
  try:
    yield
  finally:
    with _freed:
      _used -= kept
      _freed.notify_all()
