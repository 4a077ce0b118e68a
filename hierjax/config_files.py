"""Config files: where they are, what they are called, and the configs that they describe."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hierjax.errors import UserError, did_you_mean
from hierjax.nn.registry import PARTS
from hierjax.runs.folder import RunFolder
from hierjax.training.sections import SECTIONS, overridden, section_fields, top_fields

_PACKAGE = Path(__file__).parent
# In a wheel the files are a folder of the package, in a checkout one beside it.
CONFIGS = next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())


@dataclasses.dataclass(frozen=True)
class ConfigFile:
  """A config file and a variant of it.

  Attributes:
    path: the file.
    variant: words joined by commas; '' for none.
  """

  path: Path
  variant: str = ""

  def module(self) -> types.ModuleType:
    """Runs the file; raises UserError where it has no `get_config` or cannot be run."""
    module = run_file(self.path)
    if "get_config" not in vars(module):
      raise UserError(f"{self.path} is not a config: it has no function get_config; choose from {', '.join(names())}")
    return module

  def load(self, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the config, with all its fields; see `hierjax.training.sections.overridden`."""
    config: Mapping[str, Any] = self.module().get_config(self.variant).to_dict()
    return overridden(config, overrides)


def names() -> list[str]:
  """Returns the names of the configs that hierjax has."""
  files = sorted(CONFIGS.glob("*.py"))
  return [file.stem for file in files if "def get_config(" in file.read_text(encoding="utf-8")]


def find_config(spec: str) -> ConfigFile:
  """Returns the config file that a command line names.

  Args:
    spec: `quickstart` or `quickstart:flat,smoke`, one that hierjax has, with or without a variant; or the path of a
      file, `my_config.py` or `my_config.py:flat`.

  Raises:
    UserError: there is no such config.
  """
  name, _, variant = spec.partition(":")
  path = Path(name).expanduser()
  if path.suffix == ".py" and path.is_file():
    return ConfigFile(path, variant)
  own = path.suffix in ("", ".py") and path.parent in (Path(), Path("configs"), CONFIGS)
  if own and path.stem in names():
    return ConfigFile(CONFIGS / f"{path.stem}.py", variant)
  if path.suffix != ".py" and path.with_suffix(".py").is_file():
    raise UserError(f"there is no config {name!r}; for the file, write {path.with_suffix('.py')}")
  raise UserError(
    f"there is no config {name!r}{did_you_mean(path.stem, names())} (choose from {', '.join(names())}, or name a file "
    "FILE.py)"
  )


def load_config(spec: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
  """Returns the resolved config that a command line names.

  Args:
    spec: as of `find_config`.
    overrides: such as `--config.optim.lr=0.1`.

  Raises:
    UserError: there is no such config, variant, key or part, or a value is of another kind.
  """
  return find_config(spec).load(overrides)


def extending(run: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
  """Returns the config of a run that extends the one in a folder: that run's own, with values of a command line.

  Raises:
    UserError: the folder holds no run, or as `load_config`.
  """
  folder = RunFolder(run)
  return overridden(folder.config() | {"init": {"run": str(folder.path), "extend": True}}, overrides)


def show_config(config: Mapping[str, Any]) -> str:
  """Returns a resolved config as lines `key = value  # description`."""
  lines = []
  for key, field in top_fields().items():
    if key not in (*SECTIONS, *PARTS):
      lines.append(_line(key, repr(config[key]), field.text))
      continue
    for name, inner in section_fields(key, config[key]).items():
      shown = repr(config[key][name]) if name in config[key] else "(must be set)"
      lines.append(_line(f"{key}.{name}", shown, inner.text))
  return "\n".join(lines)


def _line(key: str, value: str, text: str) -> str:
  return f"{key} = {value}" + (f"  # {text}" if text else "")


def list_configs() -> list[tuple[str, str, tuple[tuple[str, ...], ...]]]:
  """Returns the name of each config, the first line of its docstring, and its variants: at most one word of a tuple."""
  return [_described(ConfigFile(CONFIGS / f"{name}.py").module(), name) for name in names()]


def _described(module: types.ModuleType, name: str) -> tuple[str, str, tuple[tuple[str, ...], ...]]:
  first = re.split(r"\n\s*\n", (module.__doc__ or "").strip())[0]
  return name, " ".join(first.split()), tuple(map(tuple, vars(module).get("KINDS", ())))


def run_file(path: Path) -> types.ModuleType:
  """Runs the file of a config or a study; raises UserError where it cannot be run."""
  _make_configs_importable()
  spec = importlib.util.spec_from_file_location(f"hierjax_file_{path.stem}", path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except (ImportError, SyntaxError, NameError) as error:
    raise UserError(f"{path}: {type(error).__name__}: {error}") from error
  return module


def _make_configs_importable() -> None:
  """Lets config files say `from configs import common`, whatever folder they are in."""
  package = sys.modules.setdefault("configs", types.ModuleType("configs"))
  found = list(getattr(package, "__path__", ()))
  beside = [str(Path(entry) / "configs") for entry in sys.path if (Path(entry) / "configs").is_dir()]
  package.__path__ = list(dict.fromkeys([*found, str(CONFIGS), *beside]))
