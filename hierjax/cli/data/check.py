"""`hierjax data check`: the faults of a label tree, and of the images under it."""

from __future__ import annotations

import argparse
import dataclasses

from hierjax.cli.common import add_json, output
from hierjax.cli.data import trees

HELP = "List the errors and warnings of a label tree and its images."
EXAMPLES = """
hierjax data check photos/
hierjax data check tree.csv --images photos/
hierjax data check --labels labels.csv --images photos/ --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  trees.add_arguments(parser)
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  """Prints a line a finding; returns 1 where there are errors."""
  from hierjax.tree.checks.findings import errors_of
  from hierjax.tree.checks.lint import lint
  from hierjax.tree.open_tree import own_labels
  from hierjax.tree.render import counted

  trees.fill_in(args)
  with output(args.json) as print_json:
    if own_labels(args.source, args.format):
      print(f"{args.source}: a file of images and labels; the tree is that of its labels")
    findings = lint(args.source, args.format, args.images, args.labels)
    errors = len(errors_of(findings))
    warnings = len(findings) - errors
    rows = [dataclasses.asdict(finding) for finding in findings]
    print_json({"source": args.source, "errors": errors, "warnings": warnings, "findings": rows})
    for finding in findings:
      print(finding)
    print(f"{args.source}: {counted(errors, 'error', 'errors')}, {counted(warnings, 'warning', 'warnings')}")
  return 1 if errors else 0
