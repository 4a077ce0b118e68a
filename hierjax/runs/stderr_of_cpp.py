"""What libraries in C++ print to stderr, without the traces that they print before they abort.

Such a library writes to the file descriptor 2, and jaxlib accepts no Python function that would run before its trace.
So the descriptor becomes a file, which a thread reads and passes on. Python's own `sys.stderr` is not delayed by this.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import tempfile
import threading
import time

_EVERY_S = 0.5
_TRACE = re.compile(rb"\*\*\* Check failure stack trace: \*\*\*|\s+@\s+0x[0-9a-f]+\s")  # of absl: a title, and frames
_STDERR = 2


class StderrOfCpp:
  """The file that stands for stderr, and what has been passed on of it.

  Attributes:
    traces: the lines that were not passed on.
  """

  def __init__(self) -> None:
    sys.stderr.flush()
    self.traces: list[bytes] = []
    self._to, self._held, self._read = os.dup(_STDERR), tempfile.TemporaryFile(), 0  # noqa: SIM115  # until the process ends
    self._one_at_a_time = threading.Lock()
    with contextlib.suppress(OSError, AttributeError):  # no file, such as under pytest
      if sys.stderr.fileno() == _STDERR:
        sys.stderr = os.fdopen(self._to, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    os.dup2(self._held.fileno(), _STDERR)
    threading.Thread(target=self._go_on, daemon=True).start()
    atexit.register(self.pass_on, to_the_end=True)

  def pass_on(self, to_the_end: bool = False) -> None:
    """Passes on the lines that are complete, or all that there is."""
    with self._one_at_a_time:
      text = os.pread(self._held.fileno(), os.fstat(self._held.fileno()).st_size - self._read, self._read)
      if not to_the_end:
        text = text[: text.rfind(b"\n") + 1]
      self._read += len(text)
      lines = text.splitlines(keepends=True)
      self.traces += [line for line in lines if _TRACE.match(line)]
      with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(self._to, b"".join(line for line in lines if not _TRACE.match(line)))

  def _go_on(self) -> None:
    while True:
      time.sleep(_EVERY_S)
      self.pass_on()
