"""`hierjax study`: several configs with several seeds, and one table of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierjax import extras
from hierjax.cli.common import add_format

HELP = "Train configs with several seeds, and write one table of what they measure."
EXAMPLES = """
hierjax study smoke --workdir=runs/study
hierjax study heads --config.data.root=PHOTOS --workdir=runs/heads --minutes 60
hierjax study my_study.py --workdir=runs/mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument("study", metavar="STUDY", help="a name in configs/studies, or a file with get_study()")
  parser.add_argument("--workdir", default="", metavar="FOLDER", help="of the study (default: runs/study-STUDY)")
  about = "stop after so many minutes, at the next checkpoint; the same command goes on (default: no limit)"
  parser.add_argument("--minutes", type=float, default=0.0, help=about)
  parser.add_argument(
    "--config.KEY", dest="_", metavar="VALUE", help="a value for a key of all runs, written --config.KEY=VALUE"
  )
  add_format(parser)
  parser.set_defaults(overrides=[], refuse=parser.error)


def run(args: argparse.Namespace) -> int:
  """Trains what is not trained yet, and writes study.md, study.csv and study.png; returns as `train` does."""
  extras.require("report")
  from hierjax.runs.folder import write_table, write_whole
  from hierjax.study.measurement import Finished
  from hierjax.study.picture import picture
  from hierjax.study.plan import EvaluatedRow, Row, load_study
  from hierjax.study.results import HEADER, csv_rows, markdown, results_of
  from hierjax.study.runs import StudyRuns, TimeOver, time_limit
  from hierjax.training.loop.steps import Stopped

  if not 0 <= args.minutes < 1e6:
    args.refuse(f"--minutes {args.minutes:g}: give a number of 0 or more")
  study = load_study(args.study)
  folder = Path(args.workdir or f"runs/study-{Path(args.study).stem}")
  complete: list[tuple[Row | EvaluatedRow, list[Finished]]] = []
  try:
    with time_limit(args.minutes):
      for row in StudyRuns(study, folder, tuple(args.overrides)).rows():
        complete.append(row)
  except TimeOver:
    print(f"{len(complete)} of {len(study.rows)} rows are complete; the same command goes on")
  except Stopped as stopped:
    print(stopped)
    return 128 + stopped.signal
  if not any(row.name == study.baseline for row, _ in complete):
    return 0
  results = results_of(study, complete)
  text = markdown(study, results)
  write_whole(folder / "study.md", text)
  write_table(folder / "study.csv", HEADER, csv_rows(results))
  write_whole(folder / f"study.{args.format}", picture(study, results, args.format))
  print(f"\n{text}\n{folder / 'study.md'}")
  return 0
