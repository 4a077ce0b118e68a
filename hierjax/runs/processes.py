"""The processes of one run compare what they were started with; `peers.py` watches that all live."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hierjax.config import flatten
from hierjax.errors import UserError

_SHOWN = 5
_PATIENCE_S = 10  # until a file of another machine is seen


def say(text: str) -> None:
  """Prints a text, on the first process alone."""
  if jax.process_index() == 0:
    print(text, flush=True)


def gathered(data: Any) -> list[Any]:
  """Returns the plain data of each process, on all of them."""
  if jax.process_count() == 1:
    return [data]
  text = np.frombuffer(json.dumps(data, sort_keys=True).encode(), np.uint8)
  lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(text))))
  padded = np.zeros(int(lengths.max()), np.uint8)
  padded[: len(text)] = text
  texts = np.asarray(multihost_utils.process_allgather(padded))
  return [json.loads(row[:length].tobytes()) for row, length in zip(texts, lengths.tolist(), strict=True)]


def agree(about: Mapping[str, Any]) -> None:
  """Compares plain data, sections of keys, over all processes of a run.

  Raises:
    UserError: a process has other data than the first one; the message names the keys. It is raised on all of them.
  """
  check_same([flatten(found) for found in gathered(about)])


def check_same(found: list[dict[str, Any]]) -> None:
  """Raises UserError unless the data of all processes are those of the first one."""
  first = found[0]
  for number, other in enumerate(found):
    keys = [key for key in sorted(first.keys() | other.keys()) if first.get(key, "") != other.get(key, "")]
    if keys:
      lines = [f"  {k}: {first.get(k, '(absent)')!r} on process 0, {other.get(k, '(absent)')!r} on it" for k in keys]
      more = [f"  ... and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
      raise UserError(
        f"process {number} differs from process 0, and the processes of one run must not: start all with the same "
        "command, code and data\n" + "\n".join([*lines[:_SHOWN], *more])
      )


def check_shared(folder: Path) -> None:
  """Raises UserError, on all processes, where they do not see the same folder."""
  if jax.process_count() == 1:
    return
  path = folder / ".shared"
  token = secrets.token_hex(8)
  if jax.process_index() == 0:
    path.write_text(token)
  token = gathered(token)[0]
  seen = [False] * jax.process_count()
  deadline = time.monotonic() + _PATIENCE_S
  while not all(seen) and time.monotonic() < deadline:
    seen = gathered(path.exists() and path.read_text() == token)
    time.sleep(0 if all(seen) else 1)
  if not all(seen):
    raise UserError(
      f"process {seen.index(False)} does not see the folder {folder} of process 0: --workdir must lie on a disk that "
      "all processes share"
    )
