"""Label trees in nested JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

from hierjax.tree.draft import MAX_DEPTH, Draft
from hierjax.tree.label_tree import ROOT, TreeError
from hierjax.tree.readers.foreign_json import check_is_no_foreign_json

# The last quote is optional, so that text with an open string is scanned once and not once from each quote.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]|\n', re.DOTALL)
_FORMS = '{name: {...}}, {name: [leaves]} or {"name": ..., "children": [...]}'


class _Pairs(list[Any]):
  """A JSON object: its pairs in file order, repeated keys and all."""


@dataclasses.dataclass(frozen=True)
class _Branch:
  """A key of an object of names, and the value below it."""

  name: str
  below: Any


@dataclasses.dataclass(frozen=True)
class _Field:
  """A key of an object with a `name`, and its value."""

  key: str
  value: Any


def read_nested(text: str, file: str) -> Draft:
  """Reads a tree from nested JSON: objects of names, lists of leaves, or objects with `name` and `children`.

  Raises:
    TreeError: the text is not JSON, or not of one of these forms; the line is named.
  """
  lines = _string_lines(text, file)
  check_is_no_foreign_json(text, file)
  try:
    value = json.loads(text, object_pairs_hook=_Pairs)
  except json.JSONDecodeError as error:
    raise TreeError(f"{file}:{error.lineno}: not JSON ({error.msg})") from None
  except ValueError as error:  # a number of thousands of digits
    raise TreeError(f"{file}: not JSON ({error})") from None
  return _Reader(Draft(file), lines).read(value)


def _string_lines(text: str, file: str) -> list[int]:
  """Returns the line of each string, in file order; raises where brackets nest too deeply for a recursive parser."""
  lines = []
  line, depth = 1, 0
  for token in _TOKEN.finditer(text):
    match token[0][0]:
      case '"':
        lines.append(line)
      case "\n":
        line += 1
      case "[" | "{":
        depth += 1
        if depth > 2 * MAX_DEPTH + 2:  # the form with "children" spends two brackets a level
          raise TreeError(f"{file}:{line}: nested too deeply; a tree has at most {MAX_DEPTH} levels")
      case _:
        depth -= 1
  return lines


class _Reader:
  """Reader of parsed JSON in the order of the file, so that the next string is on the next of `lines`."""

  def __init__(self, draft: Draft, lines: Iterable[int]):
    self._draft = draft
    self._lines = iter(lines)
    self._line = 1
    # The values left to read, each with its parent node, the next one last: a stack, as there is no limit of depth.
    self._waiting: list[tuple[int, Any]] = []

  def read(self, value: Any) -> Draft:
    """Fills the draft from the result of `json.loads`."""
    self._below(ROOT, value)
    while self._waiting:
      node, item = self._waiting.pop()
      match item:
        case _Branch():
          self._below(self._draft.add(node, item.name, self._next_line()), item.below)
        case _Field():
          self._read_field(node, item)
        case _Pairs() if any(key == "name" and isinstance(value, str) for key, value in item):
          self._read_named(node, item)
        case _Pairs():
          self._wait(node, [_Branch(key, value) for key, value in item])
        case str():
          self._draft.add(node, item, self._next_line())
        case _:
          raise self._unknown(item)
    return self._draft

  def _below(self, node: int, value: Any) -> None:
    if isinstance(value, _Pairs):
      self._wait(node, [value])
    elif isinstance(value, list):
      self._wait(node, value)
    elif value is not None:
      raise self._unknown(value)

  def _read_named(self, parent: int, pairs: _Pairs) -> None:
    fields = [_Field(key, value) for key, value in pairs]
    name = next(field.value for field in fields if field.key == "name")
    self._wait(self._draft.add(parent, name), fields)
    if len({field.key for field in fields}) < len(fields):
      raise TreeError(f"{self._draft.file}:{self._next_line()}: {name!r}: a key stands twice in this object")

  def _read_field(self, node: int, field: _Field) -> None:
    line = self._next_line()
    if field.key == "name":
      self._draft.lines[node] = self._next_line()
    elif field.key == "children" and isinstance(field.value, list) and not isinstance(field.value, _Pairs):
      self._wait(node, field.value)
    else:
      message = 'an object with a "name" has "children", a list, and no more'
      raise TreeError(f"{self._draft.file}:{line}: {field.key!r}: {message}")

  def _wait(self, node: int, items: list[Any]) -> None:
    self._waiting += [(node, item) for item in reversed(items)]

  def _next_line(self) -> int:
    self._line = next(self._lines)
    return self._line

  def _unknown(self, value: Any) -> TreeError:
    return TreeError(f"{self._draft.file}:{self._line}: {str(value)[:40]!r} is no part of a tree; write {_FORMS}")
