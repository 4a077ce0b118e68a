"""The flat head: a softmax over the leaves; the tree only reads its answer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.functional.losses import subtree_cross_entropy
from hierjax.functional.node_probability import by_leaves
from hierjax.functional.paths import climb, ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD
from hierjax.types import DecodeOptions, Features, Prediction


class FlatHead(nn.Module):
  """A linear classifier of the leaves.

  A label that ends above a leaf trains it by the summed probability of the leaves below. It always predicts a leaf, so
  `short_labels = stop` gains it nothing. Its distribution follows the tree by construction: `restrict` and `normalise`
  change nothing, and `Prediction.level_prob` is None, for it has one distribution and not one a level.

  Attributes:
    num_leaves: leaves of the tree.
    stop_at: where paths of the tree may end.
    dtype: of the product; weights and probabilities are float32.
  """

  num_leaves: int
  stop_at: str = "leaf"
  dtype: Any = jnp.float32

  @classmethod
  def for_tree(cls, arrays: TreeArrays, dtype: Any = jnp.float32) -> FlatHead:
    """Returns the head for a tree."""
    return cls(arrays.num_leaves, arrays.stop_at, dtype)

  @nn.compact
  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b m"]:
    """Returns the logits of the leaves, in the order of `tree.leaves`; `targets` are not read."""
    return nn.Dense(self.num_leaves, dtype=self.dtype, name="output")(features.pooled).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b m"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns -log P(deepest known node); see `subtree_cross_entropy`."""
    return subtree_cross_entropy(outputs, ends(single_path(paths)), tree)

  @nn.nowrap
  def check(self, options: DecodeOptions) -> None:
    """Takes any options."""

  @nn.nowrap
  def remarks(self, features: Features) -> list[str]:
    """Returns a line where labels may end above a leaf, which no answer of this head does."""
    if self.stop_at != "node":
      return []
    return [
      "config.tree.short_labels = stop: labels may end above a leaf, but config.head.name = flat always answers with a "
      "leaf, which is wrong there; path_rnn and dhnn_s2s can stop"
    ]

  def decode(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Prediction:
    """Returns the most probable leaves below what is known, with their ancestors (Koo et al., Remark 1)."""
    logits = self(features)
    if known is not None:
      spans = jnp.asarray(tree.leaf_spans)
      first, end = jnp.split(spans[ends(known) + 1], 2, axis=1)
      number = spans[jnp.asarray(tree.leaves) + 1, 0][None]
      logits = jnp.where((first <= number) & (number < end), logits, -jnp.inf)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    log_prob, best = jax.lax.top_k(log_probs, min(options.beam, self.num_leaves))
    missing = ((0, 0), (0, options.beam - log_prob.shape[1]))
    log_prob = jnp.pad(log_prob, missing, constant_values=-jnp.inf)
    paths = climb(jnp.pad(jnp.asarray(tree.leaves)[best], missing), tree)
    paths = jnp.where((log_prob > -jnp.inf)[..., None], paths, PAD)
    return Prediction(
      paths=paths,
      log_prob=log_prob,
      stop_prob=jnp.ones_like(log_prob),
      node_prob=by_leaves(jnp.exp(log_probs), tree),
      level_nodes=paths[:, 0],
      level_prob=None,
      level_nodes_walk=True,
    )
