"""Temperature scaling: one number that sharpens or flattens a distribution over the tree."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.functional.distributions import end_probability, split_levels, sums_below
from hierjax.functional.multilabel import smallest_above
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Distribution, Leaf


@checked
def calibrated(distribution: Distribution, temperature: float | Leaf, tree: TreeArrays) -> Distribution:
  """Returns the distribution at a temperature T; T = 1 changes no bit.

  A head that decides step by step, or level by level, is scaled there: with the shares s_i of the children of a node,
  and of the end of the path there, which sum to 1,

      s'_i = s_i^(1/T) / sum_j s_j^(1/T),

  and P'(child) = P'(parent) s'. Level distributions are scaled in the same way, each over its level. A head with one
  softmax over the ends e of paths, such as `flat`, is scaled over these, as in Guo, Pleiss, Sun and Weinberger (2017):

      P'(e) = P(e)^(1/T) / sum_f P(f)^(1/T),

  and a node has the sum over the ends below it. The sigmoids p of a multi-label head become
  p^(1/T) / (p^(1/T) + (1-p)^(1/T)). The head's own scorer stays, so the paths and their ranking stay, too.

  Args:
    distribution: of one head.
    temperature: above 0; below 1 sharpens, above 1 flattens.
    tree: the tree.
  """
  if isinstance(temperature, float) and temperature == 1:
    return distribution
  t = jnp.float32(temperature)
  probs = dataclasses.replace(distribution, scorer=None)
  if distribution.node_score is not None:
    score = _two_sided(distribution.node_score, t)
    found = dataclasses.replace(probs, node_prob=smallest_above(score, tree), node_score=score)
  elif distribution.level_prob is not None:
    blocks = [_scaled(block, t) for block in split_levels(distribution.level_prob, tree)]
    node_prob = _by_shares(distribution.node_prob, t, tree)
    found = dataclasses.replace(probs, node_prob=node_prob, level_prob=jnp.concatenate(blocks, axis=1))
  else:
    scale = _by_ends if distribution.scorer is None else _by_shares
    found = dataclasses.replace(probs, node_prob=scale(distribution.node_prob, t, tree))
  found = jax.tree.map(lambda before, after: jnp.where(t == 1, before, after), probs, found)
  return dataclasses.replace(found, scorer=distribution.scorer)


def _scaled(block: Float[Array, "b i"], temperature: Float[Array, ""]) -> Float[Array, "b i"]:
  return jax.nn.softmax(jnp.log(block) / temperature, axis=1)


def _two_sided(score: Float[Array, "b n"], temperature: Float[Array, ""]) -> Float[Array, "b n"]:
  return jax.nn.sigmoid((jnp.log(score) - jnp.log1p(-score)) / temperature)


def _by_ends(node_prob: Float[Array, "b n"], temperature: Float[Array, ""], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the node probabilities whose ends of paths are scaled."""
  return sums_below(_scaled(end_probability(node_prob, tree), temperature), tree)


def _by_shares(node_prob: Float[Array, "b n"], temperature: Float[Array, ""], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the node probabilities whose shares among siblings are scaled."""
  parent, end = jnp.asarray(tree.parent), end_probability(node_prob, tree)
  found = [_scaled(node_prob[:, : tree.level_offsets[1]], temperature)]
  for t in range(1, tree.depth):
    above, first, last = tree.level_offsets[t - 1 : t + 2]
    row = parent[first:last] - above
    mass = node_prob[:, above:first]
    powers = _power(node_prob[:, first:last] / jnp.maximum(mass[:, row], jnp.finfo(jnp.float32).tiny), temperature)
    stop = _power(end[:, above:first] / jnp.maximum(mass, jnp.finfo(jnp.float32).tiny), temperature)
    total = stop.at[:, row].add(powers)
    found.append(found[-1][:, row] * powers / jnp.maximum(total[:, row], jnp.finfo(jnp.float32).tiny))
  return jnp.concatenate(found, axis=1)


def _power(share: Float[Array, "b i"], temperature: Float[Array, ""]) -> Float[Array, "b i"]:
  return jnp.where(share > 0, jnp.exp(jnp.log(jnp.where(share > 0, share, 1.0)) / temperature), 0.0)
