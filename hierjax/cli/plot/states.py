"""`hierjax plot states`: a map of an LSTM's states."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_seed, add_split, add_workdir

HELP = "Draw a map (t-SNE) of the LSTM's states after each step of the path."
EXAMPLES = """
hierjax plot states runs/cnnrnn
hierjax plot states runs/cnnrnn --images 500
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "the folder of a run with the head path_rnn")
  add_split(parser)
  parser.add_argument("--images", type=int, default=2000, metavar="N", help="images at most (default 2000)")
  add_seed(parser)
  add_data_root(parser)


def run(args: argparse.Namespace) -> int:
  """Prints how well the states separate labels, and the picture's path."""
  extras.require("report")
  from hierjax.evaluation.states import describe, find_states
  from hierjax.report.plots.states import draw_states
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(args.workdir)
  found = find_states(
    folder, devices.data_mesh(), split=args.split, images=args.images, seed=args.seed, data_root=args.data_root
  )
  print(f"{describe(found)}\n{draw_states(folder, found)}")
  return 0
