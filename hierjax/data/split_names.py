"""Names of the splits of a data set."""

from __future__ import annotations

from hierjax.errors import UserError, did_you_mean
from hierjax.tree.readers.split_words import split_of_word

SPLITS = ("train", "validation", "test")


def split_name(text: str) -> str:
  """Returns the name of a split as written in run folders, `train`, `validation` or `test`; `val`, `dev`, ... will do.

  Raises:
    UserError: there is no such split; the message lists the choices and the nearest one.
  """
  name = split_of_word(text)
  if not name:
    choices = did_you_mean(text.strip().lower(), SPLITS)
    raise UserError(f"split {text!r}: choose from train, validation (or val), test{choices}")
  return name
