"""The names of the splits of a data set."""

from __future__ import annotations

import difflib

from hierjax.errors import UserError

SPLITS = ("train", "validation", "test")


def split_name(text: str) -> str:
  """Returns `train`, `validation` or `test`; `val` stands for `validation`.

  Raises:
    UserError: the text is no such name.
  """
  name = "validation" if text == "val" else text
  if name not in SPLITS:
    close = difflib.get_close_matches(name, SPLITS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UserError(f"split {text!r}: choose from {', '.join(SPLITS)}{hint}")
  return name
