"""Config sections become the arguments of what they configure, so that a stray key is an error."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hierjax.errors import UserError

T = TypeVar("T")


def unpack(build: Callable[..., T], section: Mapping[str, Any], where: str, **given: Any) -> T:
  """Returns `build(**section, **given)`, lists in the section as tuples.

  Args:
    build: a class or function; every one of its parameters that is not in `given` may stand in the section.
    section: the part of a config called `where`.
    where: the section's name, for messages; '' for the top level.
    **given: arguments that do not come from the config.

  Raises:
    UserError: a key is not a parameter of `build`, or one without a default is missing.
  """
  if not isinstance(section, Mapping):
    raise UserError(f"config.{where} = {section!r}: must hold keys and values")
  prefix = f"config.{where}." if where else "config."
  parameters = {k: p for k, p in inspect.signature(build).parameters.items() if k not in given}
  for key in section:
    if key not in parameters:
      close = difflib.get_close_matches(key, parameters, n=1)
      hint = f"; did you mean {close[0]!r}?" if close else ""
      raise UserError(f"{prefix}{key}: there is no such key{hint} (allowed: {', '.join(sorted(parameters))})")
  for key, parameter in parameters.items():
    if parameter.default is inspect.Parameter.empty and key not in section:
      raise UserError(f"{prefix}{key} is missing")
  try:
    return build(**{key: frozen(value) for key, value in section.items()}, **given)
  except TypeError as error:  # a value of another kind
    raise UserError(f"config.{where}: a value is not of the kind that its key takes ({error})") from error


def frozen(value: Any) -> Any:
  """Returns lists as tuples: a config read back from JSON is the one that was written."""
  return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def choose(table: Mapping[str, T], name: Any, where: str) -> T:
  """Returns `table[name]`; raises UserError with the choices when there is none."""
  if name not in table:
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
