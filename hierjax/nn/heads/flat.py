"""The flat head: a softmax over the leaves; the tree only reads its answer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.config import checked, lookup_or_import
from hierjax.functional.distributions import by_leaves
from hierjax.functional.losses import LEAF_LOSSES
from hierjax.functional.paths import ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes
from hierjax.nn.heads.defaults import HeadDefaults, check_dropout
from hierjax.types import DecodeOptions, Distribution, Features


@checked
class FlatHead(HeadDefaults, nn.Module):
  """A linear classifier of the leaves.

  A label that ends above a leaf trains it by the summed probability of the leaves below. It always predicts a leaf, so
  `short_labels = stop` gains it nothing. Its distribution follows the tree by construction: `restrict` and `normalise`
  change nothing, and `Distribution.level_prob` is None: the head has one distribution, and not one for each level.

  Attributes:
    num_leaves: leaves of the tree.
    stop_at: where paths of the tree may end.
    criterion: the loss: one of `hierjax.functional.losses.LEAF_LOSSES`: `cross_entropy`, `hxe`, `soft_labels`,
      `label_smoothing` or `soft_max_margin`; or `package.module:function`.
    strength: the alpha of `hxe`, the beta of `soft_labels`, the epsilon of `label_smoothing`, the scale of
      `soft_max_margin`; None for 0.1, 10, 0.1 and 1.
    dropout: rate on the image's features.
    dtype: of the product; weights and probabilities are float32.
  """

  num_leaves: int
  stop_at: str = "leaf"
  criterion: str = "cross_entropy"
  strength: float | None = None
  dropout: float = 0.0
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for a strength that no loss has, and for a rate outside its range."""
    check_dropout(self.dropout)
    if self.strength is not None and (self.strength < 0 or self.criterion == "cross_entropy"):
      raise ValueError(f"strength = {self.strength}: must be 0 or more, of a criterion other than cross_entropy")
    if self.criterion == "label_smoothing" and (self.strength or 0) > 1:
      raise ValueError(f"strength = {self.strength}: with criterion = label_smoothing it must be from 0 to 1")
    super().__post_init__()

  @classmethod
  def for_tree(
    cls,
    arrays: TreeArrays,
    criterion: str = "cross_entropy",
    strength: float | None = None,
    dropout: float = 0.0,
    dtype: Any = jnp.float32,
  ) -> FlatHead:
    """Returns the head for a tree."""
    return cls(arrays.num_leaves, arrays.stop_at, criterion, strength, dropout, dtype)

  @nn.compact
  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b m"]:
    """Returns the logits of the leaves, in the order of `tree.leaves`; `targets` are not read."""
    pooled = nn.Dropout(self.dropout)(features.pooled, deterministic=not train)
    return nn.Dense(self.num_leaves, dtype=self.dtype, name="output")(pooled).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b m"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the criterion of the deepest known node; see `hierjax.functional.losses.LEAF_LOSSES`."""
    criterion = lookup_or_import(LEAF_LOSSES, self.criterion, "head.criterion")
    strength = () if self.strength is None else (self.strength,)
    return criterion(outputs, ends(single_path(paths)), tree, *strength)

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    return dense_axes("output", np.asarray(tree.leaves).tolist())

  @nn.nowrap
  def describe(self, features: Features) -> list[str]:
    """Returns a warning where labels may end above a leaf, since every answer of this head is a leaf."""
    if self.stop_at != "node":
      return []
    return [
      "config.tree.short_labels = stop: labels may end above a leaf, but config.head.name = flat always answers with a "
      "leaf, which is wrong there; flat_ends, path_rnn and dhnn_s2s can stop"
    ]

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the softmax over the leaves below the known labels; a node has their sum (Koo et al., Remark 1)."""
    logits = self(features)
    if known is not None:
      spans = jnp.asarray(tree.leaf_spans)
      first, end = jnp.split(spans[ends(known) + 1], 2, axis=1)
      number = spans[jnp.asarray(tree.leaves) + 1, 0][None]
      logits = jnp.where((first <= number) & (number < end), logits, -jnp.inf)
    return Distribution(by_leaves(jax.nn.softmax(logits, axis=-1), tree), known=known)
