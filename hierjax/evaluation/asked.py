"""Which images a picture asks a run about, and whether they are fit for it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import numpy as np
from jax.sharding import Mesh

from hierjax.data.source import Source, View
from hierjax.devices import put_batch
from hierjax.errors import UserError
from hierjax.evaluation.run import Run
from hierjax.types import Examples


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


def batches(run: Run, source: Source, mesh: Mesh) -> Generator[Examples, None, None]:
  """Yields the batches of `Run.eval_batches`, on the devices."""
  with contextlib.closing(run.eval_batches(source)) as found:
    for examples in found:
      yield put_batch(examples, mesh)


def check_single_path(run: Run, source: Source) -> None:
  """Raises UserError where images have several label paths."""
  if source.nodes.shape[1] != 1:
    raise UserError(f"images of {run.data.name!r} have several label paths; this picture is of a single one each")


def check_images(source: Source) -> None:
  """Raises UserError where a set has no images, or images that are neither grey nor RGB."""
  if len(source.shape) != 3 or source.shape[-1] not in (1, 3):
    raise UserError(f"a picture needs grey or RGB images; this set has arrays of shape {list(source.shape)}")
