"""Devices and processes: the mesh, batches onto it, arrays from it, and joining a multi-process run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hierjax.errors import UserError

AXES = ("data", "model")  # of a mesh; most have the first alone
# Seconds without a sign of a process, after which the others end too; by default jax waits for 100.
_HEARTBEAT = 30
_MOST_CPU_DEVICES = 8  # not measured; docs/how_to/backbones.md has the reasons
_LEAST_IMAGES = 8  # of a batch on each CPU device


def data_mesh() -> Mesh:
  """Returns all devices of all processes as one axis, `data`."""
  # jax.make_mesh would make the axis explicit, which most networks do not run under.
  return Mesh(np.array(jax.devices()), AXES[:1])


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole, such as the train state."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Any, mesh: Mesh, axis: int = 0) -> Any:
  """Puts this process's rows of a batch onto its devices; leaves `[b/processes ...]` become global arrays `[b ...]`.

  They are divided over all devices, whatever the axes of the mesh.

  Args:
    batch: of numpy.
    mesh: the devices.
    axis: that of the rows; the axes before it are whole on each device.
  """
  sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, mesh.axis_names))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def fetched(tree: Any) -> Any:
  """Returns arrays in numpy, each whole, on every process; of arrays that processes share, all must call it."""
  return jax.device_get(jax.tree.map(_whole, tree))


def _whole(x: Any) -> Any:
  shared = isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated
  return multihost_utils.process_allgather(x, tiled=True) if shared else x


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
  """Raises UserError unless a batch splits evenly over the devices, and over the parts of an accumulated gradient."""
  parts = mesh.size * accumulate
  if batch_size < 1 or batch_size % parts:
    raise UserError(
      f"config.batch_size = {batch_size} must be a multiple of {parts}: {mesh.size} devices"
      + (f" times config.optim.accumulate = {accumulate}" if accumulate > 1 else "")
    )


def devices_in_use() -> str:
  """Returns the devices in use in words: `2 processes, 8 x NVIDIA H100 (gpu)`."""
  devices = jax.devices()
  kinds = sorted({d.device_kind for d in devices})
  processes = f"{jax.process_count()} processes, " if jax.process_count() > 1 else ""
  return f"{processes}{len(devices)} x {', '.join(kinds)} ({devices[0].platform}), jax {jax.__version__}"


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
      jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)
      return
    address, count, index = multihost.split(",")
    n, i = int(count), int(index)
    if ":" not in address or not 0 <= i < n:
      raise ValueError("ADDRESS must be host:port, and I one of 0 .. N-1")
    jax.distributed.initialize(address, n, i, heartbeat_timeout_seconds=_HEARTBEAT)
  except (ValueError, RuntimeError) as error:
    allowed = "auto, or ADDRESS,N,I such as 10.0.0.1:1234,2,0"
    raise UserError(f"--multihost={multihost}: give {allowed} ({error})") from error


def fail(message: str) -> NoReturn:
  """Prints why the run fails and ends the process with status 1.

  One of several processes ends at once: the usual end would wait for the others, and they wait for this one's part.
  """
  if not jax.distributed.is_initialized():
    sys.exit(message)
  print(message, file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  time.sleep(3)  # the end of the first process kills the others, which may be about to print their reason
  os._exit(1)


def prepare(batch_size: int = 0, count: int = 0) -> None:
  """Sets this process up for the programs of a command, before it starts threads or asks for devices.

  Compiled programs are kept on disk, so that the second start of a run is fast; JAX_COMPILATION_CACHE_DIR moves them.
  CPUs are used as `_share_cores` and `keep_memory` say.

  Args:
    batch_size: of training, which the devices must share evenly; 0 where batches are padded.
    count: of CPU devices, `--devices`; 0 for as many as `_share_cores` chooses.

  Raises:
    UserError: this process has not so many cores, or its devices are others.
  """
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "hierjax" / "xla"))
  if count:
    _ask_for(count)
  else:
    _share_cores(batch_size)
  keep_memory()
  if count and len(found := jax.local_devices()) != count:
    raise UserError(
      f"--devices {count}: this process has {len(found)} x {found[0].device_kind} ({found[0].platform}), and the flag "
      "is the number of CPU devices: leave it out, or use the CPU with JAX_PLATFORMS=cpu"
    )


def _ask_for(count: int) -> None:
  """Makes a number of CPU devices, whatever environment variables say, where devices have not been made yet."""
  if count > _cores():
    raise UserError(f"--devices {count}: this process may use {_cores()} cores, each of which is one device at most")
  with contextlib.suppress(RuntimeError):  # they have been made
    jax.config.update("jax_num_cpu_devices", count)


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_cores(batch_size: int) -> None:
  """Makes a device of each CPU core, up to `_MOST_CPU_DEVICES`, so that cores share a batch as several GPUs do.

  A program of one device uses several cores in its larger products only. JAX_NUM_CPU_DEVICES=1 keeps one device, as
  `--devices 1` does. Processes that have joined keep one each.
  """
  chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
  if chosen or jax.distributed.is_initialized():
    return
  counts = range(1, min(_cores(), _MOST_CPU_DEVICES) + 1)
  enough = [n for n in counts if batch_size % n == 0 and (not batch_size or batch_size >= n * _LEAST_IMAGES)]
  jax.config.update("jax_num_cpu_devices", max(enough, default=1))


def keep_memory() -> None:
  """Keeps what is freed for the next allocation, where the C library is glibc. Call it before threads are started.

  Otherwise large buffers go back to the system after each step and are faulted in again, page by page, in the next: a
  fifth of the time of small networks, and more than a third of EfficientNet's. All threads allocate from one heap: the
  further ones of glibc are too small for such buffers, and the programs of several devices run in threads.
  """
  if (library := _glibc()) is None:
    return
  trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
  library.mallopt(arena_max, 1)
  library.mallopt(trim_threshold, -1)  # never
  library.mallopt(mmap_max, 0)  # what is mapped by itself is returned to the system when freed


def return_memory() -> None:
  """Gives free memory back to the system, where the C library is glibc.

  Call it before and after another program runs: its buffers are not those that are kept for this one.
  """
  if (library := _glibc()) is not None:
    library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
  library = ctypes.CDLL(None) if sys.platform == "linux" else None
  return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
