"""Config files by name or path, and their values with the overrides of a command line."""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hierjax.errors import UserError

_PACKAGE = Path(__file__).parent
# In a wheel the files are a folder of the package, in a checkout one beside it.
CONFIGS = next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())


def list_configs() -> list[tuple[str, str, tuple[tuple[str, ...], ...]]]:
  """Returns the name of each config, the first line of its docstring, and its variants."""
  found: list[tuple[str, str, tuple[tuple[str, ...], ...]]] = []
  for file in sorted(CONFIGS.glob("*.py")):
    module = ast.parse(file.read_text(encoding="utf-8"))
    if any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in module.body):
      found.append((file.stem, (ast.get_docstring(module) or "").splitlines()[0], ()))
  return found


def find_config(name: str) -> str:
  """Returns FILE.py:VARIANT for a config's name or file, with its variants.

  Raises:
    UserError: there is no such config.
  """
  file, colon, variant = name.partition(":")
  if file.endswith(".py") or "/" in file:
    return name
  known = [name for name, *_ in list_configs()]
  if file not in known:
    close = difflib.get_close_matches(file, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UserError(f"there is no config {file!r}{hint} (choose from {', '.join(known)}, or name a file FILE.py)")
  return f"{CONFIGS / file}.py{colon}{variant}"


def load_config(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
  """Returns a config's values as plain data.

  Args:
    name: a config's name, or a file; with variants, NAME:WORD,WORD.
    overrides: `--config.KEY=VALUE`, as on the command line.

  Raises:
    UserError: a config, variant or key is not there, or a value is of another kind.
  """
  from absl import flags
  from ml_collections import config_flags

  if str(CONFIGS.parent) not in sys.path:
    sys.path.append(str(CONFIGS.parent))  # config files say `from configs import common`
  argv = ["hierjax", f"--config={find_config(name)}", *overrides]
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
  try:
    values(argv)
    return holder.value.to_dict()  # a file that could not be read raises here
  except AttributeError as error:  # of ml_collections: there is no such key, or a file is no config
    raise UserError(_no_such_key(str(error), name, overrides)) from None
  except (flags.Error, OSError, TypeError, ValueError) as error:
    text = str(error).strip().splitlines()
    last = text[-1].strip() if text else type(error).__name__
    raise UserError(f"{last} (in the flags, or the config they name)") from None


def _no_such_key(text: str, name: str, overrides: Sequence[str]) -> str:
  if "'get_config'" in text:
    return f"{name} is not a config: it has no function get_config; `hierjax config list` shows configs"
  named = re.search(r"'(\w+)", text)
  key = named[1] if named else text
  keys = (word.lstrip("-").partition("=")[0] for word in overrides)
  full = next((k for k in keys if key in k.split(".")), key)
  meant = re.search(r'Did you mean "(\w+)"', text)
  hint = f"; did you mean {meant[1]!r}?" if meant else " (the keys of a part come with it: see the config's variants)"
  return f"{full}: the config has no key {key!r}{hint}"


def show_config(config: dict[str, Any]) -> str:
  """Returns a config as text."""
  return json.dumps(config, indent=2)
