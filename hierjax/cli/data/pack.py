"""`hierjax data pack`: a folder of images as few files, which are read faster than many small ones."""

from __future__ import annotations

import argparse

from hierjax.cli.common import quoted

HELP = "Copy a folder of images into one file a split, for sets of many small files."
EXAMPLES = """
hierjax data pack photos/ packed/
hierjax data pack photos/ packed/ --labels labels.csv --config.data.ignore=unlabeled
hierjax train photos --config.data.root=packed/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument("photos", metavar="PHOTOS", help="the folder, config.data.root of training")
  parser.add_argument("out", metavar="OUT", help="a new folder, which takes the place of PHOTOS")
  parser.add_argument("--labels", default="", metavar="CSV", help="images and labels: a header, then image,label a row")
  parser.set_defaults(overrides=[], refuse=parser.error)


def run(args: argparse.Namespace) -> int:
  """Writes the pack, and prints what was packed and what was left out."""
  from pathlib import Path

  from hierjax.cli.data.check import sections
  from hierjax.data.sources.packing import write_pack
  from hierjax.data.summary import summarize
  from hierjax.data.trees import open_tree
  from hierjax.errors import UserError
  from hierjax.runs.folder import check_new_folder, whole_folder
  from hierjax.tree.checks.findings import errors_of

  data, tree = sections(args.overrides, args.photos, args.labels)
  check_new_folder(Path(args.out))
  understood = summarize(data, tree)
  print("\n".join([*understood.lines(), *understood.gravest()]))
  if errors_of(understood.findings):
    raise UserError(f"{args.photos}: with these errors nothing is packed")
  with whole_folder(Path(args.out)) as folder:
    packed = write_pack(folder, data, open_tree(tree, data))
  counts = ", ".join(f"{name} {count:,}" for name, count in packed.images.items())
  print(
    f"packed: {sum(packed.images.values()):,} images ({counts}), {packed.num_bytes / 2**20:,.1f} MiB, in {args.out}"
  )
  left_out = sum(understood.passed_over.values())
  print(f"left out: {left_out:,} other files and folders" if left_out else "left out: nothing")
  if packed.unreadable:
    print(f"unreadable: {len(packed.unreadable):,}, {packed.unreadable[0]} the first; training skips them as before")
  print(f"next:\n  hierjax train photos --config.data.root={quoted(args.out)}")
  return 0
