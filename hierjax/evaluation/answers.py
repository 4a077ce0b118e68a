"""The loop over the answers of a run or an ensemble: rows and sums that are taken from each batch in one pass."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from hierjax.functional.selective import abstain
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.loaded_run import joined
from hierjax.inference.members import Answered, Ensemble, Images, answers_of
from hierjax.inference.pipeline import Stages, answer
from hierjax.types import Prediction

OfBatch = Callable[[Answered], Any]  # jitted; a pytree


@runtime_checkable
class Taker(Protocol):
  """What takes something from each batch of answers."""

  def add(self, answered: Answered) -> None:
    """Takes it from a batch."""


class Rows:
  """A row an image: `function(answered)` is a pytree of `[b ...]`."""

  def __init__(self, function: OfBatch):
    self._function = function
    self._parts: list[Any] = []

  def add(self, answered: Answered) -> None:
    """Adds the rows of a batch."""
    self._parts.append(jax.device_get(self._function(answered)))

  def values(self, count: int) -> Any:
    """Returns the rows of the `count` images, a pytree of numpy's `[n ...]`."""
    return joined(self._parts, count)


class Sums:
  """A sum over the images: `function(answered)` is a pytree of the sums over a batch."""

  def __init__(self, function: OfBatch):
    self._function = function
    self._total: Any = None

  def add(self, answered: Answered) -> None:
    """Adds the sums of a batch."""
    found = self._function(answered)
    self._total = found if self._total is None else jax.tree.map(jnp.add, self._total, found)

  def values(self) -> Any:
    """Returns the sums over all batches, a pytree of numpy's arrays."""
    return jax.tree.map(np.asarray, self._total)


def fold(ensemble: Ensemble, images: Images, *takers: Taker) -> None:
  """Runs all images of a split through an ensemble once, and adds the answers of each batch to all takers.

  Raises:
    UserError: the probabilities of a level do not sum to 1.
  """
  with contextlib.closing(answers_of(ensemble, images)) as answers:
    for answered in answers:
      for taker in takers:
        taker.add(answered)


def prediction_of(answered: Answered, stages: Stages, tree: TreeArrays, alpha: jax.Array | None = None) -> Prediction:
  """Returns the prediction of a run or an ensemble for a batch; jittable.

  A single run whose probabilities no stage changes keeps the paths of its own decoding.

  Args:
    answered: the answers of all parts.
    stages: the settings of the pipeline.
    tree: the tree.
    alpha: a traced value in place of `stages.alpha`, for sweeps.
  """
  if len(answered.own) > 1 or alpha is not None or not stages.keep_probabilities:
    return answer(answered.distributions, stages, tree, alpha)
  mean = answered.distributions[0]
  own = dataclasses.replace(
    answered.own[0], node_prob=mean.node_prob, level_prob=mean.level_prob, node_score=mean.node_score
  )
  return abstain(own, stages.threshold, tree, stages.options) if stages.threshold else own
