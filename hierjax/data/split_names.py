"""Names of the splits of a data set."""

from __future__ import annotations

from hierjax.errors import UserError, did_you_mean
from hierjax.tree.readers.split_words import split_of_word

SPLITS = ("train", "validation", "test")
CALIBRATION = "calibration"  # a split that a set never has: a part of its training images, config.data.calibration


def split_name(text: str) -> str:
  """Returns the name of a split as written in run folders; `val`, `dev`, ... will do.

  It is `train`, `validation`, `calibration` or `test`.

  Raises:
    UserError: there is no such split; the message lists the choices and the nearest one.
  """
  name = CALIBRATION if text.strip().lower() == CALIBRATION else split_of_word(text)
  if not name:
    choices = did_you_mean(text.strip().lower(), (*SPLITS, CALIBRATION))
    raise UserError(f"split {text!r}: choose from train, validation (or val), calibration, test{choices}")
  return name
