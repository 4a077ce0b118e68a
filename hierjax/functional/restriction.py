"""Restriction: a distribution given that the path ends at one of some nodes."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hierjax.config import checked
from hierjax.functional.distributions import end_probability, level_blocks, split_levels, sums_below
from hierjax.functional.search import Carry
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Distribution, Scorer


@checked
def restricted(distribution: Distribution, allowed: Bool[Array, "n"] | None, tree: TreeArrays) -> Distribution:
  """Returns the distribution given that the path ends at an allowed node; None allows all and changes nothing.

  With A the allowed nodes, P'(node) = P(the path goes through the node and ends in A) / P(the path ends in A). In level
  distributions the entries without an allowed node at or below them become 0, and the others are scaled to sum to 1;
  these distributions then score the paths. A head without level distributions keeps its own scores, and outputs that
  lead to no allowed node become -inf.

  Args:
    distribution: not of a multi-label head.
    allowed: whether a path may end at each node.
    tree: the tree.
  """
  if allowed is None:
    return distribution
  ends = jnp.where(allowed[None], end_probability(distribution.node_prob, tree), 0.0)
  mass = sums_below(ends, tree)
  total = mass[:, : tree.level_offsets[1]].sum(axis=1, keepdims=True)
  reachable = sums_below(allowed[None].astype(jnp.float32), tree)[0] > 0
  level_prob = distribution.level_prob
  if level_prob is not None:
    blocks = [
      _scaled_to_1(jnp.where(reachable[nodes][None], block, 0.0))
      for block, nodes in zip(split_levels(level_prob, tree), level_blocks(tree), strict=True)
    ]
    level_prob = jnp.concatenate(blocks, axis=1)
  scorer = distribution.scorer if level_prob is None else None
  return dataclasses.replace(
    distribution,
    node_prob=mass / jnp.where(total > 0, total, 1.0),
    level_prob=level_prob,
    scorer=None if scorer is None else _masked(scorer, reachable, allowed, tree),
  )


def _scaled_to_1(block: Float[Array, "b i"]) -> Float[Array, "b i"]:
  total = block.sum(axis=1, keepdims=True)
  return block / jnp.where(total > 0, total, 1.0)


def _masked(scorer: Scorer, reachable: Bool[Array, "n"], allowed: Bool[Array, "n"], tree: TreeArrays) -> Scorer:
  def step(carry: Carry, previous: Array, candidates: Array | None) -> tuple[Carry, Array]:
    carry, log_prob = scorer.step(carry, previous, candidates)
    every = jnp.arange(tree.num_outputs, dtype=jnp.int32)[None, None]
    numbers = every if candidates is None else candidates
    may_end = allowed[jnp.maximum(previous, 0)][..., None]
    open_ = jnp.where(numbers >= tree.num_nodes, may_end, reachable[jnp.clip(numbers, 0, tree.num_nodes - 1)])
    return carry, jnp.where(open_, log_prob, -jnp.inf)

  return scorer._replace(step=step)
