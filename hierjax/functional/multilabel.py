"""Multi-label images: a sigmoid for each node, and thresholds for the nodes that an image has.

Koo et al., section 4.2: a path is selected where all its nodes pass; READINGS K7 and K11.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hierjax.functional.paths import climb, complete, ends
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, UNKNOWN
from hierjax.types import Batch, DecodeOptions, Distribution, Leaf, Prediction

# READINGS K11; sigmoids of 1 in float32 are common, so 1 itself, which nothing passes, is left out.
GRID = tuple(np.round(np.arange(0, 1, 0.01), 2).tolist())


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
  """Returns the nodes that each image's label paths end at, but for those that another of its paths goes on from."""
  return deepest(label_nodes(paths, tree)[0], tree)


def multilabel_cross_entropy(
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
  losses = _sigmoid_cross_entropy(logits, present)
  if weights:
    losses = losses * _of_levels(np.asarray(weights, np.float32), tree)[None]
  return jnp.where(counted, losses, 0.0).sum(axis=-1)


def step_cross_entropy(
  logits: Float[Array, "b l o"], paths: Int[Array, "b p l"], tree: TreeArrays, weights: tuple[float, ...] = ()
) -> Float[Array, "b"]:
  """Returns the sum over steps and outputs of -log P(present) or -log P(absent), by each step's sigmoids (READINGS K7).

  At step t the labels' nodes of level t are present, and all other nodes absent, those of other levels too. STOP is
  present where no label has a node on the level. What cannot be said (see `label_nodes`) does not count, nor does STOP
  where a label's rest is unknown and no other has a node there; an image without labels has loss 0.

  Args:
    logits: one an output at each step: of the nodes, and then of STOP, where there is one more.
    paths: the labels.
    tree: the tree.
    weights: w_t of the steps; () for 1.
  """
  present, counted = label_nodes(paths, tree)
  own = jnp.asarray(np.repeat(np.eye(tree.depth, dtype=bool), np.diff(tree.level_offsets), axis=1))[None]
  target = present[:, None] & own
  labelled = present.any(axis=-1)[:, None, None]
  known = labelled & (counted[:, None] | ~own)
  if logits.shape[-1] > tree.num_nodes:
    reached = target.any(axis=-1, keepdims=True)
    unknown = (paths == UNKNOWN).any(axis=1)[..., None]
    target = jnp.concatenate([target, ~reached], axis=-1)
    known = jnp.concatenate([known, labelled & (reached | ~unknown)], axis=-1)
  losses = _sigmoid_cross_entropy(logits, target)
  steps = jnp.where(known, losses, 0.0).sum(axis=-1)
  return (steps * jnp.array(weights, jnp.float32)[None] if weights else steps).sum(axis=-1)


def _sigmoid_cross_entropy(logits: Float[Array, "..."], target: Bool[Array, "..."]) -> Float[Array, "..."]:
  import optax  # takes a fifteenth of a second, which other heads need not wait for

  return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target.astype(jnp.float32))


def above_threshold(scores: Float[Array, "b n"], thresholds: Float[Array, "t"], tree: TreeArrays) -> Bool[Array, "b n"]:
  """Returns which nodes' scores are larger than their threshold, whatever those above them are.

  Args:
    scores: the sigmoid of each node.
    thresholds: one for all nodes, or one a level.
    tree: the tree.
  """
  return scores > _of_levels(jnp.broadcast_to(thresholds, (tree.depth,)), tree)[None]


def passing(scores: Float[Array, "b n"], thresholds: Float[Array, "t"], tree: TreeArrays) -> Bool[Array, "b n"]:
  """Returns which nodes are above their threshold, as are all above them; the arguments are `above_threshold`'s."""
  own = above_threshold(scores, thresholds, tree)
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


def multilabel_distribution(
  scores: Float[Array, "b n"], known: Int[Array, "b l"] | None, tree: TreeArrays
) -> Distribution:
  """Returns the distribution of a multi-label head from the sigmoid of each node.

  The probability of a node is the smallest sigmoid from the top level down to it.

  Args:
    scores: the sigmoid of each node.
    known: labels of one path that are given, UNKNOWN elsewhere, or None. Given nodes and their ancestors have score 1.
    tree: the tree.
  """
  if known is not None:
    nodes = jnp.arange(tree.num_nodes, dtype=jnp.int32)
    given = (complete(known, tree)[..., None] == nodes[None, None]).any(axis=1)
    scores = jnp.where(given, 1.0, scores)
  return Distribution(smallest_above(scores, tree), node_score=scores, known=known)


