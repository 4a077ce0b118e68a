"""`hierjax config show`: a resolved config."""

from __future__ import annotations

import argparse

from hierjax.cli.train import add_config, config_of

HELP = "Print the resolved config of a name or file, with every key."
EXAMPLES = """
hierjax config show quickstart
hierjax config show my_config.py:flat --config.batch_size=64
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_config(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the config."""
  from hierjax.config_files import load_config, show_config

  print(show_config(load_config(config_of(args), args.overrides)))
  return 0
