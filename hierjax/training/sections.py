"""The whole of a config: every section with all its fields, and values for them from a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hierjax.config import REQUIRED, Field, check_kind, fields_of, parsed, unknown_key
from hierjax.data.config import DataConfig
from hierjax.data.trees import TreeConfig
from hierjax.errors import UserError
from hierjax.nn.merged import MergedConfig
from hierjax.nn.registry import PARTS, part_fields
from hierjax.runs.run import FrozenConfig, RunConfig
from hierjax.training.initial.weights import InitConfig
from hierjax.training.optim import OptimConfig
from hierjax.training.phases import PhasesConfig
from hierjax.training.schedule import ScheduleConfig
from hierjax.training.sharding import ShardingConfig
from hierjax.types import DecodeOptions

Config = Mapping[str, Any]

SECTIONS: Mapping[str, Callable[..., Any]] = {
  "tree": TreeConfig,
  "data": DataConfig,
  "merged": MergedConfig,
  "optim": OptimConfig,
  "schedule": ScheduleConfig,
  "phases": PhasesConfig,
  "decode": DecodeOptions,
  "init": InitConfig,
  "frozen": FrozenConfig,
  "sharding": ShardingConfig,
}


def top_fields() -> dict[str, Field]:
  """Returns the fields of the top level; those that are sections have no default."""
  return fields_of(RunConfig)


def section_fields(name: str, section: Any) -> dict[str, Field]:
  """Returns the fields of a section: those of its dataclass, or the name of a part and the settings of that part.

  Raises:
    UserError: the section names a part that there is not.
  """
  if name in SECTIONS:
    return fields_of(SECTIONS[name])
  if not isinstance(section, Mapping) or "name" not in section:
    raise UserError(f"config.{name}.name is missing: choose from {', '.join(sorted(PARTS[name]))}")
  text = f"{', '.join(sorted(PARTS[name]))}, or package.module:Thing"
  return {"name": Field(str, REQUIRED, text)} | part_fields(name, section["name"])


def defaults() -> dict[str, Any]:
  """Returns a config with the defaults of all its fields, but for the parts, which have none."""
  top = {key: field.default for key, field in top_fields().items() if field.default is not REQUIRED}
  return top | {name: _filled({}, fields_of(build)) for name, build in SECTIONS.items()} | {"neck": {"name": "none"}}


def resolved(config: Config) -> dict[str, Any]:
  """Returns a config with all fields of all its sections, the ones that it lacks by their defaults.

  A key that no section has stays, for `hierjax.config.unpack` to refuse; so does a section that is none.

  Raises:
    UserError: a section names a part that there is not.
  """
  config = defaults() | dict(config)
  sections = {key: value for key, value in config.items() if key in (*SECTIONS, *PARTS) and isinstance(value, Mapping)}
  return dict(config) | {name: _filled(section, section_fields(name, section)) for name, section in sections.items()}


def overridden(config: Config, overrides: Iterable[str]) -> dict[str, Any]:
  """Returns a resolved config with the values of a command line.

  Where another part is named, its section begins with the defaults of that part.

  Args:
    config: resolved or not.
    overrides: such as `--config.optim.lr=0.1`; the text is read as the annotation of the field has it.

  Raises:
    UserError: there is no such key or part, or the value is of another kind.
  """
  texts = dict(map(_split, overrides))
  names = {part: texts[f"{part}.name"] for part in PARTS if f"{part}.name" in texts}
  others = {part: {"name": name} for part, name in names.items() if part not in config or config[part]["name"] != name}
  config = resolved(dict(config) | others)
  for key, text in texts.items():
    section, _, name = key.rpartition(".")
    kind = _field(config, section, name).kind
    value = parsed(text, kind)
    check_kind(value, kind, f"config.{key}")
    config |= {section: config[section] | {name: value}} if section else {name: value}
  if "data.size" in texts and config["data"]["size"]:  # it replaces the two that a config file has
    others = {key: 0 for key in ("crop", "resize") if f"data.{key}" not in texts}
    config |= {"data": config["data"] | others}
  return config


def _field(config: Config, section: str, name: str) -> Field:
  """Returns a field of a section, of the top level for ''; raises UserError where there is none."""
  fields = top_fields()
  if section:
    if section not in (*SECTIONS, *PARTS):
      raise unknown_key(f"config.{section}", fields)
    fields = section_fields(section, config[section])
  if name not in fields:
    raise unknown_key(f"config.{section}.{name}" if section else f"config.{name}", fields)
  if not section and name in (*SECTIONS, *PARTS):
    raise UserError(f"config.{name} is a section: set its fields one by one, --config.{name}.FIELD=VALUE")
  return fields[name]


def _filled(section: Config, fields: Mapping[str, Field]) -> dict[str, Any]:
  defaults = {key: field.default for key, field in fields.items()}
  return {key: value for key, value in (defaults | dict(section)).items() if value is not REQUIRED}


def _split(text: str) -> tuple[str, str]:
  key, equals, value = text.lstrip("-").partition("=")
  if not key.startswith("config.") or not equals:
    raise UserError(f"{text}: values of a config are written --config.KEY=VALUE")
  return key.removeprefix("config."), value
