"""Signals as requests to stop after the current step: SIGTERM, SIGINT, SIGHUP and, as Slurm may send it, SIGUSR1."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

import jax

_OTHERS = (signal.SIGHUP, signal.SIGUSR1)


class StopSignals:
  """Handlers of these signals: the first one sets `received`; a second one has its usual effect.

  A signal that the process ignores stays ignored, such as SIGHUP under `nohup`.

  Attributes:
    received: the signal's number, or None.
  """

  received: int | None = None

  def __enter__(self) -> StopSignals:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, *_OTHERS)}
    self._before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
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


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
  """Yields the signals that this process receives; of several processes, JAX stops all at the same step."""
  if jax.process_count() > 1:
    with _others_as_sigterm():
      yield StopSignals()
    return
  with StopSignals() as signals:
    yield signals


@contextlib.contextmanager
def _others_as_sigterm() -> Iterator[None]:
  """Makes SIGHUP and SIGUSR1 stop a run of several processes, of which JAX handles SIGTERM alone."""
  before = {number: signal.getsignal(number) for number in _OTHERS}
  taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
  for number in taken:
    signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
  try:
    yield
  finally:
    for number, handler in taken.items():
      signal.signal(number, handler)
