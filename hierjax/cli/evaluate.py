"""`hierjax evaluate`: the metrics of a run or an ensemble on a split."""

from __future__ import annotations

import argparse

from hierjax.cli.common import add_data_root, add_json, add_split, output

HELP = "Measure a run, or an ensemble of runs, on a split of its data set."
EXAMPLES = """
hierjax evaluate runs/quickstart
hierjax evaluate runs/quickstart --split val --json
hierjax evaluate runs/quickstart --stop-below sweep --right 0.95
hierjax evaluate runs/a runs/b runs/c --alpha 1 --out runs/ensemble
hierjax evaluate runs/a runs/b --against runs/x runs/y
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument(
    "workdir", nargs="+", metavar="WORKDIR",
    help="a run's folder; several folders are an ensemble, in which COARSE+FINE, two runs joined by +, is one member",
  )  # fmt: skip
  add_split(parser)
  add_data_root(parser)
  parser.add_argument(
    "--views", type=int, default=0, help="crops of each image whose probabilities are averaged: 1 or 10 (default: as "
    "in config.json)",
  )  # fmt: skip
  parser.add_argument(
    "--known-levels", type=int, default=0, metavar="N", help="give the first N levels of each label (default 0)"
  )
  _add_choices(parser)
  _add_comparison(parser)
  parser.add_argument("--out", default="", metavar="FOLDER", help="the folder for the results of several runs")
  add_json(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--alpha", default="", metavar="A",
    help="strength of classifier adaptation, 0 to 2 (1: the levels agree); `sweep` draws the errors for all A and "
    "chooses one on validation, `chosen` uses that one",
  )  # fmt: skip
  parser.add_argument(
    "--stop-below", default="", metavar="P",
    help="end paths above nodes with a probability below P, 0 to 1; `sweep` draws coverage and accuracy for all P and "
    "chooses one on validation, `chosen` uses that one",
  )  # fmt: skip
  parser.add_argument(
    "--right", type=float, metavar="SHARE", help="the share of right answers that such a sweep aims at (default 0.95)"
  )
  parser.add_argument(
    "--node", default="", help="the node whose probability a sweep of alpha compares with the sum of its children's"
  )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--against", nargs="+", default=[], metavar="WORKDIR", help="runs to compare with, paired in order: t-tests"
  )
  parser.add_argument("--against-alpha", default="", metavar="A", help="alpha of these runs (default: --alpha)")


def run(args: argparse.Namespace) -> int:
  """Measures and prints tables, or with --json what eval/NAME.json holds, by NAME."""
  from hierjax.evaluation.evaluate import Question, evaluate
  from hierjax.runs import devices

  devices.use_compilation_cache()
  question = Question(
    workdirs=args.workdir,
    split=args.split,
    data_root=args.data_root,
    views=args.views,
    known_levels=args.known_levels,
    alpha=args.alpha,
    stop_below=args.stop_below,
    right=args.right,
    node=args.node,
    against=args.against,
    against_alpha=args.against_alpha,
    out=args.out,
  )
  with output(args.json) as print_json:
    print_json(evaluate(question, devices.data_mesh()))
  return 0
