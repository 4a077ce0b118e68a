"""One distribution from several: of the views of an image, or of the members of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.functional.distributions import by_levels, level_blocks
from hierjax.functional.multilabel import smallest_above
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Distribution


@checked
def mean_of_views(views: Distribution, tree: TreeArrays) -> Distribution:
  """Returns the mean of the probabilities of several views; a single view is itself.

  The node probabilities and the level distributions are averaged. Of a multi-label head the sigmoids are.

  Args:
    views: stacked, the leaves `[v b ...]`; `level_prob` is None unless all views have one.
    tree: the tree.
  """
  if views.node_prob.shape[0] == 1:
    return jax.tree.map(lambda x: x[0], views)
  known = None if views.known is None else views.known[0]
  if views.node_score is not None:
    score = views.node_score.mean(axis=0)
    return Distribution(smallest_above(score, tree), node_score=score, known=known)
  node_prob, level_prob = jax.tree.map(lambda x: x.mean(axis=0), (views.node_prob, views.level_prob))
  return Distribution(node_prob, level_prob, known=known, summed_levels=views.summed_levels)


@checked
def mean_of_members(
  members: Sequence[Distribution], tree: TreeArrays, chosen: Float[Array, "m"] | None = None
) -> Distribution:
  """Returns the mean of the members' probabilities, whose heads may differ (READINGS D6); a single member is itself.

  Members of the whole tree that all follow the chain rule are averaged as views are. Otherwise the distribution of each
  level is the mean over the members that have one of their own there, so that a member which only sums up the level
  below does not count twice; where no member has one, it is the mean over all. A member that follows the chain rule has
  one at every level. Node probabilities follow the mean level distributions by the chain rule.

  Args:
    members: for the same images. A member may be of the top levels of the tree alone (of `LabelTree.truncated`); it
      counts at these. At least one member is of the whole tree.
    tree: the tree.
    chosen: 1 for the members that are averaged and 0 for the others; may be traced. None for all.
  """
  if len(members) == 1:
    return members[0]
  chosen = jnp.ones(len(members), jnp.float32) if chosen is None else chosen
  whole = [member.node_prob for member in members if member.node_prob.shape[1] == tree.num_nodes]
  if all(member.level_prob is None for member in members) and len(whole) == len(members):
    return Distribution(_mean(jnp.stack(whole), chosen))
  blocks, summed = [], []
  for t in range(tree.depth):
    reach = np.array([member.node_prob.shape[1] >= tree.level_offsets[t + 1] for member in members])
    present = [member for member, reaches in zip(members, reach, strict=True) if reaches]
    own = np.array([t not in member.summed_levels for member in present], np.float32)
    weights = chosen[np.flatnonzero(reach)]
    weights = jnp.where((weights * own).sum() > 0, weights * own, weights)
    blocks.append(_mean(jnp.stack([_level(member, t, tree) for member in present]), weights))
    summed += [t] * (not own.any())
  level_prob = jnp.concatenate(blocks, axis=1)
  return Distribution(by_levels(level_prob, tree), level_prob, summed_levels=tuple(summed))


def _mean(values: Float[Array, "m b i"], weights: Float[Array, "m"]) -> Float[Array, "b i"]:
  return (values * (weights / weights.sum())[:, None, None]).sum(axis=0)


def _level(member: Distribution, t: int, tree: TreeArrays) -> Float[Array, "b _"]:
  """Returns the distribution of level t of a member of the whole tree or of its top levels."""
  if member.level_prob is None:
    node_prob: Array = member.node_prob
    return node_prob[:, level_blocks(tree)[t]]
  level_prob: Array = member.level_prob
  first = sum(tree.block_sizes[:t])
  return level_prob[:, first : first + tree.block_sizes[t]]
