"""The flat head of a general tree: a softmax over all nodes at which labels end (Koo et al. 2020, Table 2)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.config import checked
from hierjax.functional.distributions import sums_below
from hierjax.functional.losses import are_below, end_cross_entropy, end_log_softmax, path_ends
from hierjax.functional.paths import climb, ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes
from hierjax.nn.heads.defaults import HeadDefaults
from hierjax.tree.label_tree import STOP
from hierjax.types import DecodeOptions, Distribution, Features


@checked
class FlatEndsHead(HeadDefaults, nn.Module):
  """A linear classifier of the nodes where labels end, leaves and inner nodes: the plain CNNs of Table 2.

  A node has the sum over the ends at and below it, so a right end has right ancestors (Koo et al., Remark 1). Where
  paths end at leaves alone, it is `flat`. Its distribution follows the tree by construction: `restrict` and `normalise`
  change nothing.

  Attributes:
    num_leaves: leaves of the tree.
    num_inner: inner nodes, where paths may end there (`short_labels = stop`); 0 elsewhere. Those at which no label of
      training ends have probability 0.
    dtype: of the product; weights and probabilities are float32.
  """

  num_leaves: int
  num_inner: int
  dtype: Any = jnp.float32

  @classmethod
  def for_tree(cls, arrays: TreeArrays, dtype: Any = jnp.float32) -> FlatEndsHead:
    """Returns the head for a tree."""
    return cls(arrays.num_leaves, arrays.inner_offsets[-1] if arrays.stop_at == "node" else 0, dtype)

  @nn.compact
  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b e"]:
    """Returns the logits of the ends, in the order of `losses.path_ends`; `targets` are not read."""
    size = self.num_leaves + self.num_inner
    return nn.Dense(size, dtype=self.dtype, name="output")(features.pooled).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b e"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the loss of the label's end; see `end_cross_entropy`."""
    return end_cross_entropy(outputs, single_path(paths), tree)

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    return dense_axes("output", np.asarray(path_ends(tree)).tolist())

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the softmax over the ends that `known` allows; known nodes have probability 1."""
    logits, nodes = self(features), path_ends(tree)
    if known is not None:
      end = ends(known)
      exact = (known == STOP).any(axis=1, keepdims=True)
      allowed = jnp.where(exact, nodes[None] == end[:, None], are_below(nodes, end, tree))
      logits = jnp.where(allowed, logits, -jnp.inf)
    prob = jnp.exp(end_log_softmax(logits, tree))
    found = sums_below(jnp.zeros((len(prob), tree.num_nodes), jnp.float32).at[:, nodes].set(prob), tree)
    return Distribution(found if known is None else _with_known(found, known, tree), known=known)


def _with_known(node_prob: Float[Array, "b n"], known: Int[Array, "b l"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the probabilities with exactly 1 for the known nodes and those above them."""
  path = climb(ends(known), tree)
  rows = jnp.arange(len(path))[:, None]
  return node_prob.at[rows, jnp.where(path >= 0, path, tree.num_nodes)].set(1.0, mode="drop")
