"""`hierjax plot predictions`: images with their predicted paths."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_seed, add_split, add_workdir

HELP = "Draw images with their predicted paths: right, partly wrong and wrong."
EXAMPLES = """
hierjax plot predictions runs/quickstart
hierjax plot predictions runs/quickstart --split val --each 6
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser)
  add_split(parser)
  parser.add_argument("--each", type=int, default=4, metavar="N", help="images a group (default 4)")
  add_seed(parser)
  add_data_root(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the counts of each group and the picture's path."""
  extras.require("report")
  from hierjax.evaluation.predictions import describe, find_paths
  from hierjax.report.plots.predictions import draw_paths
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(args.workdir)
  found = find_paths(
    folder, devices.data_mesh(), split=args.split, each=args.each, seed=args.seed, data_root=args.data_root
  )
  print(f"{describe(found)}\n{draw_paths(folder, found)}")
  return 0
