"""Names of models in place of a run's folder: `lite0`, `hf:OWNER/NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def run_folder(args: argparse.Namespace) -> Path:
  """Returns the folder of the run that `args.workdir` names.

  A pretrained classifier, which nobody has calibrated, gets a confidence threshold, and a line on stderr says so.
  """
  from hierjax.training.initial.named_runs import named_run

  found = named_run(args.workdir)
  if found.threshold and not args.threshold:
    args.threshold = found.threshold
    print(
      f"paths end above nodes with a probability below {found.threshold}; --threshold 0 gives leaves", file=sys.stderr
    )
  return found.path
