"""`hierjax plot neighbours`: regions of test images and the nearest training regions."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_format, add_seed, add_workdir

HELP = "Draw regions of test images beside the nearest regions of training images."
EXAMPLES = """
hierjax plot neighbours runs/hlstm
hierjax plot neighbours runs/hlstm --scale 2x3 --queries 4
hierjax plot neighbours runs/hlstm --against runs/spp
hierjax plot neighbours runs/hlstm --every-region --queries 18
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "the folder of a run with a context neck")
  parser.add_argument(
    "--scale", default="", metavar="CELLS", help="regions a side, 3 or 2x3 (default: 3, or else the network's finest)"
  )
  parser.add_argument("--queries", type=int, default=6, metavar="N", help="regions to draw (default 6)")
  parser.add_argument(
    "--searched", type=int, default=5000, metavar="M", help="training images to search, at most (default 5000)"
  )
  parser.add_argument(
    "--against", default="", metavar="RUN",
    help="the folder of another run with a context neck: its layer is compared with this run's context map",
  )  # fmt: skip
  parser.add_argument(
    "--every-region", action="store_true",
    help="draw every region of a test image, and search every one of a training image, in place of one of each image",
  )  # fmt: skip
  add_seed(parser)
  add_data_root(parser)
  add_format(parser)


def run(args: argparse.Namespace) -> int:
  """Prints how often neighbours have the same label, and the picture's path."""
  extras.require("report")
  from hierjax.inference.loaded_run import LoadedRun, images_suffix
  from hierjax.report.plots.neighbour_search import NeighbourQuery, find_neighbours, neighbours_table
  from hierjax.report.plots.neighbours import draw_neighbours
  from hierjax.runs import devices

  devices.prepare()
  wanted = NeighbourQuery(args.scale, args.queries, args.seed, args.searched, args.every_region)
  mesh = devices.data_mesh()
  loaded = LoadedRun.open(args.workdir, mesh, args.data_root)
  against = LoadedRun.open(args.against, mesh, args.data_root) if args.against else None
  found = find_neighbours(loaded, wanted, against)
  suffix = next(filter(None, (images_suffix(loaded.folder, loaded.run, split) for split in (found.split, "train"))), "")
  print(f"{neighbours_table(found)}\n{draw_neighbours(loaded.folder, found, args.format, suffix)}")
  return 0
