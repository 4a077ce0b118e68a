"""What a run says at its end."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from hierjax.evaluation.tables import accuracy_table, table
from hierjax.run_folder import RunFolder


def print_accuracy(folder: RunFolder, metrics: Mapping[str, Any]) -> None:
  """Prints what eval/SPLIT.json holds: accuracy as a table, a few paths, and the command to go on with."""
  views = f", {metrics['views']} views each" if metrics["views"] > 1 else ""
  known = f", known down to level {metrics['known_levels']}" if "known_levels" in metrics else ""
  print(f"\n{metrics['num_examples']:,} images of {metrics['split']}{views}{known}, step {metrics['step']}")
  print(accuracy_table(metrics))
  if "examples" in metrics:
    rows = [("image", "label", "predicted")]
    rows += [
      (e["image"], e["label"].replace("/", " > "), e["predicted"].replace("/", " > ")) for e in metrics["examples"]
    ]
    print("\n" + table(rows, text_columns=3))
  python, workdir = _from_here(sys.executable), shlex.quote(_from_here(str(folder.path)))
  print(f"\nthe run is in {workdir}; next:")
  images = "IMAGES..."
  if folder.config()["data"]["name"] == "shapes":
    images = "runs/samples"
    print(f"  {python} -m hierjax shapes {images} --images 20")
  print(f"  {python} -m hierjax predict {workdir} {images}")


def _from_here(path: str) -> str:
  """Returns a path relative to the working directory where it lies below it."""
  return os.path.relpath(path) if os.path.abspath(path).startswith(os.getcwd() + os.sep) else path
