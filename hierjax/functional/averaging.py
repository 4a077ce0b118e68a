"""One prediction out of several: of the views of an image, or of the members of an ensemble."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hierjax.functional.decoding import Paths
from hierjax.functional.label_paths import climb
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD
from hierjax.types import Prediction

# Less than this share of a node's probability is not the model's wish to stop there but the rounding of the sum over
# its children.
_ROUNDING = 1e-5


def average(predictions: Prediction, tree: TreeArrays, beam: int) -> Prediction:
  """Returns the prediction of the mean node probabilities; that of a single prediction is itself.

  The node probabilities say all that is needed, whatever the head: what the children of a node leave of its own is the
  probability that the path ends there. So nothing is searched: the paths lead to the `beam` most probable ends, and the
  log-probability of a path is that of its end, as with `normalise = siblings` (READINGS A4), whatever the predictions'
  own paths were scored by. For a flat head this is the mean of the softmaxes; where probabilities are lower bounds, it
  finds the best of the paths they were made of.

  `level_nodes` is the argmax of each level's mean distribution where all predictions have `level_prob`, and otherwise
  the best path: heads that follow the chain rule have no other distribution whose mean could be taken. Of such a mean
  nothing can be said about how often the raw argmaxes leave the tree.

  Args:
    predictions: stacked: the leaves are `[v b ...]`; `level_prob` is None unless all have one.
    tree: the tree.
    beam: paths that are returned.
  """
  if predictions.node_prob.shape[0] == 1:
    return jax.tree.map(lambda x: x[0], predictions)
  node_prob, level_prob = jax.tree.map(lambda x: x.mean(axis=0), (predictions.node_prob, predictions.level_prob))
  best = best_paths(node_prob, tree, beam)
  return Prediction(
    paths=best.paths,
    log_prob=best.log_prob,
    stop_prob=best.stop_prob,
    node_prob=node_prob,
    level_nodes=best.paths[:, 0] if level_prob is None else _level_argmax(level_prob, tree),
    level_prob=level_prob,
    level_nodes_walk=level_prob is None,
  )


def best_paths(node_prob: Float[Array, "b n"], tree: TreeArrays, beam: int) -> Paths:
  """Returns the `beam` paths that are most probable by the probabilities of all nodes, without a search."""
  ends = end_probability(node_prob, tree)
  prob, nodes = jax.lax.top_k(ends, min(beam, tree.num_nodes))
  missing = ((0, 0), (0, beam - prob.shape[1]))
  prob, nodes = jnp.pad(prob, missing), jnp.pad(nodes, missing)
  here = jnp.take_along_axis(node_prob, nodes, axis=1)
  return Paths(
    paths=jnp.where((prob > 0)[..., None], climb(nodes, tree), PAD),
    log_prob=jnp.log(prob),
    stop_prob=jnp.where(prob > 0, prob / here, 1.0),
  )


def end_probability(node_prob: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the probability that the path ends at each node: what its children leave of its own.

  Above a leaf that is 0 where paths may not end there, and where it is no more than rounding.
  """
  parent, leaves = jnp.asarray(tree.parent), jnp.asarray(tree.leaves)
  if tree.stop_at != "node":
    return jnp.zeros_like(node_prob).at[:, leaves].set(node_prob[:, leaves])
  top = tree.level_offsets[1]
  left = node_prob.at[:, parent[top:]].add(-node_prob[:, top:])
  return jnp.where(left > _ROUNDING * node_prob, left, 0.0)


def _level_argmax(level_prob: Float[Array, "b n"], tree: TreeArrays) -> Int[Array, "b l"]:
  """Returns the best node of each level; PAD where more of the level's mass is missing than that node has."""
  nodes = []
  for first, end in zip(tree.level_offsets[:-1], tree.level_offsets[1:], strict=True):
    block = level_prob[:, first:end]
    best = block.max(axis=1)
    nodes.append(jnp.where(1 - block.sum(axis=1) > best, PAD, first + block.argmax(axis=1).astype(jnp.int32)))
  return jnp.stack(nodes, axis=1)
