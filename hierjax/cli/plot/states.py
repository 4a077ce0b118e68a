"""`hierjax plot states`: a map of an LSTM's states."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_format, add_seed, add_split, add_workdir

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
  add_format(parser)


def run(args: argparse.Namespace) -> int:
  """Prints how well the states separate labels, and the picture's path."""
  extras.require("report")
  from hierjax.inference.loaded_run import LoadedRun, images_suffix
  from hierjax.report.plots.state_maps import StateSample, find_states, states_table
  from hierjax.report.plots.states import draw_states
  from hierjax.runs import devices

  devices.prepare()
  wanted = StateSample(args.split, args.images, args.seed)
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root)
  found = find_states(loaded, wanted)
  suffix = images_suffix(loaded.folder, loaded.run, found.split)
  print(f"{states_table(found)}\n{draw_states(loaded.folder, found, args.format, suffix)}")
  return 0
