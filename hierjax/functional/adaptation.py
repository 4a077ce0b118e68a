"""Classifier adaptation (Dutt et al. 2017, Algorithm 1): the levels of a prediction are drawn to agree."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.errors import UserError
from hierjax.functional.combine import read_off
from hierjax.functional.distributions import block_parents, by_levels, shares, split_levels, sums
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Prediction


def check_alpha(alpha: float, depth: int, where: str) -> None:
  """Raises UserError for an interpolation factor that would make probabilities negative (READINGS D3, D7).

  Args:
    alpha: what is asked for: from 0 to 2, and to 1 beyond two levels.
    depth: levels of the tree.
    where: what to call it in the error: the flag or the config key that gave it.
  """
  largest = 2 if depth <= 2 else 1
  if not 0 <= alpha <= largest:
    raise UserError(f"{where} = {alpha:g}: on a tree of {depth} levels it must be from 0 to {largest}")


def adapt(level_prob: Float[Array, "b e"], alpha: Float[Array, ""] | float, tree: TreeArrays) -> Float[Array, "b e"]:
  """Returns the level distributions moved by `alpha` towards such as agree: each level the sums of the level below.

  Where they agree, an entry has the mean of what the L levels say of it. Its own says p; a level below, the sum over
  its descendants; a level above, the mass of its ancestor there, shared out on the way down, at each step among the
  siblings by what they hold on their own level and below. With the sum over all levels but its own, `others`,

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


def adapted(prediction: Prediction, alpha: Float[Array, ""] | float, tree: TreeArrays, beam: int) -> Prediction:
  """Returns the prediction whose level distributions are adapted, and all else read off them.

  The node probabilities follow them by the chain rule; the paths lead to the `beam` most probable ends, scored as with
  `normalise = siblings` (READINGS A4). A prediction whose levels agree by construction comes back as it is: of a head
  that follows the chain rule (D8), or whose upper levels are all sums of the last.
  """
  if prediction.level_prob is None or set(prediction.summed_levels) >= set(range(tree.depth - 1)):
    return prediction
  level_prob = adapt(prediction.level_prob, alpha, tree)
  return read_off(by_levels(level_prob, tree), level_prob, prediction.summed_levels, tree, beam)
