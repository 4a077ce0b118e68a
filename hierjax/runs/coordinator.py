"""Joining the processes of a run; the end of the first one, the coordinator of JAX, ends the others with a sentence.

JAX itself aborts a process, with a trace of its threads, as soon as its connection to the coordinator is closed. So the
other processes connect through a relay in themselves, which sees the end of the connection, and keeps it from JAX.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import jax
from jax._src.clusters import ClusterEnv  # `auto` needs the address that JAX finds, which nothing public returns

from hierjax.errors import UserError

_START_S = 300  # until all processes have started
_HEARTBEAT_S = 30  # without a sign of a process, after which JAX ends the others; by default 100
_BYTES = 2**16

Lost = Callable[[str], None]


@contextlib.contextmanager
def joined(multihost: str, lost: Lost) -> Iterator[None]:
  """Joins the run's other processes, before any other use of JAX.

  Args:
    multihost: '' for a run of one process; 'auto' on Slurm, Open MPI, Cloud TPU or Kubernetes; or 'ADDRESS,N,I', the
      coordinator's host:port, the number of processes and the number of this one.
    lost: called, from another thread, with a clause that says so where the coordinator ends while the context lasts;
      where that ends without an error, all processes wait for each other.

  Raises:
    UserError: the text is none of these, or the cluster could not be joined.
  """
  if not multihost:
    yield
    return
  print(f"waiting for the other processes of the run, --multihost={multihost}", file=sys.stderr, flush=True)
  try:
    relay = _join(*_places(multihost), lost)
  except (ValueError, RuntimeError, OSError) as error:
    allowed = "auto, or ADDRESS,N,I such as 10.0.0.1:1234,2,0"
    raise UserError(f"--multihost={multihost}: give {allowed} ({error})") from error
  try:
    yield
  finally:
    if relay is not None:
      relay.lost = None  # from here on the coordinator may end as it should
  jax.distributed.shutdown()  # waits for all processes, so that the coordinator ends last


def _places(multihost: str) -> tuple[str, int, int, Sequence[int] | None]:
  """Returns the coordinator's address, the number of processes, the number of this one, and its devices."""
  if multihost == "auto":
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    address, n, i, devices = ClusterEnv.auto_detect_unset_distributed_params(address, None, None, None, None, _START_S)
    if address is None or n is None or i is None:
      raise ValueError("this is no cluster that JAX knows")
    return address, n, i, devices
  place, count, index = multihost.split(",")
  if ":" not in place or not 0 <= int(index) < int(count):
    raise ValueError("ADDRESS must be host:port, and I one of 0 .. N-1")
  return place, int(count), int(index), None


def _join(address: str, count: int, index: int, devices: Sequence[int] | None, lost: Lost) -> Relay | None:
  relay = None if index == 0 else Relay(address)
  jax.distributed.initialize(
    address if relay is None else relay.address,
    count,
    index,
    devices,
    initialization_timeout=_START_S,
    heartbeat_timeout_seconds=_HEARTBEAT_S,
  )
  if relay is not None:
    relay.lost = lost
  return relay


class Relay:
  """A server on this machine that passes bytes on, between its clients and an address elsewhere.

  Attributes:
    address: of the server, host:port.
    lost: called, in place of closing a client's connection, with the reason when the other end has closed; None at
      first, when connections are closed as they would be without the relay.
  """

  def __init__(self, address: str):
    """Starts the server; nothing needs to answer at `address` yet.

    Args:
      address: host:port.
    """
    host, _, port = address.rpartition(":")
    self.lost: Lost | None = None
    self._target = host.strip("[]"), int(port)
    self._server = socket.create_server(("127.0.0.1", 0))
    self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
    _start(self._serve)

  def _serve(self) -> None:
    while True:
      client, _ = self._server.accept()
      try:
        target = socket.create_connection(self._target)
      except OSError:  # it has not started yet: the client tries again
        client.close()
        continue
      for one in (client, target):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      _start(self._pass_on, client, target)
      _start(self._pass_on, target, client, self._target_closed)

  def _pass_on(self, source: socket.socket, sink: socket.socket, closed: Callable[[], None] | None = None) -> None:
    with contextlib.suppress(OSError):
      while data := source.recv(_BYTES):
        sink.sendall(data)
    if closed is not None:
      closed()
    for one in (source, sink):
      with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)

  def _target_closed(self) -> None:
    if self.lost is not None:
      self.lost("process 0 of the run, which coordinates the others, has ended, or cannot be reached any more")


def _start(function: Callable[..., None], *args: object) -> None:
  threading.Thread(target=function, args=args, daemon=True).start()
