"""What libraries in C++ print to stderr, without the stack traces that they print before they abort.

They write to the file descriptor 2, and jaxlib accepts no Python function that would run before its trace. So the
descriptor becomes a pipe to a process, this file as a program, which passes on all but stack traces. It reads to the
end of the pipe, so nothing is lost however the process that writes ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

_STDERR = 2
_TRACE = re.compile(rb"\*\*\* Check failure stack trace: \*\*\*|\s+@\s+0x[0-9a-f]+\s")  # of absl: a title, and frames
_programs: list[subprocess.Popen[bytes]] = []  # they end when this process does


def keep_traces_in(folder: Path) -> None:
  """Writes the stack traces of C++ from now on to a file of a folder, or of the system's for temporary files.

  Python's `sys.stderr` goes on to where it went. Without a stderr nothing is done.
  """
  try:
    real = os.dup(_STDERR)
  except OSError:  # closed
    return
  name = f".trace-{socket.gethostname()}-{os.getpid()}.txt"
  places = [str(place / name) for place in (folder, Path(tempfile.gettempdir()))]
  program = [sys.executable, "-S", __file__, *places]
  _programs.append(subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True))
  with contextlib.suppress(AttributeError, OSError):  # no file, such as under pytest
    if sys.stderr.fileno() == _STDERR:
      stream = os.fdopen(real, "w", 1, encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False)
      sys.stderr.flush()
      sys.stderr = stream
  pipe = _programs[-1].stdin
  assert pipe is not None
  os.dup2(pipe.fileno(), _STDERR)
  pipe.close()


def _pass_on(places: list[str]) -> None:
  """Passes on the lines of stdin to stderr, and appends those of stack traces to the first file that can be written."""
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # meant for the process that writes
    signal.signal(number, signal.SIG_IGN)
  trace: io.BufferedWriter | None = None
  left = b""
  while chunk := os.read(0, 2**16):
    *lines, left = (left + chunk).split(b"\n")
    for line in lines:
      trace = _line(line + b"\n", trace, places)
  _line(left, trace, places)


def _line(line: bytes, trace: io.BufferedWriter | None, places: list[str]) -> io.BufferedWriter | None:
  if not _TRACE.match(line):
    os.write(_STDERR, line)
    return trace
  while trace is None and places:
    with contextlib.suppress(OSError):
      trace = open(places[0], "ab", buffering=0)  # type: ignore[assignment]  # noqa: SIM115
      os.write(_STDERR, f"(its stack trace is in {places[0]})\n".encode())
    del places[0]
  if trace is None:
    os.write(_STDERR, line)
  else:
    trace.write(line)
  return trace


if __name__ == "__main__":
  _pass_on(sys.argv[1:])
