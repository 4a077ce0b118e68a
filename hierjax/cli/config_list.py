"""`hierjax config list`: the configs that come with the package."""

from __future__ import annotations

import argparse

HELP = "List the configs that come with the package."
EXAMPLES = """
hierjax config list
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares no arguments."""


def run(args: argparse.Namespace) -> int:
  """Prints a line a config: its name and the first line of its docstring."""
  from hierjax.config_files import list_configs

  found = list_configs()
  width = max(map(len, found))
  for name, about in found.items():
    print(f"{name:{width}}  {about}")
  return 0
