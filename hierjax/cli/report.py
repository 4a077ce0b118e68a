"""`hierjax report`: a page about a run."""

from __future__ import annotations

import argparse

from hierjax import extras
from hierjax.cli.common import add_data_root, add_split, add_workdir

HELP = "Write an HTML page of a run's accuracy, calibration and mistakes."
EXAMPLES = """
hierjax report runs/quickstart
hierjax report runs/quickstart --split validation
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "the run's folder, in which report.html is written")
  add_split(parser)
  add_data_root(parser)


def run(args: argparse.Namespace) -> int:
  """Writes the page and prints its path."""
  extras.require("report")
  from hierjax.evaluation.evaluate import SplitSettings
  from hierjax.inference.loaded_run import LoadedRun
  from hierjax.report.model_card import write_model_card
  from hierjax.report.page import findings_of, write_report
  from hierjax.runs import devices

  devices.prepare()
  loaded = LoadedRun.open(args.workdir, devices.data_mesh(), args.data_root)
  print(write_report(findings_of(loaded, SplitSettings(args.split, args.data_root))))
  print(write_model_card(loaded.folder))
  return 0
