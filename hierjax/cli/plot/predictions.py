"""`hierjax plot predictions`: images with their predicted paths."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_format, add_seed, add_split, add_workdir

HELP = "Draw images with their predicted paths: right, partly right and wrong."
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
  add_format(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the counts of each group and the picture's path."""
  extras.require("report")
  from hierjax.inference.loaded_run import LoadedRun, images_suffix
  from hierjax.report.plots.path_sheet import find_paths, groups_table
  from hierjax.report.plots.predictions import draw_paths
  from hierjax.runs import devices

  devices.prepare()
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root)
  found = find_paths(loaded, args.split, args.each, args.seed)
  suffix = images_suffix(loaded.folder, loaded.run, found.split)
  print(f"{groups_table(found)}\n{draw_paths(loaded.folder, found, args.format, suffix)}")
  return 0
