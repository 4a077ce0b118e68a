"""`python -m hierjax COMMAND`: everything but training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hierjax.errors import UserError
from hierjax.tree import cli as tree_cli


def _evaluate(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.report import print_accuracy
  from hierjax.evaluation.run import evaluate_run
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  print_accuracy(folder, evaluate_run(folder, devices.data_mesh(), arguments.split, arguments.data_root))
  return 0


def _predict(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.predict import find_images, predict, write_csv

  if arguments.top < 1:
    raise UserError(f"--top {arguments.top}: at least 1 path an image")
  devices.use_compilation_cache()
  rows = list(predict(arguments.workdir, find_images(arguments.images), arguments.top))
  if arguments.csv:
    write_csv(arguments.csv, rows)
  for row in rows:
    print(f"{row.image}: {row.error}" if row.error else f"{row.image}: {row.path}  {row.probability:.3f}")
  return 0


def _shapes(arguments: argparse.Namespace) -> int:
  from pathlib import Path

  from hierjax.data.shapes import write_folders

  if arguments.images < 1:
    raise UserError(f"--images {arguments.images}: at least 1")
  write_folders(Path(arguments.folder), arguments.images)
  print(f"{arguments.images} images are in {arguments.folder}")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m hierjax", description="Image classification into a tree of labels.")
  commands = parser.add_subparsers(required=True, metavar="COMMAND")

  tree = commands.add_parser("tree", help="show or check a label tree")
  tree_cli.add_arguments(tree)
  tree.set_defaults(run=tree_cli.run)

  evaluate = commands.add_parser("evaluate", help="measure a trained run on a split of its data set")
  evaluate.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  evaluate.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  evaluate.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  evaluate.set_defaults(run=_evaluate)

  predict = commands.add_parser("predict", help="label paths for image files")
  predict.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  predict.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
  predict.add_argument("--csv", metavar="FILE", help="also write the answers to this file")
  predict.add_argument("--top", type=int, default=1, metavar="K", help="the K best paths of each image (default 1)")
  predict.set_defaults(run=_predict)

  shapes = commands.add_parser("shapes", help="write images of the embedded set into folders, as an example")
  shapes.add_argument("folder", metavar="FOLDER", help="a new folder")
  shapes.add_argument("--images", type=int, default=200, metavar="N", help="how many (default 200)")
  shapes.set_defaults(run=_shapes)
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
