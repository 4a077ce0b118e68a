"""`python -m hierjax COMMAND`: everything but training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierjax.errors import UserError
from hierjax.tree import cli as tree_cli

if TYPE_CHECKING:
  from hierjax.evaluation.predict import Row


def _evaluate(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.judge import Question, evaluate

  question = Question(
    workdirs=arguments.workdir,
    split=arguments.split,
    data_root=arguments.data_root,
    views=arguments.views,
    known_levels=arguments.known_levels,
    alpha=arguments.alpha,
    stop_below=arguments.stop_below,
    right=arguments.right,
    node=arguments.node,
    against=arguments.against,
    against_alpha=arguments.against_alpha,
    out=arguments.out,
  )
  devices.use_compilation_cache()
  evaluate(question, devices.data_mesh())
  return 0


def _predict(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.predict import find_images, predict, write_csv

  if arguments.top < 1:
    raise UserError(f"--top {arguments.top}: at least 1 path an image")
  devices.use_compilation_cache()
  images = find_images(arguments.images)
  rows = list(predict(arguments.workdir, images, arguments.top, arguments.alpha, arguments.stop_below))
  if arguments.csv:
    write_csv(arguments.csv, rows)
  for row in rows:
    if row.error:
      print(row.error, file=sys.stderr)
    else:
      print(f"{row.image}: {_answer(row, 'not sure' if arguments.stop_below else 'no path passes')}")
  failed = sum(bool(row.error) for row in rows)
  if failed:
    print(f"{failed} of {len(images)} images could not be read", file=sys.stderr)
  return 1 if failed == len(images) else 0


def _answer(row: Row, none: str) -> str:
  return none if row.probability is None else f"{row.path}  {row.probability:.3f}"


def _features(arguments: argparse.Namespace) -> int:
  import shlex
  from pathlib import Path

  from hierjax import devices
  from hierjax.evaluation.features import write_features
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder, out = RunFolder(arguments.workdir), Path(arguments.out)
  about = write_features(folder, out, devices.data_mesh(), arguments.data_root, arguments.splits)
  counts = ", ".join(f"{count:,} of {split}" for split, count in about["examples"].items())
  print(f"{counts}: {about['width']} features each, of step {about['step']} of {arguments.workdir}; next:")
  root, width = f"--config.data.root={shlex.quote(str(out))}", f"--config.backbone.width={about['width']}"
  print(f"  python train.py --config=configs/features.py {root} {width}")
  return 0


def _neighbours(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.neighbours import describe, find_neighbours
  from hierjax.evaluation.neighbours_picture import draw_neighbours
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  found = find_neighbours(
    folder,
    devices.data_mesh(),
    scale=arguments.scale,
    queries=arguments.queries,
    seed=arguments.seed,
    searched=arguments.searched,
    data_root=arguments.data_root,
  )
  print(f"{describe(found)}\n{draw_neighbours(folder, found)}")
  return 0


def _compare(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.compare import compare, describe, draw_comparison
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder, other = RunFolder(arguments.workdir), RunFolder(arguments.other)
  found = compare(folder, other, devices.data_mesh(), arguments.data_root)
  print(describe(found), flush=True)  # also where there is nothing to draw
  print(draw_comparison(folder, found))
  return 0


def _states(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.states import describe, find_states
  from hierjax.evaluation.states_picture import draw_states
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  found = find_states(
    folder,
    devices.data_mesh(),
    split=arguments.split,
    images=arguments.images,
    seed=arguments.seed,
    data_root=arguments.data_root,
  )
  print(f"{describe(found)}\n{draw_states(folder, found)}")
  return 0


def _paths(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.paths_picture import draw_paths
  from hierjax.evaluation.paths_sheet import describe, find_paths
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  found = find_paths(
    folder,
    devices.data_mesh(),
    split=arguments.split,
    each=arguments.each,
    seed=arguments.seed,
    data_root=arguments.data_root,
  )
  print(f"{describe(found)}\n{draw_paths(folder, found)}")
  return 0


def _report(arguments: argparse.Namespace) -> int:
  from hierjax import devices
  from hierjax.evaluation.report import find, write_report
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  print(write_report(find(folder, devices.data_mesh(), arguments.split, arguments.data_root)))
  return 0


def _label(arguments: argparse.Namespace) -> int:
  import shlex
  from pathlib import Path

  from hierjax import devices
  from hierjax.evaluation.pseudo_labels import describe, write_pseudo_labels
  from hierjax.run_folder import RunFolder

  devices.use_compilation_cache()
  found = write_pseudo_labels(
    RunFolder(arguments.workdir),
    devices.data_mesh(),
    Path(arguments.out) if arguments.out else None,
    min_confidence=arguments.min_confidence,
    free=arguments.free,
    data_root=arguments.data_root,
  )
  file = shlex.quote(str(found.file))
  print(f"{describe(found)}\nnext: the same training command, with another --workdir and")
  print(f"  --config.data.coarse_images=pseudo --config.data.pseudo_labels={file}")
  return 0


def _shapes(arguments: argparse.Namespace) -> int:
  from pathlib import Path

  from hierjax.data.shapes import write_folders

  if arguments.images < 1:
    raise UserError(f"--images {arguments.images}: at least 1")
  write_folders(Path(arguments.folder), arguments.images)
  print(f"{arguments.images} images are in {arguments.folder}")
  return 0


def _import_weights(arguments: argparse.Namespace) -> int:
  from pathlib import Path

  from hierjax.models.factory import BACKBONES
  from hierjax.pretrained.files import FORMATS, to_bytes
  from hierjax.pretrained.name_maps import NETWORKS
  from hierjax.pretrained.restore import describe, restore
  from hierjax.run_folder import write_whole

  if arguments.backbone not in NETWORKS:
    raise UserError(f"--backbone {arguments.backbone}: choose from {', '.join(NETWORKS)}")
  network, file = NETWORKS[arguments.backbone], Path(arguments.file)
  out = Path(arguments.out) if arguments.out else file.with_name(f"{file.stem}.hierjax.safetensors")
  if out.suffix not in FORMATS or out.resolve() == file.resolve():
    raise UserError(f"--out {out}: must be another file than {file}, and end with {' or '.join(FORMATS)}")
  weights = restore(file, network, BACKBONES[network.backbone](**network.settings))
  write_whole(out, to_bytes(weights, out))
  print(describe(weights, network, out))
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m hierjax", description="Image classification into a tree of labels.")
  commands = parser.add_subparsers(required=True, metavar="COMMAND")

  tree = commands.add_parser("tree", help="show or check a label tree")
  tree_cli.add_arguments(tree)
  tree.set_defaults(run=tree_cli.run)

  evaluate = commands.add_parser("evaluate", help="measure a trained run on a split of its data set, or an ensemble")
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
  evaluate.set_defaults(run=_evaluate)

  predict = commands.add_parser("predict", help="label paths for image files")
  predict.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  predict.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
  predict.add_argument("--csv", metavar="FILE", help="also write the answers to this file")
  predict.add_argument("--top", type=int, default=1, metavar="K", help="the K best paths of each image (default 1)")
  predict.add_argument(
    "--alpha", default="", metavar="A", help="draw the levels together by A, or by what a sweep has `chosen`"
  )
  predict.add_argument(
    "--stop-below", default="", metavar="P",
    help="paths end above nodes less probable than P, or than what a sweep has `chosen`",
  )  # fmt: skip
  predict.set_defaults(run=_predict)

  features = commands.add_parser("features", help="write what a run's backbone makes of its images, to train heads on")
  features.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  features.add_argument("out", metavar="OUT", help="a new folder for the features")
  features.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  features.add_argument(
    "--splits", nargs="+", default=[], metavar="SPLIT", help="of train, validation and test (default: all there are)"
  )
  features.set_defaults(run=_features)

  neighbours = commands.add_parser("neighbours", help="draw regions of test images and the nearest training regions")
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
  neighbours.set_defaults(run=_neighbours)

  compare = commands.add_parser("compare", help="draw what one run has right and another wrong, and count both")
  compare.add_argument("workdir", metavar="WORKDIR", help="the run's folder, where the picture goes")
  compare.add_argument("other", metavar="OTHER", help="the folder of a run on the same images and tree")
  compare.add_argument(
    "--data-root", default="", help="where both runs' data set is now, if not where config.json says"
  )
  compare.set_defaults(run=_compare)

  states = commands.add_parser("states", help="draw a map of the LSTM's states after each step of the path")
  states.add_argument("workdir", metavar="WORKDIR", help="the folder of a run with the head path_rnn")
  states.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  states.add_argument("--images", type=int, default=2000, metavar="N", help="how many at most (default 2000)")
  states.add_argument("--seed", type=int, default=0, help="chooses the images (default 0)")
  states.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  states.set_defaults(run=_states)

  paths = commands.add_parser("paths", help="draw images with their predicted paths, right and wrong, and count them")
  paths.add_argument("workdir", metavar="WORKDIR", help="the run's folder")
  paths.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  paths.add_argument("--each", type=int, default=4, metavar="N", help="how many images a group (default 4)")
  paths.add_argument("--seed", type=int, default=0, help="chooses the images (default 0)")
  paths.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  paths.set_defaults(run=_paths)

  report = commands.add_parser("report", help="write a page that says what a run can do and where it errs")
  report.add_argument("workdir", metavar="WORKDIR", help="the run's folder, where report.html goes")
  report.add_argument("--split", default="", help="train, validation or test (default: test, or else validation)")
  report.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  report.set_defaults(run=_report)

  label = commands.add_parser("label", help="fill in training labels that end above a leaf, for another run")
  label.add_argument("workdir", metavar="WORKDIR", help="the folder of a run that learnt from the whole labels")
  label.add_argument("--out", default="", metavar="FILE", help="the file (default: WORKDIR/pseudo_labels.npz)")
  label.add_argument(
    "--min-confidence", type=float, default=0.0, metavar="P", help="less probable ones stay as they are (default 0)"
  )
  label.add_argument("--free", action="store_true", help="do not tell the run what is known of each label")
  label.add_argument("--data-root", default="", help="where the data set is now, if not where config.json says")
  label.set_defaults(run=_label)

  weights = commands.add_parser("import-weights", help="make a trained network's weights a backbone's")
  weights.add_argument("file", metavar="FILE", help="torchvision's or timm's weights, as .safetensors or .npz")
  weights.add_argument("--backbone", required=True, metavar="NAME", help="the network that they are of")
  weights.add_argument(
    "--out", default="", metavar="OUT", help="a .safetensors or .npz (default: FILE's name, .hierjax.safetensors)"
  )
  weights.set_defaults(run=_import_weights)

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
