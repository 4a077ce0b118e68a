"""`python -m hierjax COMMAND`: the arguments of everything but training; commands.py does it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hierjax.cli import commands
from hierjax.cli import tree as tree_cli
from hierjax.errors import UserError


def _add_answer(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--top", type=int, default=1, metavar="K", help="the K best paths of each image (default 1)")
  parser.add_argument(
    "--alpha", default="", metavar="A", help="draw the levels together by A, or by what a sweep has `chosen`"
  )
  parser.add_argument(
    "--stop-below", default="", metavar="P",
    help="paths end above nodes less probable than P, or than what a sweep has `chosen`",
  )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m hierjax", description="Image classification into a tree of labels.")
  subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

  tree = subparsers.add_parser("tree", help="show or check a label tree")
  tree_cli.add_arguments(tree)
  tree.set_defaults(run=tree_cli.run)

  evaluate = subparsers.add_parser("evaluate", help="measure a trained run on a split of its data set, or an ensemble")
  evaluate.add_argument(
    "workdir", nargs="+", metavar="WORKDIR",
    help="the run's folder; several are an ensemble, of which COARSE+FINE, two runs joined by +, are one member",
  )  # fmt: skip
  evaluate.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  evaluate.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  evaluate.add_argument(
    "--views", type=int, default=0, help="of each image, averaged: 1 or 10 (default: as in config.json)"
  )
  evaluate.add_argument(
    "--known-levels", type=int, default=0, metavar="N", help="upper levels of the labels that are given (default 0)"
  )
  evaluate.add_argument(
    "--alpha", default="", metavar="A",
    help="draw the levels together by A, from 0 to 2 (1: they agree); or `sweep`, which draws the errors for all A and "
    "chooses one on validation, or `chosen`, what that chose",
  )  # fmt: skip
  evaluate.add_argument(
    "--stop-below", default="", metavar="P",
    help="paths end above nodes less probable than P, from 0 to 1; or `sweep`, which draws what all P make of the "
    "answers and chooses one on validation, or `chosen`, what that chose",
  )  # fmt: skip
  evaluate.add_argument(
    "--right", type=float, metavar="SHARE", help="of the answers that such a sweep wants right (default 0.95)"
  )
  evaluate.add_argument("--node", default="", help="whose probability a sweep compares with its children's")
  evaluate.add_argument(
    "--against", nargs="+", default=[], metavar="WORKDIR", help="runs to compare with, paired in their order: t-tests"
  )
  evaluate.add_argument("--against-alpha", default="", metavar="A", help="for those (default: as --alpha)")
  evaluate.add_argument("--out", default="", metavar="FOLDER", help="for what is written of several runs")
  evaluate.set_defaults(run=commands.evaluate)

  predict = subparsers.add_parser("predict", help="label paths for image files")
  predict.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  predict.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
  predict.add_argument("--csv", metavar="FILE", help="also write the answers to this file")
  _add_answer(predict)
  predict.set_defaults(run=commands.predict)

  export = subparsers.add_parser("export", help="write what answers as `predict` does, for programs without hierjax")
  export.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  export.add_argument("out", metavar="OUT", help="a new folder")
  export.add_argument("--batch", type=int, default=1, metavar="B", help="how many images at a time (default 1)")
  _add_answer(export)
  export.set_defaults(run=commands.export)

  features = subparsers.add_parser(
    "features", help="write what a run's backbone makes of its images, to train heads on"
  )
  features.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  features.add_argument("out", metavar="OUT", help="a new folder for the features")
  features.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  features.add_argument(
    "--splits", nargs="+", default=[], metavar="SPLIT", help="of train, validation and test (default: all there are)"
  )
  features.set_defaults(run=commands.features)

  neighbours = subparsers.add_parser("neighbours", help="draw regions of test images and the nearest training regions")
  neighbours.add_argument("workdir", metavar="WORKDIR", help="the folder of a run with a context neck")
  neighbours.add_argument(
    "--scale", default="", metavar="CELLS", help="regions a side, 3 or 2x3 (default: 3, or else the network's finest)"
  )
  neighbours.add_argument("--queries", type=int, default=6, metavar="N", help="how many regions (default 6)")
  neighbours.add_argument("--seed", type=int, default=0, help="chooses the images and regions (default 0)")
  neighbours.add_argument(
    "--searched", type=int, default=5000, metavar="M", help="how many training images at most (default 5000)"
  )
  neighbours.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  neighbours.set_defaults(run=commands.neighbours)

  compare = subparsers.add_parser("compare", help="draw what one run has right and another wrong, and count both")
  compare.add_argument("workdir", metavar="WORKDIR", help="the run's folder, where the picture goes")
  compare.add_argument("other", metavar="OTHER", help="the folder of a run on the same images and tree")
  compare.add_argument(
    "--data-root", default="", help="where both runs' data set is now, if not where config.json says"
  )
  compare.set_defaults(run=commands.compare)

  states = subparsers.add_parser("states", help="draw a map of the LSTM's states after each step of the path")
  states.add_argument("workdir", metavar="WORKDIR", help="the folder of a run with the head path_rnn")
  states.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  states.add_argument("--images", type=int, default=2000, metavar="N", help="how many at most (default 2000)")
  states.add_argument("--seed", type=int, default=0, help="chooses the images (default 0)")
  states.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  states.set_defaults(run=commands.states)

  paths = subparsers.add_parser("paths", help="draw images with their predicted paths, right and wrong, and count them")
  paths.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  paths.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  paths.add_argument("--each", type=int, default=4, metavar="N", help="how many images a group (default 4)")
  paths.add_argument("--seed", type=int, default=0, help="chooses the images (default 0)")
  paths.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  paths.set_defaults(run=commands.paths)

  report = subparsers.add_parser("report", help="write a page that says what a run can do and where it errs")
  report.add_argument("workdir", metavar="WORKDIR", help="the run's folder, where report.html goes")
  report.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  report.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  report.set_defaults(run=commands.report)

  label = subparsers.add_parser("label", help="fill in training labels that end above a leaf, for another run")
  label.add_argument("workdir", metavar="WORKDIR", help="the folder of a run that learnt from the whole labels")
  label.add_argument("--out", default="", metavar="FILE", help="the file (default: WORKDIR/pseudo_labels.npz)")
  label.add_argument(
    "--min-confidence", type=float, default=0.0, metavar="P", help="less probable ones stay as they are (default 0)"
  )
  label.add_argument("--free", action="store_true", help="do not tell the run what is known of each label")
  label.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  label.set_defaults(run=commands.label)

  weights = subparsers.add_parser("import-weights", help="make a trained network's weights a backbone's")
  weights.add_argument("file", metavar="FILE", help="torchvision's or timm's weights, as .safetensors or .npz")
  weights.add_argument("--backbone", required=True, metavar="NAME", help="the network that they are of")
  weights.add_argument(
    "--out", default="", metavar="OUT", help="a .safetensors or .npz (default: FILE's name, .hierjax.safetensors)"
  )
  weights.set_defaults(run=commands.import_weights)

  shapes = subparsers.add_parser("shapes", help="write images of the embedded set into folders, as an example")
  shapes.add_argument("folder", metavar="FOLDER", help="a new folder")
  shapes.add_argument("--images", type=int, default=200, metavar="N", help="how many (default 200)")
  shapes.set_defaults(run=commands.shapes)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line and returns the exit status."""
  arguments = _parser().parse_args(argv)
  try:
    return arguments.run(arguments)
  except BrokenPipeError:  # of `| head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (UserError, OSError) as error:
    sys.excepthook = lambda *_: None  # reads of a damaged checkpoint that are still under way complain here
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130


if __name__ == "__main__":
  sys.exit(main())
