"""SIGTERM and SIGINT as requests to stop after the current step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopSignals:
  """Handlers of SIGTERM and SIGINT: the first signal sets `received`; a second one has its usual effect.

  Attributes:
    received: the signal's number, or None.
  """

  received: int | None = None

  def __enter__(self) -> StopSignals:
    self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in self._before:
      signal.signal(number, self._receive)
    return self

  def _receive(self, number: int, frame: FrameType | None) -> None:
    del frame
    self.received = number
    self._restore()

  def _restore(self) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
  ) -> None:
    self._restore()
