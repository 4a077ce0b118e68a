"""The most probable nodes of each level: a row an image, so that no array of images x nodes is kept."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from hierjax.evaluation.answers import Rows
from hierjax.evaluation.metrics.scored import most_probable
from hierjax.functional.combine import mean_of_members
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.members import Answered, Ensemble
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Leaf

KEPT = 20  # nodes a level; a node below them has a probability of less than 1/20
_AT_ONCE = 2**22  # probabilities that are looked at together


@struct.dataclass
class LikelyNodes:
  """The most probable nodes of each level for n images, best first; k of them, or all of a level and then -1.

  Attributes:
    nodes: `i32[n l k]`.
    probability: `f32[n l k]`; 0 where there is no node.
  """

  nodes: Leaf
  probability: Leaf


def likely_nodes(node_prob: Float[np.ndarray, "n nodes"], tree: LabelTree, kept: int = KEPT) -> LikelyNodes:
  """Returns the most probable nodes of each level, equal ones in the order of the tree; numpy."""
  rows = max(1, _AT_ONCE // tree.num_nodes)
  parts = [_likely(node_prob[i : i + rows], tree, kept) for i in range(0, max(len(node_prob), 1), rows)]
  found: LikelyNodes = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
  return found


def _likely(node_prob: Float[np.ndarray, "n nodes"], tree: LabelTree, kept: int) -> LikelyNodes:
  shape = (len(node_prob), tree.depth, kept)
  found = LikelyNodes(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
  for level, (first, end) in enumerate(itertools.pairwise(tree.level_offsets)):
    block = node_prob[:, first:end]
    best = most_probable(block, kept)
    found.nodes[:, level, : best.shape[1]] = best + first
    found.probability[:, level, : best.shape[1]] = np.take_along_axis(block, best, axis=1)
  return found


def likely_taker(ensemble: Ensemble) -> Rows:
  """Returns a taker of `fold` whose values are the most probable nodes of the ensemble's mean distribution."""
  return Rows(functools.partial(_of_batch, ensemble.whole.run.method.tree))


@jax.jit
def _of_batch(tree: TreeArrays, answered: Answered) -> LikelyNodes:
  node_prob: Array = mean_of_members(answered.distributions, tree).node_prob
  nodes, probability = [], []
  for first, end in itertools.pairwise(tree.level_offsets):
    best, which = jax.lax.top_k(node_prob[:, first:end], min(KEPT, end - first))
    missing = [(0, 0), (0, KEPT - best.shape[1])]
    nodes.append(jnp.pad(which.astype(jnp.int32) + jnp.int32(first), missing, constant_values=-1))
    probability.append(jnp.pad(best, missing))
  return LikelyNodes(jnp.stack(nodes, axis=1), jnp.stack(probability, axis=1))
