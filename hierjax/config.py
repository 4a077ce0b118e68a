"""Sections of a config as arguments: their fields, the values of these, and names that stand for code."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import os
import pkgutil
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtyping import AbstractArray, jaxtyped

from hierjax.errors import UserError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

REQUIRED = inspect.Parameter.empty
_WORDS = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text", type(None): "None"}
_MOST = {int: 2**63 - 1, float: 3.4e38}  # of float32, as which floats are used


@dataclasses.dataclass(frozen=True)
class Field:
  """A key that a section may have.

  Attributes:
    kind: the annotation of the parameter that the value becomes.
    default: its default; REQUIRED where it has none.
    text: the first sentence of its description; '' where it has no description.
  """

  kind: Any
  default: Any
  text: str = ""


def fields_of(build: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Field]:
  """Returns the parameters of a class or function as the fields of a section.

  A classmethod that takes `**fields` passes them to its class, so it has those fields of the class that have a default.
  The docstring of the class describes the parameters of a classmethod.

  Args:
    build: a class or function, whose docstring describes its parameters under `Attributes:` or `Args:`.
    without: names to leave out.
  """
  return {name: field for name, field in _parameters(build).items() if name not in without}


@functools.cache
def _parameters(build: Callable[..., Any]) -> Mapping[str, Field]:
  kinds, texts = _annotations(build), field_texts(build)
  parameters = dict(inspect.signature(build).parameters)
  rest = {name for name, p in parameters.items() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
  if inspect.ismethod(build):
    owner: Any = build.__self__
    kinds, texts = _annotations(owner) | kinds, field_texts(owner) | texts
    own = inspect.signature(owner).parameters if rest else {}
    parameters = {name: p for name, p in own.items() if p.default is not REQUIRED} | parameters
  return {
    name: Field(kinds.get(name, Any), parameter.default, texts.get(name, ""))
    for name, parameter in parameters.items()
    if name not in rest
  }


@functools.cache
def _annotations(build: Callable[..., Any]) -> dict[str, Any]:
  """Returns the annotations of a class or function; none where they name what its module does not have."""
  try:
    return get_type_hints(build)
  except NameError:
    return {}


def field_texts(build: Callable[..., Any]) -> dict[str, str]:
  """Returns the first sentence of each entry under `Attributes:` or `Args:` of a docstring."""
  section = re.search(r"^(?:Attributes|Args):\n((?:  .*\n|\n)+)", f"{inspect.getdoc(build)}\n", re.M)
  entries = re.findall(r"^  (\w[\w, ]*): (.*\n(?:   .*\n)*)", section[1] if section else "", re.M)
  texts: dict[str, str] = {}
  for names, text in entries:
    sentence = re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0].removesuffix(".")
    texts |= dict.fromkeys(names.split(", "), sentence)
  return texts


def unpack(build: Callable[..., T], section: Mapping[str, Any], where: str, **given: Any) -> T:
  """Returns `build(**section, **given)`, lists in the section as tuples.

  Args:
    build: a class or function; each of its fields (see `fields_of`) that is not in `given` may stand in the section.
    section: the part of a config called `where`.
    where: the section's name, for messages; '' for the top level.
    **given: arguments that do not come from the config.

  Raises:
    UserError: a key is no field of `build`, a field without a default is missing, or a value is not of its field's
      kind; see `misfit`.
  """
  if not isinstance(section, Mapping):
    raise UserError(f"config.{where} = {section!r}: must hold keys and values")
  prefix = f"config.{where}." if where else "config."
  fields = fields_of(build, given)
  for key in section:
    if key not in fields:
      raise unknown_key(f"{prefix}{key}", fields)
  for key, field in fields.items():
    if field.default is REQUIRED and key not in section:
      raise UserError(f"{prefix}{key} is missing")
  for key, value in section.items():
    check_kind(value, fields[key].kind, f"{prefix}{key}")
  try:
    return build(**{key: frozen(value) for key, value in section.items()}, **given)
  except TypeError as error:  # a value of another kind
    raise UserError(f"config.{where}: a value is not of the kind that its key takes ({error})") from error


def checked(build: C) -> C:
  """Makes a function, a dataclass or a linen module refuse arguments of other kinds than its annotations say.

  Sections of a config are checked by `unpack`; this is for those who call from Python. The shapes of arrays count too:
  a letter stands for one number in all arguments of a call. A scalar of numpy or JAX will do for a number.

  Raises:
    UserError: when called so; it names the argument, its value, and the kind; see `misfit`.
  """
  inner: Any = build.__init__ if inspect.isclass(build) else build
  signature = inspect.signature(inner)

  @functools.wraps(inner)
  def outer(*args: Any, **kwargs: Any) -> Any:
    kinds = _annotations(build)
    with jaxtyped("context"):
      for key, value in signature.bind(*args, **kwargs).arguments.items():
        if not _is_scalar(value, kinds.get(key)):
          check_kind(value, kinds.get(key, Any), f"{build.__name__}: {key}")
    return inner(*args, **kwargs)

  if not inspect.isclass(build):
    return outer  # type: ignore[return-value]
  owner: Any = build
  owner.__init__ = outer
  return build


def _is_scalar(value: Any, kind: Any) -> bool:
  """Returns whether a value is a scalar of numpy or JAX, of a kind that is a number."""
  return kind in _MOST and getattr(value, "shape", None) == () and (kind is float or value.dtype.kind in "iu")


def unknown_key(key: str, allowed: Iterable[str]) -> UserError:
  """Returns the error for a key that a section does not have."""
  allowed = sorted(allowed)
  close = did_you_mean(key.rpartition(".")[2], allowed)
  return UserError(f"{key}: there is no such key{close} (allowed: {', '.join(allowed) or 'none'})")


def check_kind(value: Any, kind: Any, key: str) -> None:
  """Raises UserError for the value of a key that is not of the kind of its field; see `misfit`."""
  if wanted := misfit(value, kind):
    words = f"must be {wanted}"
    if get_origin(kind) is Literal:
      words = f"choose from {', '.join(map(str, get_args(kind)))}{did_you_mean(str(value), map(str, get_args(kind)))}"
    raise UserError(f"{key} = {shortened(value)}: {words}")


def parsed(text: str, kind: Any) -> Any:
  """Returns the value of a kind that a text of the command line stands for.

  A text that stands for no such value is returned as another value, or as it is: `misfit` refuses it. A single entry
  stands for a tuple of one, and texts of a tuple need no quotes: `(family, species)`.

  Args:
    text: `3`, `1e-3`, `true`, `None`, `(1, 2)`, `cosine`, ...
    kind: an annotation.
  """
  kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
  if type(None) in kinds and text == "None":
    return None
  if all(k in (str, type(None)) or (get_origin(k) is Literal and isinstance(get_args(k)[0], str)) for k in kinds):
    return text
  try:
    value = ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    value = text
  if isinstance(value, str) and any(get_origin(k) in (tuple, Sequence) and get_args(k)[0] is str for k in kinds):
    inner = text[1:-1] if (text[:1], text[-1:]) in (("(", ")"), ("[", "]")) else text
    value = tuple(word.strip() for word in inner.split(",") if word.strip())
  if any(get_origin(k) in (tuple, Sequence) for k in kinds) and not isinstance(value, list | tuple | types.NoneType):
    value = (value,)
  return float(value) if float in kinds and type(value) is int and abs(value) <= _MOST[float] else frozen(value)


def misfit(value: Any, kind: Any) -> str:
  """Returns what a value must be, in words, to be of a kind; '' where it is.

  Numbers are finite, whole ones have 64 bits, and a whole number will do for a float. Tuples may be lists.

  Args:
    value: from a config.
    kind: an annotation. Every value is of another kind than numbers, bool, str, None, literals, mappings, sequences and
      unions of these.
  """
  origin, kinds = get_origin(kind), get_args(kind)
  if origin in (Union, types.UnionType):
    wanted = [misfit(value, k) for k in kinds]
    return " or ".join(dict.fromkeys(wanted)) if all(wanted) else ""
  if origin is Literal:
    found = any(type(value) is type(k) and value == k for k in kinds)
    return "" if found else f"one of {', '.join(map(str, kinds))}"
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
  if isinstance(kind, type) and issubclass(kind, AbstractArray):
    like: Any = kind.dtype[Any, kind.dim_str]  # an array of any library
    return "" if isinstance(value, like) else f"an array {kind.dtype.__name__}[{kind.dim_str}]"
  if kind in _MOST:
    number = type(value) is int or (kind is float and isinstance(value, float))
    if number and abs(value) > _MOST[kind]:
      return f"{_WORDS[kind]}, at most {_MOST[kind]}"
    return "" if number and value == value else _WORDS[kind]
  return "" if kind not in _WORDS or isinstance(value, kind) else _WORDS[kind]


def shortened(value: Any) -> str:
  """Returns a value as Python writes it, its middle left out where that is long; of an array, its type and shape."""
  try:
    text = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)
  except ValueError:  # a number of thousands of digits
    return "(too long to show)"
  return text if len(text) <= 200 else f"{text[:100]} ... {text[-50:]}"


def frozen(value: Any) -> Any:
  """Returns lists as tuples: a config read back from JSON is the one that was written."""
  return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def is_plain(value: Any) -> bool:
  """Returns whether a value is data that a config can hold: None, a number, text, or tuples and mappings of these."""
  if isinstance(value, Mapping):
    return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
  return (
    all(map(is_plain, value))
    if isinstance(value, list | tuple)
    else value is None or isinstance(value, int | float | str)
  )


def lookup(table: Mapping[str, T], name: Any, where: str) -> T:
  """Returns `table[name]`; raises UserError with the choices, and the nearest one, where there is none."""
  if not isinstance(name, str) or name not in table:
    raise UserError(
      f"config.{where} = {name!r}: choose from {', '.join(sorted(table))}{did_you_mean(str(name), table)}"
    )
  return table[name]


def lookup_or_import(table: Mapping[str, Any], name: Any, where: str) -> Any:
  """Returns `table[name]`, or for a name `package.module:Thing` the `Thing` of that module, which is imported.

  Modules are found as Python finds them, and in the working directory.

  Raises:
    UserError: there is no such entry, module or thing.
  """
  if not isinstance(name, str) or ":" not in name:
    return lookup(table, name, where)
  if not {"", os.getcwd()} & set(sys.path):  # a console script's own folder stands in its place
    sys.path.append(os.getcwd())
  module, _, thing = name.partition(":")
  try:
    if not thing:
      raise ValueError("write package.module:Thing")
    return pkgutil.resolve_name(name)
  except AttributeError:
    raise UserError(f"config.{where} = {name!r}: the module {module!r} has no {thing!r}") from None
  except (ImportError, SyntaxError, ValueError) as error:
    raise UserError(f"config.{where} = {name!r}: {thing!r} needs the module {module!r}: {error}") from None


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