def passing_paths(distribution: Distribution, tree: TreeArrays, options: DecodeOptions) -> Prediction:
  """Returns the paths all of whose nodes pass `options.thresholds` (0.5 for ()), each to its deepest such node.

  The score of a path is the logarithm of the probability of its end, the smallest sigmoid of its nodes; the
  `options.beam` best are returned. `raw_nodes` are the best node of each level among those that pass.
  """
  scores, node_prob = distribution.node_score, distribution.node_prob
  passes = passing(scores, jnp.array(options.thresholds or (0.5,), jnp.float32), tree)
  paths_prob, nodes = _top(jnp.where(deepest(passes, tree), node_prob, 0.0), options.beam)
  top, parent = tree.level_offsets[1], jnp.asarray(tree.parent)
  children = jnp.zeros_like(scores).at[:, parent[top:]].max(scores[:, top:])
  raw = []
  for first, end in itertools.pairwise(tree.level_offsets):
    best = first + node_prob[:, first:end].argmax(axis=1).astype(jnp.int32)
    raw.append(jnp.where(passes[:, first:end].any(axis=1), best, PAD))
  return Prediction(
    paths=jnp.where((paths_prob > 0)[..., None], climb(nodes, tree), PAD),
    log_prob=jnp.log(paths_prob),
    stop_prob=jnp.where(paths_prob > 0, 1 - jnp.take_along_axis(children, nodes, axis=1), 1.0),
    node_prob=node_prob,
    raw_nodes=jnp.stack(raw, axis=1),
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


@struct.dataclass
class F1:
  """Counts of right and wrong classes, which add up over batches and devices.

  Attributes:
    right: `f32[... c]`, true positives of each class.
    wrong: `f32[... c]`, false positives.
    missed: `f32[... c]`, false negatives.
  """

  right: Leaf
  wrong: Leaf
  missed: Leaf

  @classmethod
  def of(cls, predicted: Bool[Array, "*t b c"], true: Bool[Array, "b c"], counted: Bool[Array, "b c"]) -> F1:
    """Returns the counts over the examples; what is not `counted` is neither right nor wrong."""
    true, counted = (jnp.broadcast_to(x, predicted.shape) for x in (true & counted, counted))
    predicted &= counted
    sums = [x.astype(jnp.float32).sum(axis=-2) for x in (predicted & true, predicted & ~true, ~predicted & true)]
    return cls(*sums)

  def __add__(self, other: F1) -> F1:
    return F1(self.right + other.right, self.wrong + other.wrong, self.missed + other.missed)

  def means(self) -> np.ndarray:
    """Returns the mean of the classes' 2 TP / (2 TP + FP + FN), weighted by TP + FN; nan where no class occurs."""
    right, wrong, missed = (np.asarray(x, np.float64) for x in (self.right, self.wrong, self.missed))
    support = right + missed
    each = 2 * right / np.maximum(2 * right + wrong + missed, 1)
    with np.errstate(invalid="ignore"):
      return np.asarray((each * support).sum(axis=-1) / support.sum(axis=-1))

  def value(self) -> float:
    """Returns the F1, or with several thresholds, the largest."""
    return float(np.max(self.means()))


def multilabel_metrics(
  prediction: Prediction, batch: Batch, tree: TreeArrays, thresholds: tuple[float, ...]
) -> dict[str, F1]:
  """Returns three F1 of the batch; without thresholds, each is of the best on GRID, by that F1.

  - `path_f1`: each node stands for the path down to it. A path is predicted where all its nodes pass, and is a label
    where a label path goes through its end, inner nodes included (READINGS K11).
  - `node_f1`: a node is predicted where its own sigmoid passes, whatever those above it are.
  - `end_f1`: only the paths that go no deeper count, as they are shown: those of the predictions and of the labels.
  """
  present, known = label_nodes(batch.paths, tree)
  counted = known & (batch.mask > 0)[:, None]

  def at(levels: Float[Array, "t"]) -> dict[str, F1]:
    passes = passing(prediction.node_score, levels, tree)
    return {
      "path_f1": F1.of(passes, present, counted),
      "node_f1": F1.of(above_threshold(prediction.node_score, levels, tree), present, counted),
      "end_f1": F1.of(deepest(passes & counted, tree), deepest(present, tree), counted),
    }

  if thresholds:
    return at(jnp.array(thresholds, jnp.float32))
  return jax.vmap(at)(jnp.array(GRID, jnp.float32)[:, None])
