"""The other processes of a run: one that has ended, or is frozen, ends the others with a sentence.

Each process writes a number that grows to a file in the run's folder, which all share, and reads those of the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from hierjax.runs.folder import RunFolder
from hierjax.runs.stderr_of_cpp import keep_traces_in

LOST = 75  # the exit status; EX_TEMPFAIL of sysexits.h

_BEAT_S, _SILENT_S = 1, 18  # well before JAX itself aborts the process, with a trace of its threads
_DONE = "done"
_ending = threading.Lock()
_handlers: list[Any] = []  # C keeps no reference to them


@contextlib.contextmanager
def watched(folder: RunFolder) -> Iterator[None]:
  """Ends this process with the status LOST where another one is silent for 18 seconds, while the context lasts.

  All processes enter it together, each with a first number written, and leave it together, unless by an exception.
  """
  if jax.process_count() == 1:
    yield
    return
  own = folder.path / f".alive-{jax.process_index()}"
  own.write_text(_now())
  multihost_utils.sync_global_devices("the processes of the run watch each other")
  stop = threading.Event()
  watch = threading.Thread(target=_watch, args=(folder, stop), daemon=True)
  watch.start()
  try:
    yield
    multihost_utils.sync_global_devices("the processes of the run have watched each other")
  finally:
    stop.set()
    watch.join()
    own.write_text(_DONE)


def end_where_jax_aborts(folder: RunFolder) -> None:
  """Makes this process end with a sentence and the status LOST where JAX aborts it; JAX prints its reason first.

  JAX aborts all other processes when process 0, which coordinates them, ends. A handler of Python's `signal` would wait
  for the main thread, which waits for process 0. This one runs in the thread that aborts. The trace that JAX prints is
  written to a file, since stderr is redirected; see `hierjax.runs.stderr_of_cpp`.
  """
  why = "JAX aborted this process for the reason above; most likely another one of the run, or its machine, has ended"
  keep_traces_in(folder.path)

  def ended(number: int) -> None:
    signal.alarm(_SILENT_S)  # ends the process where memory is damaged, and the rest of this hangs
    end(folder, why)

  _handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(ended))
  ctypes.CDLL(None).signal(ctypes.c_int(signal.SIGABRT), _handlers[-1])


def _watch(folder: RunFolder, stop: threading.Event) -> None:
  files = [folder.path / f".alive-{number}" for number in range(jax.process_count())]
  texts = [_text(file) for file in files]
  since = [time.monotonic()] * len(files)  # when each was seen last
  while not stop.wait(_BEAT_S):
    with contextlib.suppress(OSError):
      files[jax.process_index()].write_text(_now())
    for number, file in enumerate(files):
      now = _text(file)
      if now not in ("", texts[number]):
        texts[number], since[number] = now, time.monotonic()
      elif now not in ("", _DONE) and time.monotonic() - since[number] > _SILENT_S:
        end(folder, f"process {number} of the run has ended, or has not answered for {_SILENT_S} seconds")


def _now() -> str:
  return str(time.monotonic_ns())


def _text(file: Path) -> str:
  try:
    return file.read_text()
  except OSError:
    return ""


def is_lost(error: Exception) -> bool:
  """Returns whether an error of a step may be that another process has ended, and not that memory is short here."""
  text = str(error)
  if "RESOURCE_EXHAUSTED" in text:
    return False
  return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in text  # which raises ValueError too


def end(folder: RunFolder, why: str) -> None:
  """Prints why the run cannot go on, and from where it will, and ends the process; the first call alone does."""
  _ending.acquire()
  step = folder.newest_step()
  start = "the start" if step is None else f"step {step}"
  text = f"error: {why}; the same command on all processes goes on from {start}\n"
  sys.stdout.flush()
  sys.stderr.flush()
  os.write(2, text.encode())  # after what C++ has written there
  os._exit(LOST)
