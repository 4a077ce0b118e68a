"""The part of `hierjax evaluate` that measures anybody's predictions: `--predictions`, `--tree` and `--labels`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from hierjax.cli.common import UsageError
from hierjax.errors import UserError

if TYPE_CHECKING:
  from hierjax.evaluation.metrics.facts import Facts
  from hierjax.runs.folder import RunFolder

NAME = "predictions"  # of the files in eval/


def add_given(parser: argparse.ArgumentParser) -> None:
  """Adds `--predictions`, `--tree`, `--labels` and `--count-root`."""
  parser.add_argument(
    "--predictions", default="", metavar="FILE",
    help="measure predictions of any model in place of runs: a CSV or npz file, see docs/reference/metrics.md",
  )  # fmt: skip
  parser.add_argument(
    "--tree", default="", metavar="TREE", help="the label tree of --predictions: a catalogue name, a folder or a file"
  )
  parser.add_argument("--labels", default="", metavar="FILE", help="the CSV file of images and labels of --predictions")
  parser.add_argument(
    "--count-root", action="store_true",
    help="hierarchical precision and recall of --predictions count the root as a node of every path",
  )  # fmt: skip


def check_given(args: argparse.Namespace) -> None:
  """Raises UserError for arguments that do not go together, and UsageError where nothing is to be measured."""
  if not args.predictions:
    if args.tree or args.labels or args.count_root:
      raise UserError("--tree, --labels and --count-root belong to --predictions: give a file of predictions")
    if not args.workdir:
      raise UsageError("give WORKDIR, a run's folder, or --predictions FILE --tree TREE --labels FILE")
    return
  others = ("views", "known_levels", "alpha", "threshold", "against", "split", "data_root", "devices", "node")
  given = [f"--{name.replace('_', '-')}" for name in others if getattr(args, name)]
  if args.workdir or given:
    raise UserError(f"--predictions is measured by itself: leave out {', '.join([*args.workdir, *given])}")
  if not args.tree or not args.labels:
    raise UserError("--predictions needs the label tree and the labels: --tree TREE --labels FILE")


def measure_given(args: argparse.Namespace, out: RunFolder | None) -> dict[str, Any]:
  """Measures the predictions of a file, prints the metrics, and writes them to the folder `out` where there is one."""
  import numpy as np

  from hierjax.evaluation.classes import class_summary, write_classes
  from hierjax.evaluation.metrics.files import read_given
  from hierjax.evaluation.metrics.measure import facts_of, measured
  from hierjax.evaluation.tables import accuracy_table, class_tables
  from hierjax.tree.open_tree import open_tree

  tree = open_tree(args.tree)
  given = read_given(args.predictions, args.labels, tree)
  facts = facts_of(given.prediction, given.labels, tree, args.count_root)
  found = {"split": NAME, "file": args.predictions, "num_examples": len(given.labels)}
  found |= {"level_names": list(tree.named_levels), "level_sizes": np.diff(tree.level_offsets).tolist()}
  found |= {**measured(facts), **class_summary(facts)}
  print(f"\n{len(given.labels):,} images of {args.predictions}")
  print(accuracy_table(found, args.every_metric))
  print(f"\n{class_tables(found)}")
  if given.unused:
    print(f"\n{given.unused:,} images of {args.labels} have no prediction, and count nowhere")
  written = {NAME: found}
  if out is not None:
    path = out.write_evaluation(NAME, found)
    print(f"\nevery metric: {path}; by class: {write_classes(path, facts)}")
  if args.certify is not None:
    written["certificate"] = _certificate(args, facts, out)
  print(f"\nnext:\n  {_report_command(args)}")
  return written


def _report_command(args: argparse.Namespace) -> str:
  """Returns the command that makes the report page of the same predictions."""
  from hierjax.evaluation.console import from_here

  files = [
    "--predictions",
    args.predictions,
    "--tree",
    args.tree,
    "--labels",
    args.labels,
    "--out",
    args.out or "report",
  ]
  return shlex.join([from_here(sys.executable), "-m", "hierjax", "report", *files])


def _certificate(args: argparse.Namespace, facts: Facts, out: RunFolder | None) -> dict[str, Any]:
  """Finds the threshold whose promise these images prove: they must have chosen nothing of the model."""
  from hierjax.evaluation.choosing.certificates import Promise, certify, sentences
  from hierjax.evaluation.choosing.selective import Confidences, selective_table

  if facts.scored.nodes is None:
    raise UserError("--certify needs probabilities, of which --predictions has none: give those of leaves or nodes")
  promise = Promise(args.certify, 0.9 if args.sure is None else args.sure, args.of or "answers")
  confidences = Confidences.of(facts.predictions)
  found = certify(confidences, promise)
  print(f"\nconfidence threshold {found.threshold:g}")
  print(selective_table(confidences, found.threshold, facts.table.tree.named_levels))
  print(f"\n{sentences(found, NAME)}")
  print("the promise holds if these images chose nothing of the model: no training, no checkpoint, no temperature")
  record = {"threshold": found.threshold, **found.about(), "split": NAME, **confidences.at(found.threshold)}
  if out is not None:
    out.write_evaluation("certificate", record)
  return record
