"""The multi-label head: a sigmoid for each node, on a network's last features."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.functional.multilabel import multilabel_cross_entropy, multilabel_distribution
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes
from hierjax.nn.heads.defaults import HeadDefaults
from hierjax.types import DecodeOptions, Distribution, Features


@checked
class MultiLabelHead(HeadDefaults, nn.Module):
  """A sigmoid for each node of the tree: the plain CNNs of Koo et al., Table 3.

  Attributes:
    num_nodes: nodes of the tree.
    level_offsets: of the tree.
    level_weights: of the nodes' losses, by level; () for 1.
    dtype: of the product; weights and probabilities are float32.
  """

  multilabel: ClassVar[bool] = True
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

  @nn.compact
  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b n"]:
    """Returns the logit of each node; `targets` are not read."""
    return nn.Dense(self.num_nodes, dtype=self.dtype, name="output")(features.pooled).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b n"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the sum of the nodes' losses; see `multilabel_cross_entropy`."""
    return multilabel_loss(outputs, paths, tree, self.level_weights)

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    return dense_axes("output", range(tree.num_nodes))

  @nn.nowrap
  def validate(self, options: DecodeOptions) -> None:
    """Raises UserError for a number of thresholds that the tree does not have."""
    check_thresholds(options, len(self.level_offsets) - 1)

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the sigmoid of each node; see `multilabel_distribution`."""
    return multilabel_distribution(jax.nn.sigmoid(self(features)), known, tree)


def multilabel_loss(
  logits: Float[Array, "b n"], paths: Int[Array, "b *p l"], tree: TreeArrays, weights: tuple[float, ...]
) -> Float[Array, "b"]:
  """Returns `multilabel_cross_entropy` for one label path an image or several."""
  return multilabel_cross_entropy(logits, paths.reshape(len(paths), -1, paths.shape[-1]), tree, weights)


def check_weights(weights: tuple[float, ...], depth: int) -> None:
  """Raises ValueError for weights that are not one a level."""
  if weights and (len(weights) != depth or min(weights) < 0):
    raise ValueError(f"level_weights = {weights}: give {depth} of them, one a level, 0 or more")


def check_thresholds(options: DecodeOptions, depth: int) -> None:
  """Raises UserError for a number of thresholds that is neither 0, 1 nor one a level."""
  if len(options.thresholds) not in (0, 1, depth):
    raise UserError(
      f"config.decode.thresholds = {options.thresholds}: give one, or {depth}, one a level; () has them chosen"
    )
