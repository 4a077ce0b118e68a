"""The temperature of a run: one number, fitted on validation, at which its probabilities match frequencies best."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Float

from hierjax.data.source import Source
from hierjax.functional.calibration import calibrated
from hierjax.functional.paths import ends, single_path
from hierjax.inference.frozen import frozen_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.choices import keep_temperature
from hierjax.runs.devices import replicated
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.types import DecodeOptions, Examples, Method, Variables

GRID = np.exp2(np.linspace(-3, 3, 49)).astype(np.float32)  # steps of 9%; a parabola finds the minimum between them


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A temperature and what it was fitted on.

  Attributes:
    temperature: T.
    images: of validation, with a label.
    nll: the mean of -log P(label node) at T = 1, in nats.
    nll_after: the same at T.
  """

  temperature: float
  images: int
  nll: float
  nll_after: float

  def __str__(self) -> str:
    """Returns the sentence that training prints."""
    return (
      f"temperature {self.temperature:.3f}, fitted on {self.images:,} validation images: the negative log-likelihood "
      f"of their labels goes from {self.nll:.4f} to {self.nll_after:.4f}"
    )


def calibrate_run(run: Run, folder: RunFolder, mesh: Mesh) -> Fitted | None:
  """Fits the temperature of a run on validation, and keeps it in choices.json, where every command finds it.

  Args:
    run: at temperature 1.
    folder: the run's, with the weights.
    mesh: the devices.

  Returns:
    None where there is nothing to fit it on, or where the head predicts several paths an image.
  """
  validation = run.source("validation")
  if validation is None or not run.config.calibrate or run.method.module.head.multilabel:
    return None
  loaded = LoadedRun(folder, run, *run.restored_variables(folder, mesh), mesh)
  fitted = fit(*_sums(loaded, validation))
  if fitted is not None and jax.process_index() == 0:
    about = {"split": "validation", "images": fitted.images, "nll": [fitted.nll, fitted.nll_after]}
    keep_temperature(loaded.folder, loaded.step, fitted.temperature, about)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("temperature")  # the others read the file
  return fitted


def fit(nll: Float[np.ndarray, "t"], images: int) -> Fitted | None:
  """Returns the temperature of the least negative log-likelihood; None for no images.

  A prior of ln T, normal with variance 1, keeps T near 1 where there are few images: with n of them it adds
  (ln T)^2 / 2n to the mean.

  Args:
    nll: the sum of -log P(label node) over the images, at each temperature of GRID.
    images: how many there are.
  """
  if not images:
    return None
  log_t, mean = np.log(GRID.astype(np.float64)), np.asarray(nll, np.float64) / images
  cost = mean + log_t**2 / (2 * images)
  best = int(np.clip(np.argmin(cost), 1, len(GRID) - 2))
  a, b, c = cost[best - 1 : best + 2]
  curvature = a - 2 * b + c
  shift = float(np.clip((a - c) / (2 * curvature), -1, 1)) if curvature > 0 else 0.0
  found = log_t[best] + shift * (log_t[1] - log_t[0])
  return Fitted(
    temperature=float(np.exp(found)),
    images=images,
    nll=float(np.interp(0.0, log_t, mean)),
    nll_after=float(np.interp(found, log_t, mean)),
  )


def _sums(loaded: LoadedRun, validation: Source) -> tuple[Float[np.ndarray, "t"], int]:
  """Returns the sums over the labelled images of validation, at each temperature of GRID, and how many they are."""
  source = frozen_features(loaded, validation)
  step = jax.jit(functools.partial(_nll, loaded), out_shardings=replicated(loaded.mesh))
  total: Any = (0.0, 0.0)
  with contextlib.closing(loaded.map(step, source)) as batches:
    for _, found in batches:
      total = jax.tree.map(lambda x, y: x + np.asarray(y, np.float64), total, found)
  return np.asarray(total[0]), round(float(total[1]))


def _nll(
  loaded: LoadedRun, method: Method, variables: Variables, examples: Examples
) -> tuple[Float[Array, "t"], Float[Array, ""]]:
  batch = loaded.run.preprocess(examples)
  found = method.distribution(variables, batch.inputs, None, DecodeOptions())
  end = ends(single_path(batch.paths))
  counted = (end >= 0) & (batch.mask > 0)

  def at(temperature: Float[Array, ""]) -> Float[Array, ""]:
    prob = calibrated(found, temperature, method.tree).node_prob
    of_label = jnp.take_along_axis(prob, jnp.maximum(end, 0)[:, None], axis=1)[:, 0]
    nll = -jnp.log(jnp.maximum(of_label, jnp.finfo(jnp.float32).tiny))
    return jnp.where(counted, nll, 0.0).sum()

  return jax.lax.map(at, jnp.asarray(GRID)), counted.sum().astype(jnp.float32)
