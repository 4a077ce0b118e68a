"""`hierjax data clear-cache`: the removal of decoded images that were kept for the next run."""

from __future__ import annotations

import argparse

HELP = "Remove the decoded images that runs have kept."
EXAMPLES = """
hierjax data clear-cache
hierjax data clear-cache --folder /scratch/hierjax
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  about = "config.data.cache_folder of the runs (default: $XDG_CACHE_HOME/hierjax, or ~/.cache/hierjax)"
  parser.add_argument("--folder", default="", metavar="FOLDER", help=about)


def run(args: argparse.Namespace) -> int:
  """Removes the files and prints their number and size."""
  from hierjax.data.images.cache import CachePlace, clear

  place = CachePlace(args.folder)
  count, size = clear(place)
  print(f"{place.path}: removed {count:,} file{'' if count == 1 else 's'}, {size / 2**20:,.0f} MiB")
  return 0
