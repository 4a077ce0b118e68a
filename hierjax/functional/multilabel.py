"""Images with several label paths: a sigmoid for each node, and thresholds that say which nodes an image has.

Koo et al., section 4.2: a path is predicted where all its nodes pass; READINGS K7 and K11.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from hierjax.functional.paths import climb, complete, ends
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, UNKNOWN
from hierjax.types import Prediction


def label_nodes(paths: Int[Array, "b p l"], tree: TreeArrays) -> tuple[Bool[Array, "b n"], Bool[Array, "b n"]]:
  """Returns which nodes each image's label paths go through, and of which nodes that can be said.

  Nothing can be said of the nodes below a label whose rest is unknown, but for those on another path; nor of any node
  where an image has no label.
  """
  nodes = jnp.arange(tree.num_nodes, dtype=jnp.int32)
  present = (paths[..., None] == nodes[None, None, None]).any(axis=(1, 2))
  end = ends(paths)
  spans = jnp.asarray(tree.leaf_spans)
  (first, last), (own_first, own_last) = jnp.moveaxis(spans[end + 1], -1, 0)[..., None], spans[1:].T[:, None, None]
  below = (nodes[None, None] > end[..., None]) & (first <= own_first) & (own_last <= last)
  open_end = (paths == UNKNOWN).any(axis=-1)[..., None]
  unknown = (below & open_end).any(axis=1) | ~present.any(axis=1, keepdims=True)
  return present, present | ~unknown


def end_nodes(paths: Int[Array, "b p l"], tree: TreeArrays) -> Bool[Array, "b n"]:
  """Returns the nodes that each image's label paths end at."""
  nodes = jnp.arange(tree.num_nodes, dtype=jnp.int32)
  return (ends(paths)[..., None] == nodes[None, None]).any(axis=1)


def several_cross_entropy(
  logits: Float[Array, "b n"], paths: Int[Array, "b p l"], tree: TreeArrays, weights: tuple[float, ...] = ()
) -> Float[Array, "b"]:
  """Returns the sum over the nodes of -log P(present) or -log P(absent), by the node's sigmoid.

  What cannot be said (see `label_nodes`) does not count; an image without labels has loss 0.

  Args:
    logits: one a node.
    paths: the labels.
    tree: the tree.
    weights: w_t of the nodes of each level; () for 1.
  """
  present, counted = label_nodes(paths, tree)
  losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), present.astype(jnp.float32))
  if weights:
    losses = losses * _of_levels(np.asarray(weights, np.float32), tree)[None]
  return jnp.where(counted, losses, 0.0).sum(axis=-1)


def passing(scores: Float[Array, "b n"], thresholds: Float[Array, "t"], tree: TreeArrays) -> Bool[Array, "b n"]:
  """Returns which nodes pass, as do all above them; a score passes that is larger than its threshold.

  Args:
    scores: the sigmoid of each node.
    thresholds: one for all nodes, or one a level.
    tree: the tree.
  """
  levels = jnp.broadcast_to(thresholds, (tree.depth,))
  own = scores > _of_levels(levels, tree)[None]
  found, parent = [own[:, : tree.level_offsets[1]]], jnp.asarray(tree.parent)
  for t in range(1, tree.depth):
    above, first, end = tree.level_offsets[t - 1 : t + 2]
    found.append(own[:, first:end] & found[-1][:, parent[first:end] - above])
  return jnp.concatenate(found, axis=1)


def deepest(present: Bool[Array, "b n"], tree: TreeArrays) -> Bool[Array, "b n"]:
  """Returns those of the nodes none of whose children is among them: where the paths end."""
  top, parent = tree.level_offsets[1], jnp.asarray(tree.parent)
  has_child = jnp.zeros_like(present).at[:, parent[top:]].max(present[:, top:])
  return present & ~has_child


def smallest_above(scores: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the smallest score on the way down to each node, its own included: never larger than its parent's."""
  found, parent = [scores[:, : tree.level_offsets[1]]], jnp.asarray(tree.parent)
  for t in range(1, tree.depth):
    above, first, end = tree.level_offsets[t - 1 : t + 2]
    found.append(jnp.minimum(scores[:, first:end], found[-1][:, parent[first:end] - above]))
  return jnp.concatenate(found, axis=1)


def several_prediction(
  scores: Float[Array, "b n"], known: Int[Array, "b l"] | None, tree: TreeArrays, thresholds: tuple[float, ...], k: int
) -> Prediction:
  """Returns the paths all of whose nodes pass, and that go no deeper, as a `Prediction`.

  The score of a path is the logarithm of the smallest sigmoid of its nodes, which is also their `node_prob`; the `k`
  best are returned. `level_nodes` is the best node of each level that passes.

  Args:
    scores: the sigmoid of each node.
    known: labels of one path that are given, UNKNOWN elsewhere, or None; these and what is above them count as certain.
    tree: the tree.
    thresholds: see `passing`; () for 0.5.
    k: how many paths.
  """
  if known is not None:
    nodes = jnp.arange(tree.num_nodes, dtype=jnp.int32)
    given = (complete(known, tree)[..., None] == nodes[None, None]).any(axis=1)
    scores = jnp.where(given, 1.0, scores)
  node_prob = smallest_above(scores, tree)
  passes = passing(scores, jnp.array(thresholds or (0.5,), jnp.float32), tree)
  prob = jnp.where(deepest(passes, tree), node_prob, 0.0)
  paths_prob, nodes = _top(prob, k)
  children = (
    jnp.zeros_like(scores)
    .at[:, jnp.asarray(tree.parent)[tree.level_offsets[1] :]]
    .max(scores[:, tree.level_offsets[1] :])
  )
  level_nodes = []
  for first, end in zip(tree.level_offsets[:-1], tree.level_offsets[1:], strict=True):
    best = first + node_prob[:, first:end].argmax(axis=1).astype(jnp.int32)
    level_nodes.append(jnp.where(passes[:, first:end].any(axis=1), best, PAD))
  return Prediction(
    paths=jnp.where((paths_prob > 0)[..., None], climb(nodes, tree), PAD),
    log_prob=jnp.log(paths_prob),
    stop_prob=jnp.where(paths_prob > 0, 1 - jnp.take_along_axis(children, nodes, axis=1), 1.0),
    node_prob=node_prob,
    level_nodes=jnp.stack(level_nodes, axis=1),
    level_prob=None,
    node_score=scores,
  )


def _top(prob: Float[Array, "b n"], k: int) -> tuple[Float[Array, "b k"], Int[Array, "b k"]]:
  best, nodes = jax.lax.top_k(prob, min(k, prob.shape[1]))
  missing = ((0, 0), (0, k - best.shape[1]))
  return jnp.pad(best, missing), jnp.pad(nodes, missing)


def _of_levels(values: Array | np.ndarray, tree: TreeArrays) -> Float[Array, "n"]:
  """Returns each node's level's value."""
  sizes = np.diff(tree.level_offsets)
  return jnp.repeat(jnp.asarray(values, jnp.float32), sizes, total_repeat_length=tree.num_nodes)
