"""Where numbers come from: the commands of a run, the versions of its programs, its commit, and how long it took.

provenance.json of a run folder has a session for each time that training was started there:

    {"sessions": [{"command": "...", "started": "2026-11-29T09:00:00+00:00", "seconds": 61.2, "commit": "...",
                   "versions": {"hierjax": "...", "jax": "..."}, "devices": "...", "from_step": 0,
                   "together": 1}]}

A session without `seconds` was cut off before it could write them. `together` is the number of runs that one program
trained in these seconds.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from hierjax import __version__
from hierjax.config import read_json
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder, write_whole

FILE = "provenance.json"
_PROGRAMS = ("jax", "jaxlib", "flax", "numpy", "optax", "orbax-checkpoint")
_TEXTS = ("command", "started", "commit", "devices")


def command_line() -> str:
  """Returns the command that runs, as a shell reads it."""
  program = Path(sys.argv[0]).name
  words = ["hierjax"] if program in ("hierjax", "__main__.py") else ["python", program]
  return shlex.join([*words, *sys.argv[1:]])


def versions() -> dict[str, str]:
  """Returns the versions of the programs that numbers depend on."""
  found = {"hierjax": __version__, "python": platform.python_version()}
  for name in _PROGRAMS:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def commit() -> str:
  """Returns the commit of hierjax's own source, `-dirty` after it where files were changed; '' if not known."""
  with contextlib.suppress(Exception):
    text = importlib.metadata.distribution("hierjax").read_text("direct_url.json")
    if found := json.loads(text or "{}").get("vcs_info", {}).get("commit_id"):
      return str(found)
  root = Path(__file__).parents[2]
  if not (root / ".git").exists():
    return ""
  say = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
  with contextlib.suppress(OSError, subprocess.SubprocessError):
    return subprocess.run(say, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
  return ""


def now() -> str:
  """Returns the date and time, in UTC, to the second."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def session(folder: RunFolder, from_step: int, together: int = 1) -> Iterator[None]:
  """Records that training runs here, and how long; of several processes, the first one writes.

  Args:
    folder: the run's.
    from_step: the steps that are done.
    together: the number of runs that one program trains; the seconds are those of all.
  """
  if jax.process_index():
    yield
    return
  before, start = read_sessions(folder), time.monotonic()
  about: dict[str, Any] = {"command": command_line(), "started": now(), "commit": commit(), "versions": versions()}
  about |= {"devices": devices.devices_in_use(), "from_step": from_step, "together": together}
  _write(folder, [*before, about])
  try:
    yield
  finally:
    _write(folder, [*before, {**about, "seconds": round(time.monotonic() - start, 1)}])


def _write(folder: RunFolder, sessions: list[dict[str, Any]]) -> None:
  with contextlib.suppress(OSError, UserError):  # a full disk: training says so where it matters
    write_whole(folder.path / FILE, json.dumps({"sessions": sessions}, indent=2) + "\n")


def read_sessions(folder: RunFolder) -> list[dict[str, Any]]:
  """Returns the sessions of a run, the oldest first, without those that are damaged."""
  try:
    rows = read_json(folder.path / FILE, "the sessions of a run").get("sessions")
  except (FileNotFoundError, UserError):
    return []
  return [row for row in rows if _is_session(row)] if isinstance(rows, list) else []


def _is_session(row: Any) -> bool:
  if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in _TEXTS):
    return False
  programs = row.get("versions")
  named = isinstance(programs, dict) and all(isinstance(value, str) for value in programs.values())
  counted = type(row.get("together", 1)) is int and row.get("together", 1) >= 1
  return named and counted and type(row.get("seconds", 0)) in (int, float)


def minutes(sessions: Sequence[Mapping[str, Any]]) -> float:
  """Returns a run's minutes of training, its share of them where one program trained several runs."""
  return sum(one.get("seconds", 0) / one.get("together", 1) for one in sessions) / 60
