"""Heads of images with several label paths: a sigmoid a node, on a network's last features or behind another head."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.errors import UserError
from hierjax.functional.multilabel import several_cross_entropy, several_prediction
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.types import DecodeOptions, Features, Prediction


class MultiLabelHead(nn.Module):
  """A sigmoid for each node of the tree: the plain CNNs of Koo et al., Table 3.

  Attributes:
    num_nodes: nodes of the tree.
    level_offsets: of the tree.
    level_weights: of the nodes' losses, by level; () for 1.
    dtype: of the product; weights and probabilities are float32.
  """

  num_nodes: int
  level_offsets: tuple[int, ...]
  level_weights: tuple[float, ...] = ()
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for level weights that are not one a level."""
    check_weights(self.level_weights, len(self.level_offsets) - 1)
    super().__post_init__()

  @classmethod
  def for_tree(cls, arrays: TreeArrays, **fields: Any) -> MultiLabelHead:
    """Returns the head for a tree; `fields` are the attributes that have a default."""
    return cls(arrays.num_nodes, arrays.level_offsets, **fields)

  @property
  def predicts_several(self) -> bool:
    """Whether predictions have `node_score`."""
    return True

  @nn.compact
  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b n"]:
    """Returns the logit of each node; `targets` are not read."""
    return nn.Dense(self.num_nodes, dtype=self.dtype, name="output")(features.pooled).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b n"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the sum of the nodes' losses; see `several_cross_entropy`."""
    return several_loss(outputs, paths, tree, self.level_weights)

  @nn.nowrap
  def check(self, options: DecodeOptions) -> None:
    """Raises UserError for options that this head cannot decode with."""
    check_several(options, len(self.level_offsets) - 1)

  def decode(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Prediction:
    """Returns the paths whose nodes pass the thresholds; see `several_prediction`."""
    return several_decoded(self(features), known, tree, options)


def several_loss(
  logits: Float[Array, "b n"], paths: Int[Array, "b *p l"], tree: TreeArrays, weights: tuple[float, ...]
) -> Float[Array, "b"]:
  """Returns `several_cross_entropy`, of one path an image too."""
  return several_cross_entropy(logits, paths.reshape(len(paths), -1, paths.shape[-1]), tree, weights)


def several_decoded(
  logits: Float[Array, "b n"], known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
) -> Prediction:
  """Returns `several_prediction` of logits."""
  return several_prediction(jax.nn.sigmoid(logits), known, tree, options.thresholds, options.beam)


def check_weights(weights: tuple[float, ...], depth: int) -> None:
  """Raises ValueError for weights that are not one a level."""
  if weights and (len(weights) != depth or min(weights) < 0):
    raise ValueError(f"level_weights = {weights}: give {depth} of them, one a level, 0 or more")


def check_several(options: DecodeOptions, depth: int) -> None:
  """Raises UserError for options with which several paths an image cannot be predicted."""
  if len(options.thresholds) not in (0, 1, depth):
    raise UserError(
      f"config.decode.thresholds = {options.thresholds}: give one, or {depth}, one a level; () has them chosen"
    )
