"""`hierjax data show`: a label tree as text."""

from __future__ import annotations

import argparse

from hierjax.cli.common import at_least_1
from hierjax.cli.data import trees

HELP = "Print a label tree with the counts of its leaves and images."
EXAMPLES = """
hierjax data show cifar100_wordnet --depth 3
hierjax data show tree.csv --images photos/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  trees.add_arguments(parser)
  parser.add_argument("--depth", type=at_least_1, help="levels to print (default: as many as fit on a few screens)")
  parser.add_argument(
    "--max-children", type=at_least_1, default=20, metavar="N", help="children to print of a node (default 20)"
  )


def run(args: argparse.Namespace) -> int:
  """Prints the tree."""
  from hierjax.tree.image_counts import count_images
  from hierjax.tree.open_tree import open_tree, own_labels
  from hierjax.tree.render import render

  trees.fill_in(args)
  tree = open_tree(args.source, args.format)
  labels = args.labels or own_labels(args.source, args.format)
  count = count_images(tree, args.source, args.images, labels)
  for line in render(tree, None if count is None else count.at_node, args.depth, args.max_children):
    print(line)
  return 0
