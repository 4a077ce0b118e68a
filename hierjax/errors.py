"""The error that is for people, and the suggestions in its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
  """Something outside the code is wrong: a file, a label, a setting; the message says what, where and what is allowed.

  Entry points print the message alone, without a traceback.
  """


def few(texts: Sequence[str], most: int = 5, separator: str = ", ") -> str:
  """Returns the first of many texts, and "..." where there are more."""
  return separator.join([*texts[:most], *["..."] * (len(texts) > most)])


def did_you_mean(word: str, choices: Iterable[str]) -> str:
  """Returns "; did you mean 'x'?" for the choice x that is nearest to a word; '' where none is near."""
  close = difflib.get_close_matches(word, list(choices), n=1)
  return f"; did you mean {close[0]!r}?" if close else ""
