"""Names of the splits of a data set."""

from __future__ import annotations

import difflib

from hierjax.errors import UserError

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
    close = difflib.get_close_matches(name, SPLITS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UserError(f"split {text!r}: choose from train, validation (or val), test{hint}")
  return name
