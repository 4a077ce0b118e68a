"""The prediction pipeline: calibrate, views, members, adapt, restrict, decode, abstain.

    images -> calibrated(T) Distribution of each view -> mean_of_views   (one run, at its own temperature)
           -> mean_of_members                                     (an ensemble)
           -> adapted(alpha) -> restricted(only)                  (Distribution -> Distribution)
           -> decode(options) -> abstain(threshold)               (Distribution -> Prediction)

Every stage is the identity at its default: T = 1, one view, one member, alpha = 0, no restriction, threshold 0. Then
the answer is that of the head's own decoding, bit for bit. No stage before `decode` decodes, so a decoding rule holds
for all of them. The temperature belongs to a run's `Method`, so that nothing that reads a distribution can miss it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hierjax.functional.adaptation import adapted
from hierjax.functional.combine import mean_of_members, mean_of_views
from hierjax.functional.decoding import decode
from hierjax.functional.distributions import sums_below
from hierjax.functional.paths import ends, single_path
from hierjax.functional.restriction import restricted
from hierjax.functional.selective import abstain
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import Batch, DecodeOptions, Distribution, Examples, Method, Prediction, Variables

Preprocess = Callable[[Examples, Int[Array, ""]], Batch]  # the second argument is the number of a view


@dataclasses.dataclass(frozen=True)
class Stages:
  """The settings of the stages after the members; hashable, so static under jit.

  Attributes:
    options: of decoding.
    alpha: of classifier adaptation; 0 changes nothing.
    only: the nodes at which a path may end; None for all.
    threshold: the confidence threshold, 0 to 1; 0 changes nothing.
  """

  options: DecodeOptions = DecodeOptions()
  alpha: float = 0.0
  only: tuple[int, ...] | None = None
  threshold: float = 0.0

  @property
  def keep_probabilities(self) -> bool:
    """Whether no stage before decoding changes the distribution."""
    return self.alpha == 0 and self.only is None


def view_distributions(
  method: Method,
  variables: Variables,
  see: Callable[[Int[Array, ""]], Batch],
  options: DecodeOptions,
  known_levels: int = 0,
) -> tuple[Distribution, Batch]:
  """Returns the mean distribution over `options.views` views of a batch, and the batch of the first view; jittable.

  Args:
    method: the model.
    variables: its weights.
    see: the batch as the view of a number shows it.
    options: of decoding.
    known_levels: the upper levels of the labels that the model is given.
  """

  def of_view(number: Int[Array, ""]) -> Distribution:
    batch = see(number)
    return method.distribution(variables, batch.inputs, upper_levels(batch, known_levels), options)

  return mean_of_views(each_view(of_view, options.views), method.tree), see(jnp.int32(0))


def each_view(of_view: Callable[[Int[Array, ""]], Any], views: int) -> Any:
  """Returns `of_view` of each view, stacked, at the memory of one view. On a CPU, a batch of all views is 10% slower.

  Of several views, a distribution keeps its probabilities alone, without the head's own step.
  """
  if views == 1:  # without a loop
    return jax.tree.map(lambda x: x[None], of_view(jnp.int32(0)))

  def without_scorer(number: Int[Array, ""]) -> Any:
    is_distribution = lambda x: isinstance(x, Distribution)  # noqa: E731
    drop = lambda x: dataclasses.replace(x, scorer=None) if is_distribution(x) else x  # noqa: E731
    return jax.tree.map(drop, of_view(number), is_leaf=is_distribution)

  return jax.lax.map(without_scorer, jnp.arange(views, dtype=jnp.int32))


def answer(
  members: Sequence[Distribution], stages: Stages, tree: TreeArrays, alpha: Float[Array, ""] | None = None
) -> Prediction:
  """Returns the prediction for the distributions of one member or several; jittable.

  Args:
    members: their distributions for the same images.
    stages: the settings.
    tree: the tree.
    alpha: a traced value in place of `stages.alpha`, for sweeps.
  """
  return finish(mean_of_members(members, tree), stages, tree, alpha)


def finish(mean: Distribution, stages: Stages, tree: TreeArrays, alpha: Float[Array, ""] | None = None) -> Prediction:
  """Returns the prediction for a distribution: all stages after the members."""
  found = mean
  if alpha is not None or stages.alpha:
    found = adapted(found, stages.alpha if alpha is None else alpha, tree)
  found = restricted(found, _allowed(stages, tree), tree)
  prediction = decode(found, tree, stages.options)
  return abstain(prediction, stages.threshold, tree, stages.options) if stages.threshold else prediction


def _allowed(stages: Stages, tree: TreeArrays) -> Bool[Array, "n"] | None:
  return None if stages.only is None else jnp.asarray(np.isin(np.arange(tree.num_nodes), stages.only))


def judged_labels(paths: Int[Array, "b p l"], stages: Stages, tree: TreeArrays) -> Int[Array, "b p l"]:
  """Returns the labels that answers are compared with.

  With the decoding rule `level` they are UNKNOWN below its level. With a restriction, the labels at none of its nodes,
  and above none, are UNKNOWN, so that they do not count.
  """
  level = stages.options.level if stages.options.rule == "level" else 0
  if level:
    paths = jnp.where(jnp.arange(paths.shape[-1])[None, None] < level, paths, UNKNOWN)
  allowed = _allowed(stages, tree)
  if allowed is not None:
    reachable, end = sums_below(allowed[None].astype(jnp.float32), tree)[0] > 0, ends(paths)
    paths = jnp.where(((end < 0) | reachable[jnp.maximum(end, 0)])[..., None], paths, UNKNOWN)
  return paths


def upper_levels(batch: Batch, levels: int) -> Int[Array, "b l"] | None:
  """Returns the upper levels of the labels, UNKNOWN below them; None for 0 levels."""
  if not levels:
    return None
  paths = single_path(batch.paths)
  return jnp.where(jnp.arange(paths.shape[1])[None] < levels, paths, UNKNOWN)
