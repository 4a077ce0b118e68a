"""`hierjax data check`: the faults of a label tree, and of the images under it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hierjax.cli.common import add_json, output
from hierjax.cli.data import trees

if TYPE_CHECKING:
  from hierjax.data.config import DataConfig
  from hierjax.data.summary import Summary
  from hierjax.data.trees import TreeConfig

HELP = "List what a set of labelled images is understood to be, and its faults."
EXAMPLES = """
hierjax data check photos/
hierjax data check photos/ --quick --config.data.ignore=unlabeled
hierjax data check tree.csv --images photos/
hierjax data check --labels labels.csv --images photos/ --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  trees.add_arguments(parser)
  parser.add_argument("--quick", action="store_true", help="do not open the images")
  parser.set_defaults(overrides=[])
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  """Prints the summary and a line a finding; returns 1 where there are errors."""
  from hierjax.tree.checks.findings import errors_of
  from hierjax.tree.open_tree import own_labels
  from hierjax.tree.render import counted

  trees.fill_in(args)
  with output(args.json) as print_json:
    if own_labels(args.source, args.format):
      print(f"{args.source}: a file of images and labels; the tree is that of its labels")
    found = _summary(args)
    errors = len(errors_of(found.findings))
    warnings = len(found.findings) - errors
    print_json({"source": args.source, "errors": errors, "warnings": warnings, **found.as_dict()})
    for line in [*found.lines(), *found.findings]:
      print(line)
    print(f"{args.source}: {counted(errors, 'error', 'errors')}, {counted(warnings, 'warning', 'warnings')}")
  return 1 if errors else 0


def _summary(args: argparse.Namespace) -> Summary:
  """Returns the summary of the images, by the same config as training; of the tree alone where there are no images."""
  from dataclasses import replace
  from pathlib import Path

  from hierjax.data.summary import Summary, summarize
  from hierjax.tree.checks.findings import errors_of
  from hierjax.tree.checks.lint import lint
  from hierjax.tree.open_tree import open_tree, own_labels

  labels = args.labels or own_labels(args.source, args.format) or ""
  is_folder = args.format in ("auto", "folder") and Path(args.source).expanduser().is_dir()
  root = args.images or (args.source if is_folder else "")
  of_images = labels == args.source or (is_folder and args.images is None)
  if root and (of_images or args.format == "auto") and (labels or args.images or _has_images(root)):
    data, tree = sections(args.overrides, root, labels)
    return summarize(data, tree if of_images else replace(tree, source=args.source), open_images=not args.quick)
  if args.overrides:
    args.refuse(f"{args.overrides[0]}: name the folder of the images, --images, to check them by a config")
  findings = lint(args.source, args.format, args.images, args.labels)
  return Summary(tree=None if errors_of(findings) else open_tree(args.source, args.format), findings=findings)


def _has_images(root: str) -> bool:
  """Returns whether a folder is a pack, or an image is below it; folders alone are a tree too."""
  from pathlib import Path

  from hierjax.data.config import DataConfig
  from hierjax.tree.readers.folders import walk

  return DataConfig(name="folder", root=root).is_pack or any(folder.images for folder in walk(Path(root).expanduser()))


def sections(overrides: list[str], root: str, labels: str) -> tuple[DataConfig, TreeConfig]:
  """Returns the sections `data` and `tree` of a run on these images, with the values of the command line."""
  from hierjax.config import unpack
  from hierjax.data.config import DataConfig
  from hierjax.data.trees import TreeConfig

  if not overrides:
    return DataConfig(name="folder", root=root, labels=labels), TreeConfig()
  from hierjax.config_files import load_config
  from hierjax.training.initial.from_weights import with_weights

  config = load_config(
    "photos:from_scratch", [f"--config.data.root={root}", f"--config.data.labels={labels}", *overrides]
  )
  config, _ = with_weights(config)
  return unpack(DataConfig, config["data"], "data"), unpack(TreeConfig, config["tree"], "tree")
