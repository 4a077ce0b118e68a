"""Temperature scaling: one number that sharpens or flattens a distribution over the tree."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.functional.distributions import end_probability, split_levels
from hierjax.functional.multilabel import smallest_above
from hierjax.functional.search import Carry
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Distribution, Scorer


def calibrated(distribution: Distribution, temperature: float, tree: TreeArrays) -> Distribution:
  """Returns the distribution at a temperature T; T = 1 changes nothing.

  With the shares s_i of the children of a node, and of the end of the path there, which sum to 1,

      s'_i = s_i^(1/T) / sum_j s_j^(1/T),

  and P'(child) = P'(parent) s'. Level distributions are scaled in the same way, each over its level; the sigmoids p of
  a multi-label head become p^(1/T) / (p^(1/T) + (1-p)^(1/T)). The head's own log-probabilities are divided by T, so the
  ranking of its paths stays.

  Args:
    distribution: of one head or a mean.
    temperature: above 0; below 1 sharpens, above 1 flattens.
    tree: the tree.
  """
  if temperature == 1:
    return distribution
  if distribution.node_score is not None:
    score = _two_sided(distribution.node_score, temperature)
    return dataclasses.replace(distribution, node_prob=smallest_above(score, tree), node_score=score)
  level_prob = distribution.level_prob
  if level_prob is not None:
    blocks = [_scaled(block, temperature) for block in split_levels(level_prob, tree)]
    level_prob = jnp.concatenate(blocks, axis=1)
  return dataclasses.replace(
    distribution,
    node_prob=_by_shares(distribution.node_prob, temperature, tree),
    level_prob=level_prob,
    scorer=None if distribution.scorer is None else _divided(distribution.scorer, temperature),
  )


def _scaled(block: Float[Array, "b i"], temperature: float) -> Float[Array, "b i"]:
  return jax.nn.softmax(jnp.log(block) / temperature, axis=1)


def _two_sided(score: Float[Array, "b n"], temperature: float) -> Float[Array, "b n"]:
  return jax.nn.sigmoid((jnp.log(score) - jnp.log1p(-score)) / temperature)


def _by_shares(node_prob: Float[Array, "b n"], temperature: float, tree: TreeArrays) -> Float[Array, "b n"]:
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


def _power(share: Float[Array, "b i"], temperature: float) -> Float[Array, "b i"]:
  return jnp.where(share > 0, jnp.exp(jnp.log(jnp.where(share > 0, share, 1.0)) / temperature), 0.0)


def _divided(scorer: Scorer, temperature: float) -> Scorer:
  def step(carry: Carry, previous: Array, candidates: Array | None) -> tuple[Carry, Array]:
    carry, log_prob = scorer.step(carry, previous, candidates)
    return carry, log_prob / temperature

  return scorer._replace(step=step)
