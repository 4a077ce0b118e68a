"""`hierjax plot tree`: the label tree with the images and the recall of each node."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_format, add_split, add_workdir, at_least_1

HELP = "Draw the label tree: sizes are numbers of images, colours recall."
EXAMPLES = """
hierjax plot tree runs/quickstart
hierjax plot tree runs/quickstart --levels 2 --format svg
hierjax plot tree runs/quickstart --node polygon
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser)
  add_split(parser)
  parser.add_argument(
    "--levels", type=at_least_1, default=0, metavar="N", help="levels to draw (default: as many as have room)"
  )
  parser.add_argument("--node", default="", help="the node at which the picture begins, by name or path (default: all)")
  add_data_root(parser)
  add_format(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the picture's path."""
  extras.require("report")
  from hierjax.evaluation.predictions import predictions_of_run
  from hierjax.inference.images import check_single_path
  from hierjax.inference.loaded_run import LoadedRun, images_suffix
  from hierjax.report.plots.consistency import find_node
  from hierjax.report.plots.tree import ScoredTree, draw_tree, narrowed
  from hierjax.runs import devices
  from hierjax.runs.run import asked_split
  from hierjax.tree.label_tree import ROOT

  devices.prepare()
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root)
  split, source = asked_split(loaded.run, args.split)
  check_single_path(loaded.run, source)
  inside = find_node(loaded.run.tree, args.node) if args.node else ROOT
  predictions = predictions_of_run(loaded, split, source)
  found = ScoredTree.of(loaded.folder.path.name, split, predictions, loaded.run.tree)
  suffix = images_suffix(loaded.folder, loaded.run, split)
  print(draw_tree(loaded.folder, narrowed(found, args.levels, inside), args.format, suffix))
  return 0
