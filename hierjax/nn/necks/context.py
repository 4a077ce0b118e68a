"""The C-HRNN neck (Zuo et al.): a pyramid of maps, spatial recurrences at each scale, and links between the scales."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.layers.pyramid import adaptive_max_pool, resample
from hierjax.nn.layers.recurrence.spatial import DIRECTIONS, Neighbours, SpatialRNN, check_directions
from hierjax.types import Features

Scale = int | tuple[int, int]
Map = Float[Array, "b _ _ c"]  # each scale has its own height and width


class ContextPyramid(nn.Module):
  """A map pooled to several scales, with the context of each cell in it (eqs. 10-24).

  A scale of one cell has no recurrence; its map is the result (READINGS Z1). Each finer scale l runs a `SpatialRNN`
  over its cells, whose drive comes from all coarser scales, each h_j summed over the directions (READINGS Z9):

      s_l(r,q) = sum_(j < l) W_jl h_j(r_j, q_j)                                                          (21)

  With `neighbours = input`, the links too read the finer scale's own pooled map, so that no cell depends on another;
  with `relu`, each has a ReLU as well (Z14).

  Attributes: as of `ContextNeck`.
  """

  cell: Literal["none", "srn", "lstm"] = "lstm"
  scales: tuple[Scale, ...] = (1, 2, 3, 6)
  directions: tuple[str, ...] = DIRECTIONS
  links: bool = True
  neighbours: Neighbours = "states"
  resample: Literal["overlap", "floor"] = "overlap"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Returns the pooled map of each scale, and the map with its context: float32, the same map for cell `none`."""
    pooled = tuple(adaptive_max_pool(x, *grid(scale)) for scale in self.scales)
    contexts: list[Map] = []
    for i, below in enumerate(pooled):
      if self.cell == "none" or grid(self.scales[i]) == (1, 1):
        contexts.append(below.astype(jnp.float32))
        continue
      drive: Any = None
      if self.links and i > 0:
        drive = sum(self._link(j, i, contexts[j], below) for j in range(i))
      layer = SpatialRNN(None, self.cell, self.directions, self.neighbours, self.dtype, name=f"scale_{i}")
      contexts.append(layer(below, drive))
    return pooled, tuple(contexts)

  def _link(self, j: int, i: int, coarse: Map, fine: Map) -> Map:
    # The product comes first: the coarser map has fewer cells. Links start at zero, as a C-MRNN has none: coarse
    # maps have large values, similar in all images, which would dominate the cells at first.
    # A ReLU of zero has no gradient.
    start = nn.initializers.lecun_normal() if self.neighbours == "relu" else nn.initializers.zeros_init()
    link = nn.Dense(fine.shape[-1], use_bias=False, kernel_init=start, dtype=self.dtype, name=f"link_{j}_{i}")
    if self.neighbours != "states":
      own = link(fine).astype(jnp.float32)
      return nn.relu(own) if self.neighbours == "relu" else own
    return resample(link(coarse).astype(jnp.float32), fine.shape[1], fine.shape[2], self.resample)


