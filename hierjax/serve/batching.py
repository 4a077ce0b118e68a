"""Batches of the images of concurrent requests: one thread computes, and takes what waits each time."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from hierjax.inference.answers import Answer
from hierjax.serve.models import Pixels

Compute = Callable[[Sequence[Pixels]], list[Answer]]


class Batches:
  """A queue of images, and the task that answers them; images whose requests have ended are passed over."""

  def __init__(self, compute: Compute, most: int, counted: Callable[[int], None] = lambda number: None):
    """Makes the queue.

    Args:
      compute: returns the answers for at most `most` images; it runs in a thread of its own, one call at a time.
      most: the images of the largest batch.
      counted: is called with the number of images of each batch.
    """
    self._compute, self._most, self._counted = compute, most, counted
    self._queue: collections.deque[tuple[Pixels, asyncio.Future[Answer]]] = collections.deque()
    self._some = asyncio.Event()

  async def answers(self, images: Sequence[Pixels]) -> list[Answer]:
    """Returns the answers for images, in order; raises what `compute` raises."""
    futures = [asyncio.get_running_loop().create_future() for _ in images]
    self._queue.extend(zip(images, futures, strict=True))
    self._some.set()
    try:
      return list(await asyncio.gather(*futures))
    finally:
      for future in futures:
        future.cancel()

  @contextlib.asynccontextmanager
  async def running(self) -> AsyncIterator[None]:
    """Computes while the context is open."""
    with ThreadPoolExecutor(1, "model") as thread:
      task = asyncio.create_task(self._run(thread))
      try:
        yield
      finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
          await task

  async def _run(self, thread: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    while True:
      await self._some.wait()
      if not (batch := self._next()):
        self._some.clear()
        continue
      self._counted(len(batch))
      try:
        found = await loop.run_in_executor(thread, self._compute, [pixels for pixels, _ in batch])
      except Exception as error:  # of the model: the requests of this batch have it, and the next batch is tried
        for _, future in batch:
          if not future.done():
            future.set_exception(error)
      else:
        for (_, future), answer in zip(batch, found, strict=True):
          if not future.done():
            future.set_result(answer)

  def _next(self) -> list[tuple[Pixels, asyncio.Future[Answer]]]:
    """Returns the images that have waited longest, at most a batch."""
    batch: list[tuple[Pixels, asyncio.Future[Answer]]] = []
    while self._queue and len(batch) < self._most:
      pixels, future = self._queue.popleft()
      if not future.done():
        batch.append((pixels, future))
    return batch
