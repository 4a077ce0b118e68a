"""Reading of many images: unreadable ones, and sets that are decoded once, into memory."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import logging
from jaxtyping import Integer
from tqdm import tqdm

from hierjax.data.images import cache
from hierjax.data.images.read_image import BadImageError
from hierjax.data.source import ArraySource, Images, Source, StoredSource
from hierjax.errors import UserError

T = TypeVar("T")

_CHUNK = 256
# Below this, reading the images again is cheaper than keeping a file.
_WORTH_SAVING_S = 0.5

_skipped: set[str] = set()
_reported: set[str] = set()
_skipped_lock = threading.Lock()


def read_or_skip(source: Source, indices: Integer[np.ndarray, "m"], on_bad_image: str) -> tuple[Images, dict[int, str]]:
  """Reads images, those that cannot be read as zeros where `on_bad_image` is `skip`.

  Returns:
    The images, and the faults of the rows that could not be read.

  Raises:
    BadImageError: an image cannot be read, and `on_bad_image` is `stop`.
  """
  try:
    return source.read(indices), {}
  except BadImageError:
    if on_bad_image != "skip":
      raise
  images = np.zeros((len(indices), *source.shape), np.uint8 if len(source.shape) == 3 else np.float32)
  bad = {}
  for row in range(len(indices)):
    try:
      images[row] = source.read(indices[row : row + 1])[0]
    except BadImageError as error:
      bad[row] = str(error)
  return images, bad


def report_skipped(messages: Iterable[str]) -> None:
  """Warns of images that were skipped, of each once in a process, and counts them."""
  with _skipped_lock:
    for message in messages:
      if message not in _skipped:
        _skipped.add(message)
        logging.warning("skipped, %d so far: %s", len(_skipped), message)


def report_once(message: str) -> None:
  """Warns of a set, once in a process."""
  with _skipped_lock:
    if message not in _reported:
      _reported.add(message)
      logging.warning("%s; left out", message)


def in_memory(
  source: StoredSource, *, on_bad_image: str, threads: int, place: cache.CachePlace = cache.USUAL
) -> ArraySource:
  """Returns a source whose images are all decoded, with a progress bar where that takes long.

  Args:
    source: images of 8 bits. Where decoding takes long, they outlive the process in `place`.
    on_bad_image: `stop` or `skip`.
    threads: how many threads decode.
    place: the cache of decoded images.

  Raises:
    BadImageError: an image cannot be read, and `on_bad_image` is `stop`.
  """
  name = f"{source.name} {source.settings}"
  images = cache.load(name, source.fingerprint, (len(source), *source.shape), np.uint8, place)
  bad: dict[int, str] = {}
  if images is None:
    start = time.monotonic()
    images, bad = _decode(source, on_bad_image, threads)
    if not bad and time.monotonic() - start > _WORTH_SAVING_S:
      _report_kept(cache.save(name, source.fingerprint, images, place))
  if bad:
    logging.warning("%s: %d of %d images cannot be read", source.name, len(bad), len(source))
    report_skipped(bad.values())
  extents = source.extents(np.arange(len(source)))
  return ArraySource(images, source.nodes, source.name, source.name_of, bad, source.content, extents)


def _report_kept(path: Path | None) -> None:
  if path is not None:
    size = path.stat().st_size / 2**20
    print(
      f"decoded images are kept for the next run: {path}, {size:,.0f} MiB; `hierjax data clear-cache` removes them",
      file=sys.stderr,
    )


def check_some_readable(source: Source, threads: int) -> None:
  """Raises UserError where no image of a class can be read, the class being the node that the first label ends at.

  Of each class images are read until one can be.
  """
  ends = source.nodes[:, 0] if len(source) else np.zeros(0, np.int32)
  order = np.argsort(ends, kind="stable")
  _, starts = np.unique(ends[order], return_index=True)
  classes = np.split(order, starts[1:])

  def fault(rows: np.ndarray) -> str:
    message = ""
    for row in rows.tolist():
      try:
        source.read(np.array([row]))
        return ""
      except BadImageError as error:
        message = message or str(error)
    return message

  faulty = [
    (rows, message) for rows, message in zip(classes, parallel(fault, iter(classes), threads), strict=True) if message
  ]
  if faulty:
    rows, message = faulty[0]
    whole = "of this split" if len(faulty) == len(classes) else f"of the class of {source.name_of(int(rows[0]))}"
    more = f", nor of {len(faulty) - 1} other classes" if 1 < len(faulty) < len(classes) else ""
    raise UserError(f"no image {whole} can be read{more}; the first fault: {message}")


def _decode(source: StoredSource, on_bad_image: str, threads: int) -> tuple[np.ndarray, dict[int, str]]:
  images = np.empty((len(source), *source.shape), np.uint8)
  bad: dict[int, str] = {}
  starts = range(0, len(source), _CHUNK)
  chunks = (np.arange(start, min(start + _CHUNK, len(source))) for start in starts)
  read = functools.partial(read_or_skip, source, on_bad_image=on_bad_image)
  with tqdm(
    total=len(source), desc=f"reading {source.name}", unit=" images", delay=2, leave=False, disable=None
  ) as bar:
    for start, (block, bad_rows) in zip(starts, parallel(read, chunks, threads), strict=True):
      images[start : start + len(block)] = block
      bad.update({start + row: message for row, message in bad_rows.items()})
      bar.update(len(block))
  return images, bad


def parallel(function: Callable[[Any], T], items: Iterator[Any], threads: int) -> Iterator[T]:
  """Yields `function(item)` in order; when one raises, those not yet begun are dropped."""
  pool = ThreadPoolExecutor(threads)
  try:
    yield from pool.map(function, items)
  finally:
    pool.shutdown(cancel_futures=True)
