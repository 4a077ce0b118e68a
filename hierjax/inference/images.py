"""The images of a split: samples, checks that runs can be used on them, and the names of runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hierjax.data.images.decode import read_or_skip
from hierjax.data.partial_labels import nodes_in_top_levels
from hierjax.data.source import Source, View
from hierjax.errors import UserError
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run

_PIXELS_COMPARED = 16  # images


def sample(run: Run, split: str, count: int, rng: np.random.Generator) -> View:
  """Returns random images of a split whose label is known, in the order of the set; all where there are fewer.

  Raises:
    UserError: there is no such image.
  """
  source = run.source(split)
  known = np.flatnonzero((source.nodes >= 0).any(axis=1)) if source is not None else np.zeros(0, np.int64)
  if source is None or not len(known):
    raise UserError(f"the data set {run.data.name!r} has no labelled images in its split {split!r}")
  chosen = np.sort(rng.choice(known, min(count, len(known)), replace=False))
  return View(source, chosen, source.nodes[chosen])


def check_single_path(run: Run, source: Source, wants: str = "this picture shows one path an image") -> None:
  """Raises UserError, ending in `wants`, where images have several label paths or the head is multi-label."""
  if run.method.module.head.multilabel:
    raise UserError(
      f"config.head.name = {run.config.head['name']} is a multi-label head, and {wants}; commands for such a run are "
      "`evaluate`, `predict`, `data features` and `plot neighbours`"
    )
  if source.nodes.shape[1] != 1:
    raise UserError(f"images of {run.data.name!r} have several label paths; {wants}")


def check_images(source: Source) -> None:
  """Raises UserError where a set has no images, or images that are neither grey nor RGB."""
  if len(source.shape) != 3 or source.shape[-1] not in (1, 3):
    raise UserError(f"a picture needs grey or RGB images; this set has arrays of shape {list(source.shape)}")


def same_images(runs: tuple[Run, Run], first: Source, second: Source) -> bool:
  """Returns whether two sets agree in their labels and, where they are stored in one way, in a sample of pixels.

  The tree of the second run is that of the first, or its top levels. Parts of a set must be the same part too. Of the
  sample, images that cannot be read are left out. Precomputed features do not tell whose they are: there the labels
  must do.
  """
  if len(first) != len(second):
    return False
  if not np.array_equal(nodes_in_top_levels(first.nodes, runs[0].tree, runs[1].tree), second.nodes):
    return False
  if 1 in (len(first.shape), len(second.shape)):
    return True
  if isinstance(first, View) and isinstance(second, View) and not np.array_equal(first.indices, second.indices):
    return False
  how = [run.data.decoding for run in runs]
  if how[0] != how[1]:
    return True
  sample = np.unique(np.linspace(0, len(first) - 1, _PIXELS_COMPARED).astype(np.int64))
  (ours, bad), (theirs, also_bad) = (read_or_skip(source, sample, "skip") for source in (first, second))
  good = [row for row in range(len(sample)) if row not in bad and row not in also_bad]
  return np.array_equal(ours[good], theirs[good])


def distinct_names(folders: Sequence[RunFolder]) -> tuple[str, ...]:
  """Returns the last parts of the paths of runs, as many as it takes to tell them apart.

  Raises:
    UserError: a folder is named twice.
  """
  paths = [folder.path for folder in folders]
  twice = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
  if twice is not None:
    raise UserError(f"{twice} is named twice: name each run once")
  parts = next(n for n in itertools.count(1) if len({path.parts[-n:] for path in paths}) == len(paths))
  return tuple(str(Path(*path.parts[-parts:])) for path in paths)
