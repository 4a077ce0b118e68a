"""Several runs with a multi-label head: means and deviations over the runs (Koo et al., Table 3)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from hierjax.errors import UserError
from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
from hierjax.evaluation.tables import SEVERAL_PATHS, table
from hierjax.inference.images import distinct_names
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run


def have_several_paths(folders: Sequence[RunFolder]) -> bool:
  """Returns whether the runs have multi-label heads.

  Raises:
    UserError: some have, and some have not.
  """
  several = [Run.from_folder(folder).method.module.head.multilabel for folder in folders]
  if any(several) and not all(several):
    one, other = folders[several.index(True)].path, folders[several.index(False)].path
    raise UserError(
      f"{one} predicts several paths an image and {other} one: neither an ensemble nor a mean of both has a meaning; "
      "evaluate runs of one kind"
    )
  return all(several)


def evaluate_runs(folders: Sequence[RunFolder], mesh: Mesh, settings: SplitSettings) -> dict[str, Any]:
  """Measures each run by itself, at thresholds of its own, and returns means and standard deviations over the runs.

  Each run's numbers are also written to its own eval/SPLIT.json. The deviation is that of a sample: n - 1 in the
  denominator.

  Args:
    folders: of two runs or more, on one tree.
    mesh: the devices.
    settings: the images.

  Raises:
    UserError: a folder is named twice, or the runs have other trees or other images.
  """
  distinct_names(folders)
  runs = [Run.from_folder(folder, settings.data_root) for folder in folders]
  for folder, run in zip(folders, runs, strict=True):
    if run.tree != runs[0].tree:
      raise UserError(f"{folders[0].path} and {folder.path} have different label trees: their means have no meaning")
  found: list[dict[str, Any]] = []
  for folder, run in zip(folders, runs, strict=True):
    found.append(evaluate_run(folder, mesh, settings, runs[0].opened if run.data == runs[0].data else None))
    if found[-1]["data"]["checksum"] != found[0]["data"]["checksum"]:
      raise UserError(f"{folders[0].path} and {folder.path} are not judged on the same images")
  return _summary(folders, found)


def _summary(folders: Sequence[RunFolder], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  values = {name: [metrics[name] for metrics in found] for name in SEVERAL_PATHS}
  known = {name: numbers for name, numbers in values.items() if None not in numbers}
  members = [
    {"runs": [str(folder.path)], "steps": [metrics["step"]], "thresholds": metrics["thresholds"]}
    | {name: metrics[name] for name in SEVERAL_PATHS}
    for folder, metrics in zip(folders, found, strict=True)
  ]
  return {
    **{key: found[0][key] for key in ("split", "data", "num_examples", "level_names", "level_sizes")},
    "members": members,
    "means": {name: statistics.fmean(numbers) for name, numbers in known.items()},
    "deviations": {name: statistics.stdev(numbers) for name, numbers in known.items()},
  }


def print_runs(metrics: Mapping[str, Any]) -> None:
  """Prints what `evaluate_runs` has found: a row a run, and then the mean and the deviation, all in per cent."""
  print(f"\n{len(metrics['members'])} runs: {metrics['num_examples']:,} images of {metrics['split']}")
  rows = [("F1 (%)", *(title.removesuffix(" F1") for title in SEVERAL_PATHS.values()))]
  for member in metrics["members"]:
    rows.append((member["runs"][0], *(_hundredths(member[name]) for name in SEVERAL_PATHS)))
  means, deviations = metrics["means"], metrics["deviations"]
  rows.append(("mean (sd)", *(_mean(means.get(name), deviations.get(name)) for name in SEVERAL_PATHS)))
  print(table(rows))


def _hundredths(value: float | None) -> str:
  return "-" if value is None else f"{100 * value:.2f}"


def _mean(mean: float | None, deviation: float | None) -> str:
  return "-" if mean is None or deviation is None else f"{100 * mean:.2f} ({100 * deviation:.2f})"
