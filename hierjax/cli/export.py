"""`hierjax export`: a run as files for programs without hierjax."""

from __future__ import annotations

import argparse

from hierjax.cli.common import add_decoding, add_workdir, at_least_1, purpose_of

HELP = "Write a run as a StableHLO function, its weights and a JSON file."
EXAMPLES = """
hierjax export runs/quickstart runs/exported
hierjax export runs/quickstart runs/exported --batch 32 --top 3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser)
  parser.add_argument("out", metavar="OUT", help="a new folder")
  parser.add_argument("--batch", type=at_least_1, default=1, metavar="B", help="images a call (default 1)")
  add_decoding(parser)


def run(args: argparse.Namespace) -> int:
  """Writes the folder and prints its images' shape."""
  from pathlib import Path

  from hierjax.inference.export import export
  from hierjax.inference.trained_model import AnswerSettings

  settings = AnswerSettings(args.top, args.alpha, args.threshold, purpose_of(args))
  about = export(args.workdir, Path(args.out), args.batch, settings)
  b, h, w, c = about["images"]["shape"]
  print(f"{args.out}: step {about['step']}, for u8[{b} {h} {w} {c}]; docs/how_to/export.md shows how to call it")
  return 0
