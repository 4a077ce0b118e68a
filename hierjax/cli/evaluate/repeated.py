"""The part of `hierjax evaluate` that measures several runs with a multi-label head, each by itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierjax.cli.common import purpose_of
from hierjax.errors import UserError

if TYPE_CHECKING:
  from jax.sharding import Mesh

  from hierjax.runs.folder import RunFolder


def are_repeated(args: argparse.Namespace) -> bool:
  """Returns whether the command is about several runs with a multi-label head; raises UserError for flags of others."""
  from hierjax.evaluation.several_runs.repeated import have_several_paths
  from hierjax.runs.folder import RunFolder

  if len(args.workdir) < 2 or not all(Path(workdir).is_dir() for workdir in args.workdir):
    return False
  if not have_several_paths([RunFolder(workdir) for workdir in args.workdir]):
    return False
  for flag in ("alpha", "threshold", "certify"):
    if getattr(args, flag):
      raise UserError(
        f"--{flag}: several runs with a multi-label head are measured each by itself, at thresholds of its own; leave "
        f"out --{flag}"
      )
  return True


def measure_repeated(args: argparse.Namespace, mesh: Mesh, out: RunFolder | None) -> dict[str, Any]:
  """Measures runs with a multi-label head, each by itself, and their means, for the folder `out` where there is one."""
  from hierjax.evaluation.evaluate import SplitSettings
  from hierjax.evaluation.several_runs.repeated import evaluate_runs, print_runs
  from hierjax.runs.folder import RunFolder

  settings = SplitSettings(args.split, args.data_root, args.views, purpose=purpose_of(args))
  metrics = evaluate_runs([RunFolder(workdir) for workdir in args.workdir], mesh, settings)
  print_runs(metrics)
  if out is not None:
    print(out.write_evaluation(metrics["split"], metrics))
  return {metrics["split"]: metrics}
