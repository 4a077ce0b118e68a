"""`hierjax compare`: the images that one run has right and another wrong."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_format, add_workdir

HELP = "Count and draw the images that one run has right and another wrong."
EXAMPLES = """
hierjax compare runs/hlstm runs/spp
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "the run's folder, in which the picture is written")
  parser.add_argument("other", metavar="OTHER", help="the folder of another run on the same images and tree")
  add_data_root(parser)
  add_format(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the counts and the picture's path."""
  extras.require("report")
  from hierjax.evaluation.several_runs.compare import compare, comparison_table, differences_table
  from hierjax.inference.loaded_run import LoadedRun, images_suffix
  from hierjax.report.plots.comparison import draw_comparison
  from hierjax.runs import devices

  devices.prepare()
  mesh = devices.data_mesh()
  first, second = (LoadedRun.open(workdir, mesh, args.data_root) for workdir in (args.workdir, args.other))
  found = compare(first, second)
  print(
    f"{comparison_table(found)}\n\n{differences_table(found)}", flush=True
  )  # before the drawing, which fails where no image differs
  suffix = images_suffix(first.folder, first.run, found.split)
  print(draw_comparison(first.folder, found, args.format, suffix))
  return 0
