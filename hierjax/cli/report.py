"""`hierjax report`: a page about a run, two runs, or anybody's predictions."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hierjax import extras
from hierjax.cli.common import UsageError, add_data_root, add_split
from hierjax.errors import UserError

if TYPE_CHECKING:
  from hierjax.evaluation.evaluate import SplitSettings
  from hierjax.inference.loaded_run import LoadedRun

HELP = "Write an HTML page of what a run can do and where it errs; of two runs, side by side."
EXAMPLES = """
hierjax report runs/quickstart
hierjax report runs/quickstart --split validation
hierjax report runs/quickstart runs/other
hierjax report --predictions preds.csv --tree tree.json --labels labels.csv --images photos --out runs/theirs
"""
_RUN, _GIVEN = ("split", "data_root"), ("tree", "labels", "images", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument("workdir", nargs="?", default="", metavar="WORKDIR", help="the run's folder, for report.html")
  parser.add_argument(
    "other", nargs="?", default="", metavar="OTHER", help="another run on the same images and tree, to compare with"
  )
  add_split(parser)
  add_data_root(parser)
  parser.add_argument(
    "--predictions", default="", metavar="FILE",
    help="a page of any model's predictions in place of a run: a CSV or npz file, see docs/reference/metrics.md",
  )  # fmt: skip
  parser.add_argument(
    "--tree", default="", metavar="TREE", help="their label tree: a catalogue name, a folder or a file"
  )
  parser.add_argument("--labels", default="", metavar="FILE", help="the CSV file of their images and labels")
  parser.add_argument("--images", default="", metavar="FOLDER", help="the folder of these images, for photographs")
  parser.add_argument("--out", default="", metavar="FOLDER", help="the folder for the page of --predictions")


def run(args: argparse.Namespace) -> int:
  """Writes the page and prints its path."""
  _check(args)
  extras.require("report")
  for path in [_of_given(args)] if args.predictions else _of_runs(args):
    print(path)
  return 0


def _check(args: argparse.Namespace) -> None:
  """Raises UserError for arguments that do not go together, and UsageError where nothing is to be shown."""
  if not args.predictions:
    if found := _flags(args, _GIVEN):
      raise UserError(f"{', '.join(found)} belong to --predictions: give a file of predictions")
    if not args.workdir:
      raise UsageError("give WORKDIR, a run's folder, or --predictions FILE --tree TREE --labels FILE --out FOLDER")
    return
  if args.workdir or _flags(args, _RUN):
    others = [word for word in (args.workdir, args.other, *_flags(args, _RUN)) if word]
    raise UserError(f"--predictions has a page by itself: leave out {', '.join(others)}")
  if not (args.tree and args.labels and args.out):
    raise UserError(
      "--predictions needs the label tree, the labels and a folder for the page: --tree TREE --labels FILE --out FOLDER"
    )


def _flags(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
  """Returns those of some flags that are given."""
  return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]


def _of_given(args: argparse.Namespace) -> Path:
  from hierjax.evaluation.metrics.files import read_given
  from hierjax.report.page.findings.findings import Place
  from hierjax.report.page.findings.of_given import GivenFiles, findings_of_given
  from hierjax.report.page.write import write_report
  from hierjax.tree.open_tree import open_tree

  tree = open_tree(args.tree)
  files = GivenFiles(args.predictions, args.labels, args.tree, args.images)
  found = findings_of_given(files, read_given(args.predictions, args.labels, tree), tree)
  for note in found.about.notes:
    print(note)
  return write_report(Place(Path(args.out), "report.html", "predictions"), found)


def _of_runs(args: argparse.Namespace) -> list[Path]:
  """Writes the page and the model card of a run."""
  from hierjax.evaluation.evaluate import SplitSettings
  from hierjax.evaluation.model_card import write_model_card
  from hierjax.inference.loaded_run import LoadedRun
  from hierjax.report.page.findings.of_run import findings_of, place_of
  from hierjax.report.page.write import write_report
  from hierjax.runs import devices

  devices.prepare()
  settings = SplitSettings(args.split, args.data_root)
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root)
  if args.other:
    page = _of_two(loaded, LoadedRun.open(args.other, loaded.mesh, args.data_root), settings)
  else:
    found = findings_of(loaded, settings)
    for note in found.about.notes:
      print(note)
    page = write_report(place_of(loaded, settings), found)
  return [page, write_model_card(loaded.folder)]


def _of_two(first: LoadedRun, second: LoadedRun, settings: SplitSettings) -> Path:
  """Writes the page of two runs, report-against-OTHER.html, to the folder of the first."""
  from hierjax.evaluation.several_runs.compare import same_images_of
  from hierjax.report.page.findings.of_run import findings_of, place_of
  from hierjax.report.page.sections.comparison import Pair
  from hierjax.report.page.write import write_report

  names, split, _ = same_images_of(first, second, settings.split)
  settings = dataclasses.replace(settings, split=split)
  pair = Pair.of(names, findings_of(first, settings), findings_of(second, settings))
  place = place_of(first, settings)
  slug = "".join(c if c.isalnum() or c in "-_." else "-" for c in names[1])
  page = f"report-against-{slug}{place.page.removeprefix('report')}"
  for note in pair.first.about.notes:
    print(note)
  return write_report(dataclasses.replace(place, page=page), pair.first, pair)
