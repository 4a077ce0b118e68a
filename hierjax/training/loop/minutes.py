"""Minutes between two checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

_EVERY = 10  # steps after which several processes compare clocks


class Minutes:
  """A clock that says when a checkpoint is due, on all processes after the same step."""

  def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
    """Starts.

    Args:
      minutes: between two checkpoints; 0: none is due.
      clock: returns the time in seconds.
    """
    self._seconds = 60 * minutes
    self._clock = clock
    self.restart()

  def restart(self) -> None:
    """Counts from now on."""
    self._since = self._clock()

  def due(self, done: int) -> bool:
    """Returns whether the time is over, after step `done`; of several processes, the first one's clock counts."""
    if not self._seconds or (jax.process_count() > 1 and done % _EVERY):
      return False
    over = self._clock() - self._since >= self._seconds
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(over))) if jax.process_count() > 1 else over
