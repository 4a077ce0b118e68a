"""`hierjax data features`: the features of a run's images, for training heads."""

from __future__ import annotations

import argparse

from hierjax.cli.common import add_data_root, add_devices, add_workdir, quoted, split

HELP = "Write the backbone's features of a run's images, to train heads on."
EXAMPLES = """
hierjax data features runs/cnnrnn runs/features
hierjax data features runs/cnnrnn runs/features --splits train val
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser)
  parser.add_argument("out", metavar="OUT", help="a new folder for the features")
  about = "of train, validation (or val) and test (default: all that the data set has)"
  parser.add_argument("--splits", nargs="+", type=split, default=[], metavar="SPLIT", help=about)
  add_data_root(parser)
  add_devices(parser)


def run(args: argparse.Namespace) -> int:
  """Writes the features and prints the command that trains on them."""
  from pathlib import Path

  from hierjax.inference.features import write_features
  from hierjax.inference.loaded_run import LoadedRun
  from hierjax.runs import devices

  devices.prepare(count=args.devices)
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root, views=1)
  about = write_features(loaded, Path(args.out), args.splits)
  counts = ", ".join(f"{count:,} of {name}" for name, count in about["examples"].items())
  print(f"{counts}: {about['width']} features each, of step {about['step']} of {args.workdir}; next:")
  print(f"  hierjax train features --config.data.root={quoted(args.out)} --config.backbone.width={about['width']}")
  return 0
