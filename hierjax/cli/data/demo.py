"""`hierjax data demo`: example images in folders."""

from __future__ import annotations

import argparse

from hierjax.cli.common import at_least_1

HELP = "Draw a small labelled set of images into folders, as an example."
EXAMPLES = """
hierjax data demo photos/ --images 200
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument("folder", metavar="FOLDER", help="a new folder")
  parser.add_argument("--images", type=at_least_1, default=200, metavar="N", help="images to draw (default 200)")


def run(args: argparse.Namespace) -> int:
  """Draws the images."""
  from pathlib import Path

  from hierjax.data.sources.shapes import write_folders

  write_folders(Path(args.folder), args.images)
  print(f"{args.images} images are in {args.folder}")
  return 0
