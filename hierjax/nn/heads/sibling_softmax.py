"""The conditional softmax of Redmon and Farhadi 2017 (YOLO9000): a softmax over each set of siblings."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.config import checked
from hierjax.functional.distributions import by_siblings
from hierjax.functional.losses import conditional_cross_entropy
from hierjax.functional.paths import climb, ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes
from hierjax.nn.heads.defaults import HeadDefaults
from hierjax.tree.label_tree import STOP
from hierjax.types import DecodeOptions, Distribution, Features


@checked
class SiblingSoftmaxHead(HeadDefaults, nn.Module):
  """A linear classifier of the children of each node: P(node) = P(parent) x its part of a softmax over the siblings.

  Where paths may end at inner nodes (`short_labels = stop`), the end is one more sibling below each inner node. Its
  distribution follows the tree by construction: `restrict` and `normalise` change nothing.

  Attributes:
    num_nodes: nodes of the tree.
    num_ends: inner nodes, where paths may end there; 0 elsewhere.
    dtype: of the product; weights and probabilities are float32.
  """

  num_nodes: int
  num_ends: int
  dtype: Any = jnp.float32

  @classmethod
  def for_tree(cls, arrays: TreeArrays, dtype: Any = jnp.float32) -> SiblingSoftmaxHead:
    """Returns the head for a tree."""
    return cls(arrays.num_nodes, arrays.inner_offsets[-1] if arrays.stop_at == "node" else 0, dtype)

  @nn.compact
  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b o"]:
    """Returns the logits of the nodes, and then of the ends at inner nodes; `targets` are not read."""
    found = [nn.Dense(self.num_nodes, dtype=self.dtype, name="output")(features.pooled)]
    if self.num_ends:
      found.append(nn.Dense(self.num_ends, dtype=self.dtype, name="ends")(features.pooled))
    return jnp.concatenate(found, axis=1).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b o"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the loss of the label path; see `conditional_cross_entropy`."""
    return conditional_cross_entropy(outputs, single_path(paths), tree)

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    ends_at = dense_axes("ends", np.asarray(tree.inner).tolist()) if self.num_ends else {}
    return {**dense_axes("output", range(self.num_nodes)), **ends_at}

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the node probabilities, given the labels `known`."""
    log_prob, _ = by_siblings(self(features), tree)
    return Distribution(jnp.exp(log_prob) if known is None else _given(log_prob, known, tree), known=known)


def _given(log_prob: Float[Array, "b n"], known: Int[Array, "b l"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns 1 for the known nodes and their ancestors, and the shares of what is below them; 0 after STOP."""
  end, spans = ends(known), jnp.asarray(tree.leaf_spans)
  first, last = jnp.split(spans[end + 1], 2, axis=1)
  below = (first <= spans[None, 1:, 0]) & (spans[None, 1:, 1] <= last) & ~(known == STOP).any(axis=1, keepdims=True)
  mass = jnp.where(end >= 0, jnp.take_along_axis(log_prob, jnp.maximum(end, 0)[:, None], axis=1)[:, 0], 0.0)
  path = climb(end, tree)
  rows = jnp.arange(len(path))[:, None]
  shares = jnp.where(below, jnp.exp(log_prob - mass[:, None]), 0.0)
  return shares.at[rows, jnp.where(path >= 0, path, tree.num_nodes)].set(1.0, mode="drop")
