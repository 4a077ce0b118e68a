"""Names of the splits of a data set."""

from __future__ import annotations

from hierjax.errors import UserError, did_you_mean

SPLITS = ("train", "validation", "test")
_SHORT = {"val": "validation"}


def split_name(text: str) -> str:
  """Returns the name of a split as written in run folders: `train`, `validation` (also written `val`) or `test`.

  Raises:
    UserError: there is no such split; the message lists the choices and the nearest one.
  """
  name = text.strip().lower()
  name = _SHORT.get(name, name)
  if name not in SPLITS:
    raise UserError(f"split {text!r}: choose from train, validation (or val), test{did_you_mean(name, SPLITS)}")
  return name
