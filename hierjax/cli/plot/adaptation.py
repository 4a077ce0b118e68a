"""`hierjax plot adaptation`: the accuracy of several architectures by alpha."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_split, at_least_1

HELP = "Draw the accuracy of several architectures by alpha, from their sweeps."
EXAMPLES = """
hierjax evaluate runs/merge0-a runs/merge0-b --alpha sweep --out runs/merge0
hierjax evaluate runs/merge2-a runs/merge2-b --alpha sweep --out runs/merge2
hierjax plot adaptation runs/merge0 runs/merge2 --out runs/figure3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument(
    "folders",
    nargs="+",
    metavar="FOLDER",
    help="folders with a sweep, of `evaluate --alpha sweep`: one an architecture",
  )
  parser.add_argument("--out", required=True, metavar="FOLDER", help="the folder for the picture and its table")
  parser.add_argument("--ensemble", type=at_least_1, default=1, metavar="N", help="of ensembles of N runs (default 1)")
  add_split(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the picture's path."""
  extras.require("report")
  from hierjax.report.plots.architectures import draw_architectures, read_architectures
  from hierjax.runs.folder import RunFolder

  found = read_architectures([RunFolder(folder) for folder in args.folders], args.ensemble, args.split)
  print(draw_architectures(RunFolder(args.out), found, args.ensemble))
  return 0
