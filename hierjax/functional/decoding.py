"""Decoding: from a distribution over the tree to paths. `RULES` is the table of decoding rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from hierjax.config import checked, lookup_or_import
from hierjax.errors import UserError
from hierjax.functional.costs import COSTS, Cost
from hierjax.functional.distributions import end_probability, level_argmax, split_levels
from hierjax.functional.multilabel import passing_paths
from hierjax.functional.paths import climb
from hierjax.functional.search import Carry, Paths, beam_search
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import ROOT, UNKNOWN
from hierjax.types import DecodeOptions, Distribution, Prediction, Scorer

Rule = Callable[[Distribution, TreeArrays, DecodeOptions], Paths]


@checked
def decode(distribution: Distribution, tree: TreeArrays, options: DecodeOptions) -> Prediction:
  """Returns the paths that `options.rule` decodes from a distribution, with its probabilities.

  Of a multi-label distribution the paths are those whose nodes pass the thresholds; see `passing_paths`.
  """
  if distribution.node_score is not None:
    return passing_paths(distribution, tree, options)
  best = lookup_or_import(RULES, options.rule, "decode.rule")(distribution, tree, options)
  raw, consistent = _raw_nodes(distribution, tree, best, options)
  return Prediction(
    paths=best.paths,
    log_prob=best.log_prob,
    stop_prob=best.stop_prob,
    node_prob=distribution.node_prob,
    raw_nodes=raw,
    level_prob=distribution.level_prob,
    raw_consistent=consistent,
  )


def beam_rule(distribution: Distribution, tree: TreeArrays, options: DecodeOptions) -> Paths:
  """Returns the `options.beam` best paths.

  The paths are searched with the head's own step, or with the level distributions; see `level_scorer`. Where there are
  node probabilities alone, the search is exact: the paths lead to the most probable ends, `log_prob` is that of the
  end.
  """
  scorer = _scorer(distribution, tree)
  if scorer is None:
    return most_probable_paths(distribution.node_prob, tree, options.beam)
  return _search(scorer, distribution, tree, options)


def level_rule(distribution: Distribution, tree: TreeArrays, options: DecodeOptions) -> Paths:
  """Returns the `options.beam` most probable paths cut off at the level `options.level`.

  They lead to nodes of this level, or to the ends of shorter paths above it; `log_prob` is the logarithm of their
  probability. Node probabilities decide alone: the best node of a level need not be an ancestor of the best leaf.

  Raises:
    UserError: the tree has no such level.
  """
  level = options.level or tree.depth
  if level > tree.depth:
    raise UserError(f"config.decode.level = {level}: the tree has {tree.depth} levels")
  first, end = tree.level_offsets[level - 1 : level + 1]
  ends = end_probability(distribution.node_prob, tree)[:, :first]
  best = jnp.concatenate([ends, distribution.node_prob[:, first:end]], axis=1)
  prob, nodes = _top(best, options.beam)
  return _paths_to(jnp.where(prob > 0, nodes, ROOT), jnp.log(prob), distribution.node_prob, tree)


def cost_rule(cost: Cost, distribution: Distribution, tree: TreeArrays, options: DecodeOptions) -> Paths:
  """Returns the paths to the `options.beam` nodes of the smallest expected cost; see `costs.COSTS`.

  Any node may be the end of the best path, and none where the root costs least. `log_prob` is the logarithm of the
  probability of the path's last node, -inf where there is no path.
  """
  expected = cost(distribution.node_prob, tree)
  _, answers = _top(-expected, options.beam)
  nodes = jnp.where(jnp.arange(options.beam)[None] < tree.num_nodes + 1, answers - 1, ROOT)
  prob = jnp.take_along_axis(distribution.node_prob, jnp.maximum(nodes, 0), axis=1)
  return _paths_to(nodes, jnp.where(nodes >= 0, jnp.log(prob), -jnp.inf), distribution.node_prob, tree)


RULES: dict[str, Rule] = {
  "beam": beam_rule,
  "level": level_rule,
  **{name: partial(cost_rule, cost) for name, cost in COSTS.items()},
}


def _scorer(distribution: Distribution, tree: TreeArrays) -> Scorer | None:
  if distribution.scorer is None and distribution.level_prob is not None:
    return level_scorer(jnp.log(distribution.level_prob), tree)
  return distribution.scorer


def _search(scorer: Scorer, distribution: Distribution, tree: TreeArrays, options: DecodeOptions) -> Paths:
  batch = distribution.node_prob.shape[0]
  known = distribution.known
  if not scorer.every_output:
    options = dataclasses.replace(options, restrict="tree", normalise="siblings")
  known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32) if known is None else known
  return beam_search(scorer.step, beams(scorer.carry, options.beam), known, tree, options)


def beams(carry: Carry, count: int) -> Carry:
  """Returns the state of each example, a pytree of `[b ...]`, for `count` beams: `[b k ...]`."""
  return jax.tree.map(lambda x: jnp.repeat(x[:, None], count, axis=1), carry)


def _raw_nodes(
  distribution: Distribution, tree: TreeArrays, best: Paths, options: DecodeOptions
) -> tuple[Int[Array, "b l"], bool]:
  """Returns `Prediction.raw_nodes` and whether they are always a path of the tree.

  They are the argmax of each level distribution; or of all outputs of the head at each step, fed to the next (READINGS
  G2, G3); or the greedy path of a head that scores children alone. Otherwise they are the most probable path: a
  distribution that follows the chain rule has no other argmax.
  """
  if distribution.level_prob is not None:
    return level_argmax(distribution.level_prob, tree), False
  if distribution.scorer is None:
    likely = best if options.rule == "beam" else most_probable_paths(distribution.node_prob, tree, 1)
    return likely.paths[:, 0], True
  every = distribution.scorer.every_output
  greedy = DecodeOptions(restrict="raw") if every else DecodeOptions(normalise="siblings")
  return _search(distribution.scorer, distribution, tree, greedy).paths[:, 0], not every


def most_probable_paths(node_prob: Float[Array, "b n"], tree: TreeArrays, count: int) -> Paths:
  """Returns the `count` most probable paths by the probabilities of all nodes, without a search."""
  prob, nodes = _top(end_probability(node_prob, tree), count)
  return _paths_to(jnp.where(prob > 0, nodes, ROOT), jnp.log(prob), node_prob, tree)


def _top(scores: Float[Array, "b a"], count: int) -> tuple[Float[Array, "b k"], Int[Array, "b k"]]:
  """Returns the `count` largest scores and their numbers, best first; 0 where there are fewer."""
  best, numbers = jax.lax.top_k(scores, min(count, scores.shape[1]))
  missing = ((0, 0), (0, count - best.shape[1]))
  return jnp.pad(best, missing), jnp.pad(numbers, missing)


def _paths_to(
  nodes: Int[Array, "b k"], log_prob: Float[Array, "b k"], node_prob: Float[Array, "b n"], tree: TreeArrays
) -> Paths:
  """Returns the paths down to some nodes, none for ROOT, with the share of each node that ends there."""
  numbers = jnp.maximum(nodes, 0)
  here = jnp.take_along_axis(node_prob, numbers, axis=1)
  ends = jnp.take_along_axis(end_probability(node_prob, tree), numbers, axis=1)
  stop = jnp.where((nodes >= 0) & (here > 0), ends / jnp.where(here > 0, here, 1.0), 1.0)
  return Paths(climb(nodes, tree), log_prob, stop)


def level_scorer(log_probs: Float[Array, "b e"], tree: TreeArrays) -> Scorer:
  """Returns a scorer that reads level distributions, given as logarithms.

  A node scores its level's log-probability. STOP, which follows a leaf that ends early, scores the sum of the
  log-probabilities of this leaf at the levels below it. As one of all outputs, STOP stands for the leaves above the
  level and scores as the best of them.
  """
  blocks, numbers = split_levels(log_probs, tree), np.diff(tree.level_offsets).tolist()
  nodes = jnp.concatenate([block[:, :number] for block, number in zip(blocks, numbers, strict=True)], axis=1)
  early = [block[:, number:] for block, number in zip(blocks, numbers, strict=True)]
  best_early = jnp.stack([leaves.max(axis=1, initial=-jnp.inf) for leaves in early], axis=1)
  stops = jnp.zeros_like(nodes)
  for leaves in early:
    stops = stops.at[:, jnp.asarray(tree.leaves)[: leaves.shape[1]]].add(leaves)

  def step(level: Array, previous: Array, candidates: Array | None) -> tuple[Array, Array]:
    rows = jnp.arange(nodes.shape[0])[:, None]
    if candidates is not None:
      stop = stops[rows, jnp.maximum(previous, 0)][..., None]
      node = nodes[rows[..., None], jnp.minimum(candidates, tree.num_nodes - 1)]
      return level + 1, jnp.where(candidates == tree.num_nodes, stop, node)
    here = _level_of_nodes(tree)[None, None] == level[..., None]
    outputs = [jnp.where(here, nodes[:, None], -jnp.inf)]
    if tree.has_stop:
      outputs.append(best_early[rows, level][..., None])
    return level + 1, jnp.concatenate(outputs, axis=-1)

  return Scorer(step, jnp.zeros(nodes.shape[0], jnp.int32))


def _level_of_nodes(tree: TreeArrays) -> NDArray[np.int32]:
  return np.repeat(np.arange(tree.depth, dtype=np.int32), np.diff(tree.level_offsets))
