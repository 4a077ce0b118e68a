"""Names of models in place of a run's folder: `lite0`, `hf:OWNER/NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def run_folder(args: argparse.Namespace) -> Path:
  """Returns the folder of the run that `args.workdir` names.

  A pretrained classifier, which nobody has calibrated, gets a confidence threshold, and a line on stderr says so.
  """
  from hierjax.nn.pretrained.named import is_name

  if not is_name(args.workdir):
    return Path(args.workdir)
  from hierjax.training.initial.wrapped import SURE, run_of

  if not args.threshold:
    args.threshold = str(SURE)
    print(f"paths end above nodes with a probability below {SURE}; --threshold 0 gives leaves", file=sys.stderr)
  return run_of(args.workdir)
