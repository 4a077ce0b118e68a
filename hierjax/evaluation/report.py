"""What a run says at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hierjax.evaluation.tables import accuracy_table, table
from hierjax.run_folder import RunFolder


def print_accuracy(folder: RunFolder, metrics: Mapping[str, Any]) -> None:
  """Prints what eval/SPLIT.json holds: accuracy as a table, a few paths, and the command to go on with."""
  print(f"\n{metrics['num_examples']:,} images of {metrics['split']}, step {metrics['step']}")
  print(accuracy_table(metrics))
  if "examples" in metrics:
    rows = [("image", "label", "predicted")]
    rows += [
      (e["image"], e["label"].replace("/", " > "), e["predicted"].replace("/", " > ")) for e in metrics["examples"]
    ]
    print("\n" + table(rows, text_columns=3))
  print(f"\nwritten to {folder.path}; next: python -m hierjax predict {shlex.quote(str(folder.path))} IMAGES...")
