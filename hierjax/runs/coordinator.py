"""Joining the processes of a run."""

from __future__ import annotations

import sys

import jax

from hierjax.errors import UserError

_HEARTBEAT_S = 30  # without a sign of a process, after which JAX ends the others; by default 100


def join(multihost: str) -> None:
  """Joins the run's other processes, before any other use of JAX.

  Args:
    multihost: '' for a run of one process; 'auto' on Slurm, Open MPI, Cloud TPU or Kubernetes; or 'ADDRESS,N,I', the
      coordinator's host:port, the number of processes and the number of this one.

  Raises:
    UserError: the text is none of these, or the cluster could not be joined.
  """
  if not multihost:
    return
  print(f"waiting for the other processes of the run, --multihost={multihost}", file=sys.stderr, flush=True)
  try:
    if multihost == "auto":
      jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_S)
      return
    address, count, index = multihost.split(",")
    n, i = int(count), int(index)
    if ":" not in address or not 0 <= i < n:
      raise ValueError("ADDRESS must be host:port, and I one of 0 .. N-1")
    jax.distributed.initialize(address, n, i, heartbeat_timeout_seconds=_HEARTBEAT_S)
  except (ValueError, RuntimeError) as error:
    allowed = "auto, or ADDRESS,N,I such as 10.0.0.1:1234,2,0"
    raise UserError(f"--multihost={multihost}: give {allowed} ({error})") from error
