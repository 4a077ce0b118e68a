"""Metrics on the console: at the end of training, and by `evaluate`."""

from __future__ import annotations

import itertools
import math
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from hierjax.evaluation.several_runs.ensembles import Errors
from hierjax.evaluation.several_runs.significance import error_names
from hierjax.evaluation.tables import accuracy_table, accuracy_tables, class_tables, percent, table, with_arrows
from hierjax.runs.folder import RunFolder


def print_metrics(folder: RunFolder, metrics: Mapping[str, Any], every: bool = False) -> None:
  """Prints the contents of eval/SPLIT.json: the main metrics or every one, a few paths, and the next commands."""
  views = f", {metrics['views']} views each" if metrics["views"] > 1 else ""
  known = f", known down to {metrics['level_names'][metrics['known_levels'] - 1]}" if "known_levels" in metrics else ""
  print(f"\n{metrics['num_examples']:,} images of {metrics['split']}{views}{known}, step {metrics['step']}")
  if "judged" in metrics:
    print(f"{percent(metrics['judged'])} of them have a label among those of --only, and count")
  print(accuracy_table(metrics, every))
  if metrics.get("lowest_recall"):
    print(f"\n{class_tables(metrics)}")
  if "examples" in metrics:
    rows = [("image", "label", "predicted")]
    rows += [(e["image"], with_arrows(e["label"]), with_arrows(e["predicted"])) for e in metrics["examples"]]
    print("\n" + table(rows, text_columns=3))
  python, workdir = from_here(sys.executable), shlex.quote(from_here(str(folder.path)))
  print(f"\nthe run is in {workdir}; next:")
  if "path_accuracy" in metrics:
    print(f"  {python} -m hierjax report {workdir}")
  images = "IMAGES..."
  if folder.config()["data"]["name"] == "shapes":
    images = "runs/samples"
    print(f"  {python} -m hierjax data demo {images} --images 20")
  print(f"  {python} -m hierjax predict {workdir} {images}")


def ensemble_errors(errors: Errors, alpha: int) -> list[dict[str, Any]]:
  """Returns the errors of the ensembles of each size, with one of the alphas, by number, as eval/SPLIT.json holds them.

  They are means over the subsets of the members and, where there are several, their standard deviations.
  """
  found = []
  for size in errors.sizes:
    several = len(errors.of_size(size))
    mean = [None if math.isnan(value) else value for value in errors.mean(size)[alpha].tolist()]
    found.append({"size": size, "subsets": several, "raw_level_error": mean[:-1], "path_error": mean[-1]})
    if several > 1:
      deviation = [None if math.isnan(value) else value for value in errors.deviation(size)[alpha].tolist()]
      found[-1] |= {"raw_level_error_deviation": deviation[:-1], "path_error_deviation": deviation[-1]}
  return found


def print_ensemble(name: str, found: Mapping[float, Mapping[str, Any]]) -> None:
  """Prints the metrics of an ensemble by alpha, and the errors of its subsets."""
  metrics = next(iter(found.values()))
  print(f"\n{name}: {metrics['num_examples']:,} images of {metrics['split']}")
  if "judged" in metrics:
    print(f"{percent(metrics['judged'])} of them have a label among those of --only, and count")
  print(accuracy_tables({f"alpha {alpha:g}" if len(found) > 1 else "value": found[alpha] for alpha in found}))
  if metrics.get("lowest_recall") and len(found) == 1:
    print(f"\n{class_tables(metrics)}")
  if "ensembles" not in metrics:
    return
  rows: list[tuple[str, ...]] = [("top-1 error", "alpha", "subsets", *error_names(metrics["level_names"]))]
  for rank, ensemble in enumerate(metrics["ensembles"]):
    for alpha, values in found.items():
      row = values["ensembles"][rank]
      means = [*row["raw_level_error"], row["path_error"]]
      spreads = [*row.get("raw_level_error_deviation", ()), row.get("path_error_deviation")]
      cells = [_spread(*cell) for cell in itertools.zip_longest(means, spreads)]
      rows.append((f"ensemble-{ensemble['size']}", f"{alpha:g}", str(ensemble["subsets"]), *cells))
  print("\n" + table(rows))


def _spread(mean: float | None, deviation: float | None) -> str:
  return percent(mean) + ("" if deviation is None else f" \N{PLUS-MINUS SIGN} {100 * deviation:.2f}")


def from_here(path: str) -> str:
  """Returns a path relative to the working directory where it lies below it."""
  return os.path.relpath(path) if os.path.abspath(path).startswith(os.getcwd() + os.sep) else path
