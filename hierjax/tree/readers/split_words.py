"""Words that data sets use for the names of their splits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_WORDS = {
  "train": "train training trn trainset train_set training_set",
  "validation": "validation val valid validate validating dev devel development eval evaluation val_set valid_set "
  "validation_set dev_set",
  "test": "test testing tst testset test_set testing_set",
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words.split()}


def word_list(text: str) -> list[str]:
  """Returns the words of a text, for tables of many."""
  return text.split()


def plain_word(text: str) -> str:
  """Returns a name in small letters, with `_` for blanks and punctuation."""
  return "_".join(re.sub(r"[\W_]+", " ", text.casefold()).split())


def split_of_word(text: str) -> str:
  """Returns `train`, `validation` or `test` for a name that means one of them, such as `TRAIN` or `dev`; else ""."""
  return _SPLIT_OF.get(plain_word(text), "")


def matching(name: str, found: Iterable[str]) -> list[str]:
  """Returns those of `found` that `name` can mean.

  That is `name` itself; or else those that differ from it in capitals only; or else the other names of the same split.
  """
  found = list(found)
  if name in found:
    return [name]
  alike = [other for other in found if plain_word(other) == plain_word(name)]
  split = split_of_word(name)
  return alike or [other for other in found if split and split_of_word(other) == split]


def same_split(names: Collection[str], named: Collection[str]) -> list[list[str]]:
  """Returns the groups of several names that mean one split, without names that a config gives a split of their own."""
  groups: dict[str, list[str]] = {}
  for name in sorted(names):
    if name not in named and (split := split_of_word(name)):
      groups.setdefault(split, []).append(name)
  return [group for group in groups.values() if len(group) > 1]