@checked
class ContextNeck(nn.Module):
  """The layers of Zuo et al. after the convolutions: `ContextPyramid`, flattened, then fc7 and fc8 of Table I:

      y_1 = relu(W_7 H + b_7),   y_2 = relu(W_8 y_1 + b_8),   H the concatenated maps of all scales         (25)

  Before them, a 1 x 1 convolution with ReLU may make fewer channels of the map: the state of a recurrence has as many
  numbers as its map has channels, and the last maps of networks since the paper's have 1,000 to 2,000.

  The pooled vector is the output of fc8, so that any head can follow (READINGS Z13). With other fields the same class
  is the paper's comparisons: C-MSRN and C-MLSTM (`links = False`), the modified CNN of section IV-C2
  (`neighbours = input`), SPP-net (`cell = none`), and AlexNet's top (`cell = none, scales = (6,)`).

  Attributes:
    cell: of the recurrences: `srn`, `lstm`, or `none` for plain spatial pyramid pooling.
    channels: of the map that the pyramid reads, made by a 1 x 1 convolution with ReLU; 0: the network's last map.
    scales: the grids, coarse to fine: n for n x n cells, or (rows, columns).
    directions: the corners that the recurrences start from.
    links: whether coarser scales drive the finer ones.
    neighbours: `states` for cells that depend on others, of their scale and of coarser ones. With `input`, every
      matrix, those of the links too, multiplies the cell's own pooled input; `relu` follows each by a ReLU, so that no
      two matrices add up to one: the fair comparison at this number of weights. See `SpatialRNN`.
    resample: from a coarse grid to a fine one: `overlap` or `floor`; see `hierjax.nn.layers.pyramid.resample`.
    hidden: widths of the dense layers, each with ReLU and dropout.
    dropout: rate on the context maps, where there is a recurrence, and on each dense layer.
    dtype: of the products; the weights and the result are float32.
  """

  cell: Literal["none", "srn", "lstm"] = "lstm"
  channels: int = 0
  scales: tuple[Scale, ...] = (1, 2, 3, 6)
  directions: tuple[str, ...] = DIRECTIONS
  links: bool = True
  neighbours: Neighbours = "states"
  resample: Literal["overlap", "floor"] = "overlap"
  hidden: tuple[int, ...] = (4096, 4096)
  dropout: float = 0.5
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    check_directions(self.directions)
    if any(min(grid(scale)) < 1 for scale in self.scales):
      raise UserError(f"scales = {self.scales}: each a number n of 1 or more, for n x n cells, or (rows, columns)")
    cells = [grid(scale)[0] * grid(scale)[1] for scale in self.scales]
    if not cells or sorted(set(cells)) != cells:
      raise UserError(f"scales = {self.scales}: one or more, coarse to fine, each of more cells than the one before")
    if self.channels < 0:
      raise UserError(f"channels = {self.channels}: 0 for those of the network's last map, or more")
    if any(width < 1 for width in self.hidden):
      raise UserError(f"hidden = {self.hidden}: the widths of the dense layers must be 1 or more")
    if not 0 <= self.dropout < 1:
      raise UserError(f"dropout = {self.dropout}: from 0 to below 1")
    super().__post_init__()

  def setup(self) -> None:
    """Names the layers."""
    self.reduce = nn.Dense(self.channels, kernel_init=nn.initializers.he_normal(), dtype=self.dtype)
    self.context = ContextPyramid(
      self.cell, self.scales, self.directions, self.links, self.neighbours, self.resample, self.dtype
    )
    self.dense = [
      nn.Dense(width, kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name=f"hidden_{i}")
      for i, width in enumerate(self.hidden)
    ]
    self.drop = nn.Dropout(self.dropout)

  def __call__(self, features: Features, train: bool = False) -> Features:
    """Returns the output of the last dense layer, `f32[b d]`, as the pooled vector, and as a stage after the others.

    That stage, `f32[b 1 1 d]`, is for the heads that read stages.
    """
    _, contexts = self.context(self._map(features))
    y = jnp.concatenate([context.reshape(len(context), -1) for context in contexts], axis=-1)  # H of eq. 25
    if self.cell != "none":
      y = self.drop(y, deterministic=not train)
    for dense in self.dense:
      y = self.drop(nn.relu(dense(y)), deterministic=not train)
    y = y.astype(jnp.float32)
    return dataclasses.replace(features, stages=(*features.stages, y[:, None, None]), pooled=y)

  def regions(self, features: Features, scale: int) -> tuple[Map, Map]:
    """Returns two maps of a scale, given by its index: the pooled one, and the one with context."""
    pooled, contexts = self.context(self._map(features))
    return pooled[scale].astype(jnp.float32), contexts[scale]

  def _map(self, features: Features) -> Float[Array, "b h w c"]:
    """Returns the map that the pyramid reads."""
    if not features.stages:
      raise UserError("neck = context needs the maps of a backbone; these are precomputed features, which have none")
    last: Array = features.stages[-1]
    return nn.relu(self.reduce(last)) if self.channels else last


def grid(scale: Scale) -> tuple[int, int]:
  """Returns the rows and columns of a scale."""
  return (scale, scale) if isinstance(scale, int) else scale
