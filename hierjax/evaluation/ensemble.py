"""What is counted of an ensemble: errors of its subsets by alpha (Dutt et al. 2017, sec. 4), and all metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hierjax.evaluation.runner import mean_values
from hierjax.functional.adaptation import adapted
from hierjax.functional.combine import ensemble as averaged
from hierjax.functional.metrics import Mean, evaluate_batch, level_and_path_errors
from hierjax.functional.paths import single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.members import Asked, Ensemble, Images, ask, shape_of_answer
from hierjax.types import Batch, Prediction

LARGEST = 4  # members of the ensembles of which all subsets are measured, as in the paper; and all members together
_IMAGES = "images"  # a count among the metrics


@runtime_checkable
class Listener(Protocol):
  """Something that is counted while an ensemble is asked, batch by batch."""

  def hear(self, asked: Asked) -> None:
    """Takes the answers for one batch."""


def tell(ensemble: Ensemble, images: Images, *listeners: Listener) -> None:
  """Asks an ensemble about images, and lets all listeners hear; raises UserError as `ask` does."""
  with contextlib.closing(ask(ensemble, images)) as answers:
    for asked in answers:
      for listener in listeners:
        listener.hear(asked)


@dataclasses.dataclass(frozen=True)
class Errors:
  """Top-1 errors on n images: level by level, and then of the whole path.

  Attributes:
    alphas: by which the levels were adapted.
    subsets: the numbers of the members that were averaged.
    wrong: `i64[s a l+1]`, how many images a subset has wrong with an alpha.
    counted: `i64[l+1]`, how many count.
  """

  alphas: tuple[float, ...]
  subsets: tuple[tuple[int, ...], ...]
  wrong: Int[np.ndarray, "s a i"]
  counted: Int[np.ndarray, "i"]

  @property
  def sizes(self) -> tuple[int, ...]:
    """How many members the ensembles have, rising."""
    return tuple(sorted({len(subset) for subset in self.subsets}))

  def of_size(self, size: int) -> Float[np.ndarray, "s a i"]:
    """Returns the errors, from 0 to 1, of all ensembles of `size` members; nan where nothing counts."""
    rows = [i for i, subset in enumerate(self.subsets) if len(subset) == size]
    with np.errstate(invalid="ignore"):
      return self.wrong[rows] / self.counted

  def at(self, alphas: Sequence[float]) -> Errors:
    """Returns the errors with some of the alphas."""
    return dataclasses.replace(self, alphas=tuple(alphas), wrong=self.wrong[:, [self.alphas.index(a) for a in alphas]])

  def mean(self, size: int) -> Float[np.ndarray, "a i"]:
    """Returns the mean over the ensembles of `size` members."""
    return self.of_size(size).mean(axis=0)

  def deviation(self, size: int) -> Float[np.ndarray, "a i"]:
    """Returns the standard deviation over the ensembles of `size` members; nan where there is one."""
    found = self.of_size(size)
    return found.std(axis=0, ddof=1) if len(found) > 1 else np.full(found.shape[1:], math.nan)


def subsets(members: int) -> tuple[tuple[int, ...], ...]:
  """Returns all subsets of 1 to LARGEST members, and all members, by number."""
  sizes = sorted({*range(1, min(LARGEST, members) + 1), members})
  return tuple(subset for size in sizes for subset in itertools.combinations(range(members), size))


class ErrorCount:
  """Counts the errors of subsets of the members, adapted by several alphas."""

  def __init__(self, ensemble: Ensemble, alphas: Sequence[float]):
    self._alphas, self._subsets = tuple(alphas), subsets(len(ensemble.members))
    self._judge = _Judge(ensemble, self._subsets, alphas)
    self._wrong: list[np.ndarray] = []
    self._counted: list[np.ndarray] = []

  def hear(self, asked: Asked) -> None:
    """Takes the answers for one batch."""
    wrong, counted = self._judge(asked)
    self._wrong.append(wrong.sum(axis=2))
    self._counted.append(counted.sum(axis=0))

  def errors(self) -> Errors:
    """Returns what has been counted."""
    wrong, counted = (np.stack(found).sum(axis=0, dtype=np.int64) for found in (self._wrong, self._counted))
    return Errors(self._alphas, self._subsets, wrong, counted)


class Mistakes:
  """Notes which images each member by itself has wrong, adapted by one alpha."""

  def __init__(self, ensemble: Ensemble, alpha: float):
    self._judge = _Judge(ensemble, [(member,) for member in range(len(ensemble.members))], [alpha])
    self._wrong: list[np.ndarray] = []
    self._counted: list[np.ndarray] = []

  def hear(self, asked: Asked) -> None:
    """Takes the answers for one batch."""
    wrong, counted = self._judge(asked)
    self._wrong.append(wrong[:, 0])
    self._counted.append(counted)

  def noted(self, count: int) -> tuple[Bool[np.ndarray, "m n i"], Bool[np.ndarray, "n i"]]:
    """Returns what is wrong, and what counts, of the `count` images; level by level, and last the whole path."""
    return np.concatenate(self._wrong, axis=1)[:, :count], np.concatenate(self._counted)[:count]


class _Judge:
  """Says what is wrong, `bool[s a b l+1]`, by subset and alpha, and what counts, `bool[b l+1]`."""

  def __init__(self, ensemble: Ensemble, chosen: Sequence[tuple[int, ...]], alphas: Sequence[float]):
    self._tree = ensemble.whole.run.method.tree
    self._chosen = np.stack([ensemble.parts_of(subset) for subset in chosen])
    self._alphas = np.asarray(alphas, np.float32)

  def __call__(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    found: tuple[np.ndarray, np.ndarray] = jax.device_get(_judge(self._tree, asked, self._chosen, self._alphas))
    return found


@jax.jit
def _judge(
  tree: TreeArrays, asked: Asked, chosen: Float[Array, "s m"], alphas: Float[Array, "a"]
) -> tuple[Bool[Array, "s a b i"], Bool[Array, "b i"]]:
  paths, here = single_path(asked.paths), asked.mask[:, None] > 0

  def of_subset(parts: Float[Array, "m"]) -> Bool[Array, "a b i"]:
    mean = averaged(asked.predictions, tree, beam=1, chosen=parts)

    def with_alpha(alpha: Float[Array, ""]) -> Bool[Array, "b i"]:
      return level_and_path_errors(adapted(mean, alpha, tree, beam=1), paths)[0] & here

    return jax.lax.map(with_alpha, alphas)

  _, counted = level_and_path_errors(averaged(asked.predictions, tree, beam=1), paths)
  return jax.lax.map(of_subset, chosen), counted & here


class AllMetrics:
  """Counts all metrics of the ensemble of all members, adapted by several alphas."""

  def __init__(self, ensemble: Ensemble, alphas: Sequence[float]):
    self._tree, self._alphas = ensemble.whole.run.method.tree, tuple(alphas)
    self._totals: list[dict[str, Mean]] = []

  def hear(self, asked: Asked) -> None:
    """Takes the answers for one batch."""
    found = [_metrics(self._tree, asked, np.float32(alpha)) for alpha in self._alphas]
    self._totals = jax.tree.map(jnp.add, self._totals, found) if self._totals else found

  def values(self) -> list[dict[str, Any]]:
    """Returns for each alpha what eval/SPLIT.json holds of metrics; there is no loss."""
    found = []
    for total in self._totals:
      means = {name: mean for name, mean in total.items() if name != _IMAGES}
      found.append({"num_examples": round(float(total[_IMAGES].count)), **mean_values(means)})
    return found


@jax.jit
def _metrics(tree: TreeArrays, asked: Asked, alpha: Float[Array, ""]) -> dict[str, Mean]:
  prediction = adapted(averaged(asked.predictions, tree, beam=1), alpha, tree, beam=1)
  found = evaluate_batch(prediction, Batch(inputs=None, paths=asked.paths, mask=asked.mask), tree)
  if prediction.level_nodes_walk:
    del found["raw_leave_rate"]
  return {_IMAGES: Mean.of(asked.mask, asked.mask), **found}


def unchanged(ensemble: Ensemble) -> str:
  """Returns why no alpha changes what an ensemble says, as a sentence; '' where it does (READINGS D8)."""
  tree = ensemble.whole.run.method.tree
  predictions = [shape_of_answer(part.run, part.variables) for part in ensemble.parts]
  return why_unchanged(jax.eval_shape(lambda *given: averaged(given, tree, beam=1), *predictions), tree.depth)


def why_unchanged(prediction: Prediction, depth: int) -> str:
  """Returns the same for a prediction, or one of shapes, on a tree of `depth` levels."""
  if depth == 1:
    return "The tree has one level, with which nothing has to agree: alpha changes nothing."
  if prediction.node_score is not None:
    return (
      "The head predicts several paths an image, so no level has one distribution that could be adapted: alpha changes "
      "nothing."
    )
  if prediction.level_prob is None:
    return "The head follows the chain rule, so that its levels agree by construction: alpha changes nothing."
  if set(prediction.summed_levels) >= set(range(depth - 1)):
    return "The upper levels are sums of the last, so that they agree by construction: alpha changes nothing."
  return ""
