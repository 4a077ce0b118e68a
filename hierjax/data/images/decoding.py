"""Threads for large images, so that few of them are decoded at the same time, by any threads of the process.

An allocator keeps what a thread has freed for that thread, so it is the number of threads that bounds the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

LARGE, HUGE = 4 * 2**20, 16 * 2**20  # pixels

_THREADS = 4  # for large images; huge ones, of up to 89 million pixels, are decoded one after the other


def in_turn(pixels: int, function: Callable[[], T]) -> T:
  """Returns what a function returns that decodes an image of so many pixels, when its turn has come."""
  if pixels <= LARGE:
    return function()
  return _pool(1 if pixels > HUGE else _THREADS).submit(function).result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
  return ThreadPoolExecutor(threads, "large images")
