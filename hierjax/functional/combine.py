"""One prediction out of several: of the views of an image, or of the members of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierjax.functional.decoding import Paths
from hierjax.functional.distributions import by_levels, level_argmax, level_blocks
from hierjax.functional.multilabel import several_prediction
from hierjax.functional.paths import climb
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD
from hierjax.types import Prediction

# Less than this share of a node's probability is not the model's wish to stop there but the rounding of the sum over
# its children.
_ROUNDING = 1e-5


def average(predictions: Prediction, tree: TreeArrays, beam: int, thresholds: tuple[float, ...] = ()) -> Prediction:
  """Returns the prediction of the mean node probabilities; that of a single prediction is itself.

  The node probabilities say all that is needed, whatever the head: what the children of a node leave of its own is the
  probability that the path ends there. So nothing is searched: the paths lead to the `beam` most probable ends, and the
  log-probability of a path is that of its end, as with `normalise = siblings` (READINGS A4), whatever the predictions'
  own paths were scored by. For a flat head this is the mean of the softmaxes; where probabilities are lower bounds, it
  finds the best of the paths they were made of.

  `level_nodes` is the argmax of each level's mean distribution where all predictions have `level_prob`, and otherwise
  the best path: heads that follow the chain rule have no other distribution whose mean could be taken. Of such a mean
  nothing can be said about how often the raw argmaxes leave the tree.

  Of a head that predicts several paths an image, the mean is that of the nodes' scores, and `thresholds` are of that.

  Args:
    predictions: stacked: the leaves are `[v b ...]`; `level_prob` is None unless all have one.
    tree: the tree.
    beam: paths that are returned.
    thresholds: as in `several_prediction`.
  """
  if predictions.node_prob.shape[0] == 1:
    return jax.tree.map(lambda x: x[0], predictions)
  if predictions.node_score is not None:
    return several_prediction(predictions.node_score.mean(axis=0), None, tree, thresholds, beam)
  node_prob, level_prob = jax.tree.map(lambda x: x.mean(axis=0), (predictions.node_prob, predictions.level_prob))
  return read_off(node_prob, level_prob, predictions.summed_levels, tree, beam)


def ensemble(
  predictions: Sequence[Prediction], tree: TreeArrays, beam: int, chosen: Float[Array, "m"] | None = None
) -> Prediction:
  """Returns the prediction of the mean of the members' probabilities, whose heads may differ (READINGS D6).

  At each level it is the mean over the members that have a distribution of their own there, so that those which only
  sum up the level below do not count twice; where all do, the mean of theirs. What follows the chain rule has one at
  every level. Node probabilities follow the mean distributions by the chain rule. Members of the whole tree that all
  follow it themselves are averaged as views are; a single member is itself.

  Args:
    predictions: of the members, for the same images. A member may be of the top levels of the tree alone (of
      `LabelTree.truncated`), and then it counts there alone; one at least is of the whole tree.
    tree: the tree.
    beam: paths that are returned.
    chosen: 1 for the members that are averaged, and 0 for the others; may be traced. None for all.
  """
  if len(predictions) == 1:
    return predictions[0]
  chosen = jnp.ones(len(predictions), jnp.float32) if chosen is None else chosen
  whole = [member.node_prob for member in predictions if member.node_prob.shape[1] == tree.num_nodes]
  if all(member.level_prob is None for member in predictions) and len(whole) == len(predictions):
    return read_off(_mean(jnp.stack(whole), chosen), None, (), tree, beam)
  blocks, summed = [], []
  for t in range(tree.depth):
    reach = np.array([member.node_prob.shape[1] >= tree.level_offsets[t + 1] for member in predictions])
    members = [member for member, reaches in zip(predictions, reach, strict=True) if reaches]
    own = np.array([t not in member.summed_levels for member in members], np.float32)
    weights = chosen[np.flatnonzero(reach)]
    weights = jnp.where((weights * own).sum() > 0, weights * own, weights)
    blocks.append(_mean(jnp.stack([_level(member, t, tree) for member in members]), weights))
    summed += [t] * (not own.any())
  level_prob = jnp.concatenate(blocks, axis=1)
  return read_off(by_levels(level_prob, tree), level_prob, tuple(summed), tree, beam)


def _mean(values: Float[Array, "m b i"], weights: Float[Array, "m"]) -> Float[Array, "b i"]:
  return (values * (weights / weights.sum())[:, None, None]).sum(axis=0)


def _level(prediction: Prediction, t: int, tree: TreeArrays) -> Float[Array, "b _"]:
  """Returns what a prediction, of the whole tree or its top levels, says of level t."""
  if prediction.level_prob is None:
    node_prob: Array = prediction.node_prob
    return node_prob[:, level_blocks(tree)[t]]
  level_prob: Array = prediction.level_prob
  first = sum(tree.block_sizes[:t])
  return level_prob[:, first : first + tree.block_sizes[t]]


def read_off(
  node_prob: Float[Array, "b n"],
  level_prob: Float[Array, "b e"] | None,
  summed_levels: tuple[int, ...],
  tree: TreeArrays,
  beam: int,
) -> Prediction:
  """Returns the prediction of these probabilities: its `beam` most probable paths, and the best node of each level."""
  best = best_paths(node_prob, tree, beam)
  return Prediction(
    paths=best.paths,
    log_prob=best.log_prob,
    stop_prob=best.stop_prob,
    node_prob=node_prob,
    level_nodes=best.paths[:, 0] if level_prob is None else level_argmax(level_prob, tree),
    level_prob=level_prob,
    level_nodes_walk=level_prob is None,
    summed_levels=summed_levels,
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
