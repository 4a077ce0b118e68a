"""The rows of a split, scored batch by batch, so that the probabilities of one batch are held at a time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int

from hierjax.evaluation.answers import prediction_of
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.scored import Scored, joined, score
from hierjax.evaluation.metrics.tree_table import TreeTable
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.members import Answered, Ensemble
from hierjax.inference.pipeline import Stages, judged_labels
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Examples, Method, Prediction, Variables


class ScoredRows:
  """The scores of the images that an evaluation step has seen."""

  def __init__(self, tree: LabelTree):
    self._table = TreeTable.of(tree)
    self._parts: list[Scored] = []

  def kept(self, step: Callable[[Method, Variables, Examples], Any]) -> Callable[[Method, Variables, Examples], Any]:
    """Returns an evaluation step whose predictions are scored here; those of multi-label heads are not."""

    def scoring(method: Method, variables: Variables, examples: Examples) -> Any:
      found = step(method, variables, examples)
      if found.prediction is not None:
        self.add(found.prediction, found.labels, examples.mask)
      return found

    return scoring

  def add(self, prediction: Prediction, paths: jax.Array, mask: jax.Array) -> None:
    """Scores a batch: predictions, label paths `i32[b 1 l]`, and a mask that is 0 where there is no image."""
    here = np.flatnonzero(_whole(mask) > 0)
    labels = _whole(paths).reshape(len(paths), -1)[here]
    self._parts.append(score(jax.tree.map(lambda x: _whole(x)[here], prediction), labels, self._table))

  @functools.cached_property
  def facts(self) -> Facts | None:
    """The facts about all images so far; None where none was scored."""
    return Facts(joined(self._parts), self._table) if self._parts else None


class AnsweredRows:
  """The scores of the answers of a run or an ensemble: a taker of `fold`."""

  def __init__(self, ensemble: Ensemble, stages: Stages):
    self._tree, self._stages = ensemble.whole.run.method.tree, stages
    self._rows = ScoredRows(ensemble.tree)

  def add(self, answered: Answered) -> None:
    """Scores a batch."""
    best, labels = _best(self._tree, self._stages, answered)
    self._rows.add(best, labels, answered.mask)

  @property
  def facts(self) -> Facts:
    """The facts about all images so far, without those that could not be read."""
    assert self._rows.facts is not None  # a split has images
    return self._rows.facts


@functools.partial(jax.jit, static_argnums=1)
def _best(tree: TreeArrays, stages: Stages, answered: Answered) -> tuple[Prediction, Int[Array, "b p l"]]:
  """Returns the best paths of a batch, and the labels that they are compared with."""
  found = prediction_of(answered, stages, tree)
  best = dataclasses.replace(found, paths=found.paths[:, :1], level_prob=None)
  return best, judged_labels(answered.labels, stages, tree)


def _whole(array: jax.Array) -> np.ndarray:
  """Returns an array of all processes as numpy's."""
  if jax.process_count() > 1:
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
  return np.asarray(array)
