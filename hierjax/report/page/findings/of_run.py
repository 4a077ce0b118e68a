"""Findings of a run: its predictions for a split, computed anew in one pass; nothing is read from eval/."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence

import numpy as np

from hierjax.data.source import Source
from hierjax.evaluation.answers import Rows, fold
from hierjax.evaluation.choosing.selective import conditions_of
from hierjax.evaluation.evaluate import SplitSettings
from hierjax.evaluation.likely_nodes import likely_taker
from hierjax.evaluation.metrics.rows import AnsweredRows
from hierjax.evaluation.predictions import predictions_taker
from hierjax.functional.selective import UNSHORTENED
from hierjax.inference.images import check_single_path
from hierjax.inference.loaded_run import LoadedRun, images_suffix
from hierjax.inference.members import Ensemble, Images
from hierjax.inference.pipeline import Stages
from hierjax.inference.settings import threshold_conditions
from hierjax.report.page.findings.findings import About, Findings, Pixels, Place, rows_of
from hierjax.report.page.findings.provenance import of_run
from hierjax.report.plots.canvas import seen_images
from hierjax.runs.choices import find_choice
from hierjax.runs.run import Run, asked_split


def findings_of(loaded: LoadedRun, settings: SplitSettings = SplitSettings()) -> Findings:
  """Predicts all images of a split.

  Args:
    loaded: the run, opened with the same `data_root`.
    settings: the split.

  Raises:
    UserError: images have several label paths, or the data cannot be used.
  """
  split, source = asked_split(loaded.run, settings.split)
  check_single_path(loaded.run, source, "a report shows one path an image")
  ensemble, stages = Ensemble.of(loaded), Stages(loaded.run.options)
  shortened = predictions_taker(ensemble, dataclasses.replace(stages, threshold=UNSHORTENED))
  scored, likely, masks = AnsweredRows(ensemble, stages), likely_taker(ensemble), Rows(lambda answered: answered.mask)
  fold(ensemble, Images.of(loaded, split, source), shortened, scored, likely, masks)
  numbers = np.flatnonzero(masks.values(len(source)) > 0)
  return Findings(
    about=_about(loaded, split, source, len(numbers)),
    facts=scored.facts,
    shortened=rows_of(shortened.values(len(source)), numbers),
    likely=rows_of(likely.values(len(source)), numbers),
    numbers=numbers,
    name_of=_names(loaded.run, source, numbers),
    pictures=functools.partial(_pictures, loaded.run, source, numbers) if _shows(source) else None,
    side=loaded.run.data.crop,
    curves=[json.loads(line) for line in loaded.folder.metric_lines()],
    thresholds=_thresholds(ensemble),
  )


def place_of(loaded: LoadedRun, settings: SplitSettings = SplitSettings()) -> Place:
  """Returns the place of a run's page: report.html, or report-images-XXXX.html for images that are not the run's."""
  split = asked_split(loaded.run, settings.split)[0]
  suffix = images_suffix(loaded.folder, loaded.run, split)
  return Place(loaded.folder.path, f"report{suffix}.html", f"{split}{suffix}")


def _shows(source: Source) -> bool:
  return len(source.shape) == 3 and source.shape[-1] in (1, 3)


def _pictures(run: Run, source: Source, numbers: np.ndarray, rows: Sequence[int]) -> list[Pixels | None]:
  return list(seen_images(source, numbers[list(rows)], run.data.crop)) if len(rows) else []


def _names(run: Run, source: Source, numbers: np.ndarray) -> Callable[[int], str]:
  """Returns the names of images, without the folder of the set: a page may go to people who have other folders."""
  root = os.path.join(os.path.abspath(os.path.expanduser(run.data.root)), "") if run.data.root else ""

  def name_of(row: int) -> str:
    name = source.name_of(int(numbers[row]))
    return name.removeprefix(root) if root else name

  return name_of


def _thresholds(ensemble: Ensemble) -> dict[str, float]:
  """Returns the confidence thresholds that a run's folder keeps for these weights."""
  folder = ensemble.whole.folder
  conditions = threshold_conditions(folder, ensemble.runs, conditions_of(ensemble, 0.0))
  found = {}
  for kind, how in (("threshold", "chosen on validation"), ("certified", "certified")):
    choice = find_choice(folder, kind, conditions)
    if choice is None or (kind == "certified" and choice.about.get("certified") is None):
      continue  # where nothing could be certified, the record says so
    assert isinstance(choice.value, int | float)
    found[how] = float(choice.value)
  return found


def _about(loaded: LoadedRun, split: str, source: Source, readable: int) -> About:
  run, folder = loaded.run, loaded.folder
  notes = []
  if readable < len(source):
    notes.append(f"{len(source) - readable:,} images of the split could not be read and count nowhere.")
  images = run.images_of(split)
  if folder.evaluation_name(split, split, images) != split:
    notes.append(f"These are not the {split} images that the run began with.")
  if split == "train":
    notes.append("The model was trained on these images: on others it errs more.")
  return About(
    name=folder.path.name,
    images=f"the {split} split",
    things="photographs" if _shows(source) and run.data.name == "folder" else "images",
    provenance=of_run(loaded, split, images["checksum"]),
    config=json.dumps(folder.config(), indent=2, ensure_ascii=False),
    notes=notes,
    seen=split == "train",
  )
