"""The record of a checkpoint: its step, its score and the checksums of its items, with a checksum of itself.

It lies in the metadata that orbax writes into the folder of a checkpoint before it gives the folder its name. A folder
without a record, whatever its name, is no checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hierjax.config import read_json
from hierjax.errors import UserError
from hierjax.runs.devices import fetched

KEY = "hierjax"
_FILE = "_CHECKPOINT_METADATA"  # orbax's; it warns of every item when asked for what we keep in it


class DamagedCheckpoint(UserError):
  """A checkpoint is not what was saved, or cannot be read; `what` says so in a clause."""

  def __init__(self, folder: Path, why: str):
    self.what = f"checkpoint {folder} is damaged ({why})"
    super().__init__(
      f"{self.what}; if you move that folder away, the run goes on from the checkpoint before it, or from the start"
    )


@dataclasses.dataclass(frozen=True)
class Record:
  """What is known of a checkpoint without its arrays.

  Attributes:
    step: steps done; also the name of the folder.
    score: the metric on validation, higher being better; None where it was not measured.
    contents: `content` of each item, by name.
    layouts: `layout` of each item, by name.
  """

  step: int
  score: float | None
  contents: Mapping[str, int]
  layouts: Mapping[str, int]

  @classmethod
  def of(cls, step: int, score: float | None, items: Mapping[str, Any]) -> Record:
    """Returns the record of items, trees of arrays, that are to be saved."""
    contents = {name: content(item) for name, item in items.items()}
    return cls(step, score, contents, {name: layout(item) for name, item in items.items()})

  def to_json(self) -> dict[str, Any]:
    """Returns plain data with a checksum of themselves."""
    fields = dataclasses.asdict(self)
    return fields | {"sha256": _sha256(fields)}


def read_record(folder: Path) -> Record:
  """Returns the record of the checkpoint in a folder.

  Raises:
    DamagedCheckpoint: it has none, or one that is not as it was written, or that is of another step.
  """
  try:
    found = read_json(folder / _FILE, "what orbax writes")
    fields = dict((found.get("custom_metadata") or {})[KEY])
    written = fields.pop("sha256")
    record = Record(**fields)
  except (OSError, UserError, LookupError, TypeError, ValueError, AttributeError) as error:
    raise DamagedCheckpoint(folder, "it has no record of its step and checksums") from error
  if written != _sha256(fields):
    raise DamagedCheckpoint(folder, "the record of its step and checksums is not as it was written")
  if str(record.step) != folder.name:
    raise DamagedCheckpoint(folder, f"it is of step {record.step}")
  return record


def content(tree: Any) -> int:
  """Returns the CRC-32 of a tree's arrays, their shapes and dtypes: 0.2 s for 36M weights."""
  found = 0
  for leaf in jax.tree.leaves(tree):
    array = np.ascontiguousarray(fetched(leaf))
    found = zlib.crc32(f"{array.dtype}{array.shape}".encode(), found)
    found = zlib.crc32(array.view(np.uint8).data if array.size else b"", found)
  return found


def layout(tree: Any) -> int:
  """Returns the CRC-32 of the shapes and dtypes of a tree of arrays, or of `jax.ShapeDtypeStruct`."""
  shapes = [f"{np.dtype(leaf.dtype)}{tuple(leaf.shape)}" for leaf in jax.tree.leaves(tree)]
  return zlib.crc32(" ".join(shapes).encode())


def _sha256(fields: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
