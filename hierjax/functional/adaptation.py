"""Classifier adaptation (Dutt et al. 2017, Algorithm 1): level distributions moved towards agreement."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.functional.distributions import block_parents, by_levels, shares, split_levels, sums
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Distribution


def check_alpha(alpha: float, depth: int, where: str) -> None:
  """Raises UserError for an interpolation factor that would make probabilities negative (READINGS D3, D7).

  Args:
    alpha: the requested factor: from 0 to 2, and to 1 beyond two levels.
    depth: levels of the tree.
    where: what to call it in the error: the flag or the config key that gave it.
  """
  largest = 2 if depth <= 2 else 1
  if not 0 <= alpha <= largest:
    raise UserError(f"{where} = {alpha:g}: on a tree of {depth} levels it must be from 0 to {largest}")


@checked
def adapt(level_prob: Float[Array, "b e"], alpha: Float[Array, ""] | float, tree: TreeArrays) -> Float[Array, "b e"]:
  """Returns the level distributions moved by `alpha` towards such as agree: each level the sums of the level below.

  Where they agree, an entry has the mean of the masses that the L levels give to it. Its own level gives p; a level
  below gives the sum over the entry's descendants; a level above gives the mass of its ancestor there, shared out on
  the way down, at each step among the siblings in proportion to their masses on their own level and below. With the sum
  over all levels but its own, `others`,

      p' = (1 - alpha (L - 1) / L) p + (alpha / L) others,

  which is READINGS D7, (1 - alpha) p + alpha target, without its differences of near numbers. On two levels it is
  Algorithm 1 in closed form (D2): coarse' = (1 - alpha/2) P + (alpha/2) Q, and fine' = (1 - alpha/2) Pf + (alpha/2) P x
  Pf/Q, or P in equal parts where Q = 0 (D1). So 0 changes nothing, 1 makes the levels agree, and 2 swaps P and Q. The
  sum of a level stays what it is.

  Args:
    level_prob: the distributions, see `hierjax.functional.distributions`.
    alpha: the interpolation factor, which may be traced; see `check_alpha`.
    tree: the tree.
  """
  levels, parents, sizes, depth = split_levels(level_prob, tree), block_parents(tree), tree.block_sizes, tree.depth
  below = [jnp.zeros_like(levels[-1])]
  for t in reversed(range(depth - 1)):
    below.append(sums(levels[t + 1] + below[-1], parents[t], sizes[t]))
  below.reverse()
  above = [jnp.zeros_like(levels[0])]
  for t in range(1, depth):
    parts = shares(levels[t] + below[t], parents[t - 1], sizes[t - 1])
    above.append((levels[t - 1] + above[-1])[:, parents[t - 1]] * parts)
  others = jnp.concatenate(above, axis=1) + jnp.concatenate(below, axis=1)
  return (1 - alpha * ((depth - 1) / depth)) * level_prob + (alpha / depth) * others


def levels_agree(distribution: Distribution, depth: int) -> bool:
  """Returns whether the levels agree by construction, so that adaptation changes nothing (READINGS D8).

  They do for a head that follows the chain rule, and where the upper levels are all sums of the last.
  """
  return distribution.level_prob is None or set(distribution.summed_levels) >= set(range(depth - 1))


@checked
def adapted(distribution: Distribution, alpha: Float[Array, ""] | float, tree: TreeArrays) -> Distribution:
  """Returns the distribution whose level distributions are adapted and whose node probabilities follow them.

  Levels that agree by construction stay as they are.
  """
  if levels_agree(distribution, tree.depth):
    return distribution
  level_prob = adapt(distribution.level_prob, alpha, tree)
  return dataclasses.replace(distribution, node_prob=by_levels(level_prob, tree), level_prob=level_prob, scorer=None)
