"""The errors of an ensemble's subsets by alpha (Dutt et al. 2017, sec. 4), and all metrics of the ensemble."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hierjax.errors import UserError
from hierjax.evaluation.answers import Rows, Sums, fold, prediction_of
from hierjax.evaluation.evaluate import judged_share, mean_values
from hierjax.evaluation.several_runs.significance import Difference, check_pairs, differences
from hierjax.functional.combine import mean_of_members
from hierjax.functional.metrics import Mean, evaluate_batch, level_and_path_counts, level_and_path_errors
from hierjax.functional.paths import single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.images import same_images
from hierjax.inference.members import Answered, Ensemble, Images, distribution_shape
from hierjax.inference.pipeline import Stages, finish, judged_labels
from hierjax.inference.settings import why_unadapted
from hierjax.types import Batch

LARGEST = 4  # members of the ensembles of which all subsets are measured, as in the paper; and all members together
_IMAGES = "images"  # a count among the metrics


@dataclasses.dataclass(frozen=True)
class Errors:
  """Top-1 errors on n images: of the raw argmax level by level, and then of the path.

  Attributes:
    alphas: by which the levels were adapted.
    subsets: the numbers of the members that were averaged.
    wrong: `i64[s a l+1]`, how many images a subset has wrong with an alpha.
    counted: `i64[l+1]`, how many count.
    levels: the names of the levels.
  """

  alphas: tuple[float, ...]
  subsets: tuple[tuple[int, ...], ...]
  wrong: Int[np.ndarray, "s a i"]
  counted: Int[np.ndarray, "i"]
  levels: tuple[str, ...]

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


def subset_errors(ensemble: Ensemble, alphas: Sequence[float], stages: Stages) -> Sums:
  """Returns a taker of the errors of all `subsets` of the members, adapted by several alphas; see `errors_of`."""
  every = subsets(len(ensemble.members))
  count = _counter(ensemble, every, alphas, stages)

  def sums(answered: Answered) -> tuple[Array, Array]:
    wrong, counted = count(answered)
    return wrong.sum(axis=2), counted.sum(axis=0)

  return Sums(jax.jit(sums))


def errors_of(sums: Sums, ensemble: Ensemble, alphas: Sequence[float]) -> Errors:
  """Returns the errors that a taker of `subset_errors` has summed up."""
  wrong, counted = (found.astype(np.int64) for found in sums.values())
  return Errors(tuple(alphas), subsets(len(ensemble.members)), wrong, counted, ensemble.tree.named_levels)


def member_errors(ensemble: Ensemble, alpha: float, stages: Stages) -> Rows:
  """Returns a taker of the images that each member by itself has wrong, adapted by one alpha.

  Its rows are `bool[n m l+1]`, wrong, and `bool[n l+1]`, counted; of the raw argmax level by level, and last
  of the path.
  """
  count = _counter(ensemble, [(member,) for member in range(len(ensemble.members))], [alpha], stages)

  def rows(answered: Answered) -> tuple[Array, Array]:
    wrong, counted = count(answered)
    return jnp.moveaxis(wrong[:, 0], 0, 1), counted

  return Rows(jax.jit(rows))


def _counter(
  ensemble: Ensemble, chosen: Sequence[tuple[int, ...]], alphas: Sequence[float], stages: Stages
) -> Callable[[Answered], tuple[Bool[Array, "s a b i"], Bool[Array, "b i"]]]:
  """Returns the function from the answers for a batch to its errors, by subset and alpha, and to which of them count.

  A subset of a single run at alpha = 0 has the errors of the run's own decoding, where no stage changes it.
  """
  tree = ensemble.whole.run.method.tree
  parts = np.stack([ensemble.parts_of(subset) for subset in chosen])
  single = parts.sum(axis=1) == 1
  own_part = parts.argmax(axis=1)
  at_zero = (np.asarray(alphas, np.float32) == 0) & stages.keep_probabilities

  def count(answered: Answered) -> tuple[Bool[Array, "s a b i"], Bool[Array, "b i"]]:
    paths, here = single_path(judged_labels(answered.labels, stages, tree)), answered.mask[:, None] > 0

    def of_subset(chosen: Float[Array, "m"]) -> Bool[Array, "a b i"]:
      mean = mean_of_members(answered.distributions, tree, chosen)

      def with_alpha(alpha: Float[Array, ""]) -> Bool[Array, "b i"]:
        return level_and_path_errors(finish(mean, stages, tree, alpha), paths)[0]

      return jax.lax.map(with_alpha, jnp.asarray(alphas, jnp.float32))

    wrong = jax.lax.map(of_subset, jnp.asarray(parts))
    for subset in np.flatnonzero(single & at_zero.any()).tolist():
      own = answered.own[own_part[subset]]
      if own.paths.shape[-1] == paths.shape[1]:
        of_own, _ = level_and_path_errors(own, paths)
        wrong = wrong.at[subset, np.flatnonzero(at_zero)].set(of_own[None])
    counted = level_and_path_counts(paths)
    return wrong & here[None, None], counted & here

  return count


def all_metrics(ensemble: Ensemble, alphas: Sequence[float], stages: Stages) -> Sums:
  """Returns a taker of all metrics of the ensemble of all members, adapted by several alphas; see `metrics_of`."""
  tree = ensemble.whole.run.method.tree

  def metrics(answered: Answered) -> list[dict[str, Mean]]:
    return [_metrics(answered, dataclasses.replace(stages, alpha=alpha), tree) for alpha in alphas]

  return Sums(jax.jit(metrics))


def metrics_of(sums: Sums) -> list[dict[str, Any]]:
  """Returns for each alpha the metrics that eval/SPLIT.json holds; there is no loss."""
  found = []
  for total in sums.values():
    means = {name: mean for name, mean in total.items() if name != _IMAGES}
    found.append({"num_examples": round(float(total[_IMAGES].count)), **mean_values(means)})
  return found


def _metrics(answered: Answered, stages: Stages, tree: TreeArrays) -> dict[str, Mean]:
  prediction = prediction_of(answered, stages, tree)
  batch = Batch(inputs=None, paths=judged_labels(answered.labels, stages, tree), mask=answered.mask)
  found = evaluate_batch(prediction, batch, tree) | judged_share(batch, stages)
  if prediction.raw_consistent:
    del found["inconsistent_predictions"]
  return {_IMAGES: Mean.of(answered.mask, answered.mask), **found}


def why_alpha_is_idle(ensemble: Ensemble) -> str:
  """Returns why no alpha changes the answers of an ensemble, as a sentence; '' where alpha does (READINGS D8)."""
  tree = ensemble.whole.run.method.tree
  shapes = [distribution_shape(part.run, part.variables) for part in ensemble.parts]
  return why_unadapted(jax.eval_shape(lambda *members: mean_of_members(members, tree), *shapes), tree.depth)


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two sets of runs on the same images.

  Attributes:
    first: the first set; the members are compared, each by itself.
    second: the second set, paired with the first in order.
    images: the images as each set reads them.
  """

  first: Ensemble
  second: Ensemble
  images: tuple[Images, Images]

  def __post_init__(self) -> None:
    """Raises UserError for sets that cannot be paired, with other trees, or judged on other images."""
    check_pairs(len(self.first.members), len(self.second.members))
    ours, theirs = self.first.whole, self.second.whole
    text = f"{ours.folder.path} and {theirs.folder.path}"
    if ours.run.tree != theirs.run.tree:
      raise UserError(f"{text} have different label trees, so they cannot be compared")
    mine, other = self.images
    if mine.split != other.split or not same_images((ours.run, theirs.run), mine.source, other.source):
      raise UserError(f"{text} are not judged on the same images")

  def differences(self, alphas: tuple[float, float]) -> list[Difference]:
    """Returns how the errors differ, level by level and of the path, each set adapted by its alpha."""
    found = []
    for ensemble, images, alpha in zip((self.first, self.second), self.images, alphas, strict=True):
      rows = member_errors(ensemble, alpha, Stages(ensemble.whole.run.options))
      fold(ensemble, images, rows)
      wrong, counted = rows.values(len(images.source))
      found.append((np.moveaxis(wrong, 1, 0), counted))
    (wrong, counted), (other, other_counted) = found
    return differences(wrong, other, counted & other_counted, self.first.tree.named_levels)
