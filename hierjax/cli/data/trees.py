"""The arguments that name a label tree."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares SOURCE, `--format`, `--images` and `--labels`."""
  from hierjax.tree import catalog
  from hierjax.tree.open_tree import FORMATS

  known = ", ".join(catalog.names())
  about = f"a folder, a .csv or .json file, or one of {known}; without it, the tree of the labels in --labels"
  parser.add_argument("source", metavar="SOURCE", nargs="?", help=about)
  parser.add_argument("--format", choices=FORMATS, default="auto", help="how to read SOURCE (default: by its name)")
  parser.add_argument("--images", metavar="ROOT", help="images, in folders named as their labels or listed in --labels")
  parser.add_argument("--labels", metavar="CSV", help="images and labels: a header, then image,label a row")
  parser.set_defaults(refuse=parser.error)


def fill_in(args: argparse.Namespace) -> None:
  """Takes the file of labels for the tree where no tree is named."""
  if args.source is None and args.labels is None:
    args.refuse("name a tree, SOURCE, or a CSV file of images and labels, --labels")
  if args.source is None:
    args.source, args.format = args.labels, "labels"
