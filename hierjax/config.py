"""Config sections become the arguments of what they configure, so that a stray key or value is an error."""

from __future__ import annotations

import difflib
import inspect
import itertools
import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hierjax.errors import UserError

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text", type(None): "None"}
_MOST = {int: 2**63 - 1, float: 3.4e38}  # of float32, as which floats are used


def unpack(build: Callable[..., T], section: Mapping[str, Any], where: str, **given: Any) -> T:
  """Returns `build(**section, **given)`, lists in the section as tuples.

  Args:
    build: a class or function; every one of its parameters that is not in `given` may stand in the section.
    section: the part of a config called `where`.
    where: the section's name, for messages; '' for the top level.
    **given: arguments that do not come from the config.

  Raises:
    UserError: a key is not a parameter of `build`, one without a default is missing, or a value is not of the kind that
      the parameter is annotated with, see `misfit`.
  """
  if not isinstance(section, Mapping):
    raise UserError(f"config.{where} = {section!r}: must hold keys and values")
  prefix = f"config.{where}." if where else "config."
  parameters = {k: p for k, p in inspect.signature(build).parameters.items() if k not in given}
  for key in section:
    if key not in parameters:
      close = difflib.get_close_matches(key, parameters, n=1)
      hint = f"; did you mean {close[0]!r}?" if close else ""
      raise UserError(f"{prefix}{key}: there is no such key{hint} (allowed: {', '.join(sorted(parameters)) or 'none'})")
  for key, parameter in parameters.items():
    if parameter.default is inspect.Parameter.empty and key not in section:
      raise UserError(f"{prefix}{key} is missing")
  kinds = get_type_hints(build)
  for key, value in section.items():
    if wanted := misfit(value, kinds.get(key)):
      raise UserError(f"{prefix}{key} = {shortened(value)}: must be {wanted}")
  try:
    return build(**{key: frozen(value) for key, value in section.items()}, **given)
  except TypeError as error:  # a value of another kind
    raise UserError(f"config.{where}: a value is not of the kind that its key takes ({error})") from error


def misfit(value: Any, kind: Any) -> str:
  """Returns what a value must be, in words, to be of a kind; '' where it is.

  Numbers are finite, whole ones have 64 bits, and a whole number will do for a float. Tuples may be lists.

  Args:
    value: from a config.
    kind: an annotation. Of others than numbers, bool, str, None, mappings, sequences and unions of these, all is.
  """
  origin, kinds = get_origin(kind), get_args(kind)
  if origin in (Union, types.UnionType):
    wanted = [misfit(value, k) for k in kinds]
    return " or ".join(dict.fromkeys(wanted)) if all(wanted) else ""
  if origin is Literal:  # which ones there are, what is built says
    kind = type(kinds[0])
  if origin is Mapping:
    return "" if isinstance(value, Mapping) else "keys and values"
  if origin in (Sequence, tuple):
    if not isinstance(value, list | tuple):
      return "a tuple"
    fixed = origin is tuple and ... not in kinds
    if fixed and len(value) != len(kinds):
      return f"a tuple of {len(kinds)}"
    wanted = [misfit(*pair) for pair in zip(value, kinds if fixed else itertools.repeat(kinds[0]), strict=False)]
    return next((f"a tuple, each entry {words}" for words in wanted if words), "")
  if kind in _MOST:
    number = type(value) is int or (kind is float and isinstance(value, float))
    if number and abs(value) > _MOST[kind]:
      return f"{_WORDS[kind]}, at most {_MOST[kind]}"
    return "" if number and value == value else _WORDS[kind]
  return "" if kind not in _WORDS or isinstance(value, kind) else _WORDS[kind]


def shortened(value: Any) -> str:
  """Returns a value as Python writes it, its middle left out where that is long."""
  try:
    text = repr(value)
  except ValueError:  # a number of thousands of digits
    return "(too long to show)"
  return text if len(text) <= 200 else f"{text[:100]} ... {text[-50:]}"


def frozen(value: Any) -> Any:
  """Returns lists as tuples: a config read back from JSON is the one that was written."""
  return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def choose(table: Mapping[str, T], name: Any, where: str) -> T:
  """Returns `table[name]`; raises UserError with the choices when there is none."""
  if not isinstance(name, str) or name not in table:
    raise UserError(f"config.{where} = {name!r}: choose from {', '.join(sorted(table))}")
  return table[name]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the leaves of nested mappings by their dotted keys."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def read_json(path: Path, what: str) -> dict[str, Any]:
  """Returns the object that a JSON file holds.

  Args:
    path: the file.
    what: what it must be, for messages.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: it holds something else.
  """
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise
  except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
    raise UserError(f"{path} is damaged: {error}") from None
  except (RecursionError, ValueError):
    raise UserError(f"{path} is damaged: brackets or digits without end") from None
  if not isinstance(found, dict):
    raise UserError(f"{path} is not {what}")
  return found
