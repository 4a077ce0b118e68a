"""Estimates of how long something takes, printed once."""

from __future__ import annotations

import time
from collections.abc import Callable

_WARM_UP = 2  # counts before time is measured: programs are compiled in the first
_MEASURED_S = 2.0
_WORTH_SAYING_S = 20.0


class Estimate:
  """Prints how long the rest of some work will take, once, where that is long."""

  def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic):
    """Starts the work.

    Args:
      what: the work, in words.
      total: the units of all of it.
      clock: returns the time in seconds.
    """
    self._what, self._total, self._clock = what, total, clock
    self._counts = self._done = self._done_before = 0
    self._since = 0.0
    self._said = False

  def count(self, units: int) -> None:
    """Counts units that are done."""
    self._counts, self._done = self._counts + 1, self._done + units
    if self._counts == _WARM_UP:
      self._since, self._done_before = self._clock(), self._done
    seconds = self._clock() - self._since
    if self._said or self._counts <= _WARM_UP or seconds < _MEASURED_S:
      return
    self._said = True
    left = (self._total - self._done) * seconds / (self._done - self._done_before)
    if left > _WORTH_SAYING_S:
      print(f"{self._what}: about {duration(left)} left", flush=True)


def duration(seconds: float) -> str:
  """Returns a time in words, such as `40 seconds` or `12 minutes`."""
  for least, size, unit in ((48 * 3600, 86400, "days"), (2 * 3600, 3600, "hours"), (90, 60, "minutes")):
    if seconds >= least:
      return f"{seconds / size:.0f} {unit}"
  return f"{seconds:.0f} seconds"
