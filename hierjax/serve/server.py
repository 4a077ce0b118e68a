"""The server: a socket, the deadline of each request's head, and an end that answers what has been asked."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hierjax.errors import UserError
from hierjax.serve.app import Service, application
from hierjax.serve.limits import Limits
from hierjax.serve.models import ServedModel

_OPTIONS: dict[str, Any] = {
  "ws": "none",
  "lifespan": "on",
  "access_log": False,
  "log_level": "error",
  "server_header": False,
}


class Server(uvicorn.Server):
  """A server that SIGTERM and Ctrl-C end with status 0, after the answers to the requests that have come.

  Attributes:
    address: of the page, such as `http://127.0.0.1:8000`; '' before it listens.
    failure: why the model could not be compiled; None where it could.
  """

  def __init__(self, model: ServedModel, limits: Limits, ready: Callable[[str], None] = lambda address: None):
    """Makes the server; `ready` is called with the address when the model is compiled."""
    self.address = ""
    self.failure: Exception | None = None
    self._ready: Callable[[str], None] | None = ready
    self.service = Service(model, limits, self._fail)

    class Protocol(_HeadInTime):
      head_seconds = limits.seconds

    stop = round(2 * limits.seconds) + 5
    super().__init__(
      uvicorn.Config(application(self.service), http=Protocol, timeout_graceful_shutdown=stop, **_OPTIONS)
    )

  def _fail(self, error: Exception) -> None:
    self.failure = error
    self.should_exit = True

  def listen(self, host: str, port: int) -> socket.socket:
    """Returns a socket at an address; port 0 is any that is free. Raises UserError where it cannot be had."""
    if not 0 <= port < 2**16:
      raise UserError(f"--port {port}: must be 0, for any that is free, to 65,535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
      listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
      raise UserError(f"--host {host} --port {port}: {error}; --port 0 takes any that is free") from None
    shown = f"[{host}]" if ":" in host else host
    self.address = f"http://{shown}:{listening.getsockname()[1]}"
    return listening

  async def on_tick(self, counter: int) -> bool:
    """Says once that the model is ready, and returns whether the server ends."""
    if self.service.state == "ready" and self._ready is not None:
      self._ready(self.address)
      self._ready = None
    return await super().on_tick(counter)

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """Ends the server at a signal, which is not raised again afterwards."""
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
      yield
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)


class _HeadInTime(H11Protocol):
  """A connection that is closed where no whole head of a request comes in time; uvicorn would wait for ever."""

  head_seconds: float
  _deadline: asyncio.TimerHandle | None = None

  def connection_made(self, transport: Any) -> None:
    """Starts the time for the first head."""
    super().connection_made(transport)
    self._expect_head(None)

  def on_response_complete(self) -> None:
    """Starts the time for the next head."""
    before = self.cycle
    super().on_response_complete()  # which may begin with a request that has come already
    self._expect_head(before)

  def connection_lost(self, exc: Exception | None) -> None:
    """Stops the time."""
    super().connection_lost(exc)
    if self._deadline is not None:
      self._deadline.cancel()

  def _expect_head(self, before: Any) -> None:
    """Closes the connection where its request is `before` still when the time is over."""
    if self._deadline is not None:
      self._deadline.cancel()
    self._deadline = self.loop.call_later(
      self.head_seconds, lambda: self.transport.close() if self.cycle is before else None
    )
