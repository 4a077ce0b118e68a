"""`python -m hierjax tree show|check`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from hierjax.tree import catalog
from hierjax.tree.checks.findings import errors_of
from hierjax.tree.checks.lint import lint
from hierjax.tree.image_counts import count_images
from hierjax.tree.label_tree import TreeError
from hierjax.tree.open_tree import FORMATS, open_tree, own_labels
from hierjax.tree.render import counted, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the sub-commands `show` and `check`."""
  commands = parser.add_subparsers(dest="tree_command", required=True, metavar="show|check")
  show = commands.add_parser("show", help="print a tree with counts")
  show.add_argument("--depth", type=_at_least_1, help="levels to show (default: as many as fit on a few screens)")
  show.add_argument("--max-children", type=_at_least_1, default=20, help="children to show of a node (default 20)")
  check = commands.add_parser("check", help="name all that is wrong with a tree; exit status 1 if there are errors")
  for command in (show, check):
    known = ", ".join(catalog.names())
    what = f"a folder, a .csv or .json file, or one of {known}; without it, the tree is that of --labels"
    command.add_argument("source", metavar="SOURCE", nargs="?", help=what)
    command.add_argument("--format", choices=FORMATS, default="auto", help="how to read SOURCE (default: by its name)")
    command.add_argument(
      "--images", metavar="ROOT", help="images, in folders named as their labels or listed in --labels"
    )
    command.add_argument("--labels", metavar="CSV", help="images and labels: a header, then image,label a row")
    command.set_defaults(refuse=command.error)


def run(args: argparse.Namespace) -> int:
  """Runs what `add_arguments` parsed and returns the exit status: 1 where there are errors."""
  if args.source is None and args.labels is None:
    args.refuse("name a tree, SOURCE, or a CSV file of images and labels, --labels")
  if args.source is None:
    args.source, args.format = args.labels, "labels"
  try:
    return {"show": _show, "check": _check}[args.tree_command](args)
  except TreeError as error:
    _print(f"error: {error}", file=sys.stderr)
    return 1
  except BrokenPipeError:  # the reader, `head` say, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show(args: argparse.Namespace) -> int:
  tree = open_tree(args.source, args.format)
  labels = args.labels or own_labels(args.source, args.format)
  count = count_images(tree, args.source, args.images, labels)
  for line in render(tree, None if count is None else count.at_node, args.depth, args.max_children):
    _print(line)
  return 0


def _check(args: argparse.Namespace) -> int:
  if own_labels(args.source, args.format):
    _print(f"{args.source}: a file of images and labels; the tree is that of its labels")
  findings = lint(args.source, args.format, args.images, args.labels)
  for finding in findings:
    _print(str(finding))
  errors = len(errors_of(findings))
  warnings = counted(len(findings) - errors, "warning", "warnings")
  _print(f"{args.source}: {counted(errors, 'error', 'errors')}, {warnings}")
  return 1 if errors else 0


def _print(line: str, file: Any = None) -> None:
  """Prints `line`, with question marks for what the terminal cannot show."""
  file = file or sys.stdout
  encoding = file.encoding or "utf-8"
  print(line.encode(encoding, "replace").decode(encoding), file=file)


def _at_least_1(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{text}: at least 1")
  return number
