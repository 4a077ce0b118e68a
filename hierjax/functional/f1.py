"""F1 of images with several label paths: a class a node, weighted by how often it occurs (READINGS K16)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from hierjax.functional.multilabel import deepest, end_nodes, label_nodes, passing
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import Batch, Leaf, Prediction

# READINGS K11; sigmoids of 1 in float32 are common, so 1 itself, which nothing passes, is left out.
GRID = tuple(np.round(np.arange(0, 1, 0.01), 2).tolist())


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


def path_f1(passes: Bool[Array, "*t b n"], batch: Batch, tree: TreeArrays) -> F1:
  """Returns the F1 whose classes are the nodes that paths end at."""
  counted = label_nodes(batch.paths, tree)[1] & (batch.mask > 0)[:, None]
  cut = (passes & jnp.broadcast_to(counted, passes.shape)).reshape(-1, tree.num_nodes)
  return F1.of(deepest(cut, tree).reshape(passes.shape), end_nodes(batch.paths, tree), counted)


def node_f1(passes: Bool[Array, "*t b n"], batch: Batch, tree: TreeArrays) -> F1:
  """Returns the F1 whose classes are all nodes of the paths."""
  present, counted = label_nodes(batch.paths, tree)
  return F1.of(passes, present, counted & (batch.mask > 0)[:, None])


def at_grid(scores: Float[Array, "b n"], tree: TreeArrays) -> Bool[Array, "t b n"]:
  """Returns what passes each threshold of GRID, as the one threshold of all nodes."""
  return jax.vmap(lambda threshold: passing(scores, threshold, tree))(jnp.array(GRID, jnp.float32)[:, None])


def several_metrics(
  prediction: Prediction, batch: Batch, tree: TreeArrays, thresholds: tuple[float, ...]
) -> dict[str, F1]:
  """Returns `path_f1` and `node_f1`; without thresholds, those of the best on GRID, by the F1 of paths and of nodes."""
  scores = prediction.node_score
  passes = passing(scores, jnp.array(thresholds, jnp.float32), tree) if thresholds else at_grid(scores, tree)
  return {"path_f1": path_f1(passes, batch, tree), "node_f1": node_f1(passes, batch, tree)}
