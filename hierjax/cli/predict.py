"""`hierjax predict`: label paths for image files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hierjax.cli.common import add_decoding, add_devices, add_json, add_workdir, output, purpose_of
from hierjax.cli.named import run_folder

if TYPE_CHECKING:
  from hierjax.inference.answers import Row

HELP = "Predict label paths for image files."
EXAMPLES = """
hierjax predict runs/quickstart photo.jpg
hierjax predict runs/quickstart photos/ --csv answers.csv --top 3
hierjax predict runs/quickstart photos/ --threshold 0.8 --json
hierjax predict runs/quickstart photos/ --minimise edges
hierjax predict runs/quickstart photos/ --level 2 --top 3
hierjax predict lite0 photos/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "the run's folder; or hf:OWNER/NAME, lite0, lite1 or lite2")
  parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of images")
  parser.add_argument("--csv", metavar="FILE", help="write the answers to this file as well")
  add_decoding(parser)
  add_devices(parser)
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  """Prints a line an answer; returns 1 where no image could be read."""
  from hierjax.inference.predictor import find_images, write_csv
  from hierjax.runs import devices

  devices.prepare(count=args.devices)
  args.workdir = run_folder(args)
  with output(args.json) as print_json:
    images = find_images(args.images)
    rows = _predict(args, images)
    if args.csv:
      write_csv(args.csv, rows)
    print_json({"answers": [row._asdict() for row in rows]})
    failed = _print(rows, "abstained" if args.threshold or purpose_of(args) else "no path passes", lines=not args.json)
    if failed:
      print(f"{failed} of {len(images)} images could not be read", file=sys.stderr)
  return 1 if failed == len(images) else 0


def _predict(args: argparse.Namespace, images: Sequence[Any]) -> list[Row]:
  from tqdm import tqdm

  from hierjax.inference.predictor import Predictor

  rows = []
  with tqdm(total=len(images), desc="predicting", unit=" images", delay=2, leave=False, disable=None) as bar:
    for row in Predictor(args.workdir, args.top, args.alpha, args.threshold, purpose_of(args)).rows(images):
      rows.append(row)
      bar.update(row.rank in (None, 1))
  return rows


def _print(rows: Sequence[Row], silent: str, lines: bool) -> int:
  """Prints answers, if `lines`, and errors; returns how many images could not be read."""
  for row in rows:
    if row.error:
      print(row.error, file=sys.stderr)
    elif lines:
      print(f"{row.image}: {silent if row.probability is None else f'{row.path}  {row.probability:.3f}'}")
  return sum(bool(row.error) for row in rows)
