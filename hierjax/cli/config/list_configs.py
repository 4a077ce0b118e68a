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
  """Prints each config: its name, the first line of its docstring, and its variants."""
  from hierjax.config_files import list_configs

  found = list_configs()
  width = max(len(name) for name, *_ in found)
  for name, about, kinds in found:
    print(f"{name:{width}}  {about}")
    if words := [" | ".join(kind) for kind in kinds if kind]:
      print(f"{'':{width}}  variants: {'; '.join(words)}")
  return 0
