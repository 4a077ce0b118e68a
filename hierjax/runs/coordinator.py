"""Joining the processes of a run; the end of the first one, the coordinator of JAX, ends the others with a sentence.

JAX itself aborts a process, with a trace of its threads, as soon as its connection to the coordinator is closed. So the
other processes connect through a relay, a small process beside each, which sees the end of the connection, and keeps it
from JAX.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
from jax._src.clusters import ClusterEnv  # `auto` needs the address that JAX finds, which nothing public returns

from hierjax.errors import UserError
from hierjax.runs import relay

_START_S = 300  # until all processes have started
_HEARTBEAT_S = 30  # without a sign of a process, after which JAX ends the others; by default 100
_ANSWER_S = 10  # for the relay's answer

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
    between = _join(*_places(multihost), lost)
  except (ValueError, RuntimeError, OSError) as error:
    allowed = "auto, or ADDRESS,N,I such as 10.0.0.1:1234,2,0"
    raise UserError(f"--multihost={multihost}: give {allowed} ({error})") from error
  try:
    yield
  finally:
    if between is not None:
      between.lost = None  # from here on the coordinator may end as it should
  jax.distributed.shutdown()  # waits for all processes, so that the coordinator ends last
  if between is not None:
    between.close()


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
  between = None if index == 0 else Relay(address)
  jax.distributed.initialize(
    address if between is None else between.address,
    count,
    index,
    devices,
    initialization_timeout=_START_S,
    heartbeat_timeout_seconds=_HEARTBEAT_S,
  )
  if between is not None:
    between.lost = lost
  return between


class Relay:
  """A process that passes bytes on, between JAX here and the coordinator; see `hierjax.runs.relay`.

  Attributes:
    address: of its server on this machine, host:port.
    lost: called, from another thread, with the reason when the coordinator has closed a connection, which then stays
      open here; None at first, when connections are closed as they would be without the relay.
  """

  def __init__(self, address: str):
    """Starts the process; nothing needs to answer at `address` yet.

    Args:
      address: host:port.
    """
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-I", relay.__file__, host.strip("[]"), port]
    # A session of its own: Ctrl-C and the signals of a terminal are for this process, which ends it.
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert self._process.stdout is not None
    self.address = f"127.0.0.1:{int(self._process.stdout.readline())}"
    self._lost: Lost | None = None
    self._done = threading.Event()
    self._watcher = threading.Thread(target=self._watch, args=(self._process.stdout,), daemon=True)
    self._watcher.start()

  @property
  def lost(self) -> Lost | None:
    """What is called; see the class."""
    return self._lost

  @lost.setter
  def lost(self, lost: Lost | None) -> None:
    self._lost = lost
    self._done.clear()
    assert self._process.stdin is not None
    with contextlib.suppress(OSError):
      print("free" if lost is None else "guard", file=self._process.stdin, flush=True)
    self._done.wait(_ANSWER_S)

  def _watch(self, lines: Iterable[str]) -> None:
    for line in lines:
      if line.strip() == "done":
        self._done.set()
      elif self._lost is not None:
        self._lost("process 0 of the run, which coordinates the others, has ended, or cannot be reached any more")

  def close(self) -> None:
    """Ends the process."""
    assert self._process.stdin is not None
    self._process.stdin.close()
    self._process.wait()
    self._watcher.join()
