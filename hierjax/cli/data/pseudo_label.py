"""`hierjax data pseudo-label`: predicted labels for training images with short labels."""

from __future__ import annotations

import argparse

from hierjax.cli.common import add_data_root, add_workdir, quoted

HELP = "Predict the rest of training labels that end above a leaf, for another run."
EXAMPLES = """
hierjax data pseudo-label runs/first
hierjax data pseudo-label runs/first --min-confidence 0.5 --out labels.npz
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "the folder of a run that was trained on the whole labels")
  parser.add_argument("--out", default="", metavar="FILE", help="the file (default: WORKDIR/pseudo_labels.npz)")
  parser.add_argument(
    "--min-confidence", type=float, default=0.0, metavar="P",
    help="keep a label short where the prediction has a lower probability (default 0)",
  )  # fmt: skip
  parser.add_argument("--free", action="store_true", help="predict without the known levels of each label")
  add_data_root(parser)


def run(args: argparse.Namespace) -> int:
  """Writes the file and prints the flags that use it."""
  from pathlib import Path

  from hierjax.evaluation.pseudo_labels import PseudoLabelRule, pseudo_label_summary, write_pseudo_labels
  from hierjax.inference.loaded_run import LoadedRun
  from hierjax.runs import devices

  rule = PseudoLabelRule(args.min_confidence, args.free)
  devices.prepare()
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root)
  found = write_pseudo_labels(loaded, Path(args.out) if args.out else None, rule)
  print(f"{pseudo_label_summary(found)}\nnext: the same training command, with another --workdir and")
  print(f"  --config.data.partial_labels=pseudo --config.data.pseudo_labels={quoted(found.file)}")
  return 0
