"""Conversions of feature maps of any size to vectors of one size (Koo et al., section 3.3)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.layers.pooling import largest
from hierjax.nn.layers.pyramid import adaptive_average_pool, adaptive_max_pool

Kind = Literal["linear", "conv", "pool", "pool_average", "pool_linear", "pool_dense", "dense"]
WITHOUT_WEIGHTS = ("pool", "pool_average")

_HE = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True)
class MapShape:
  """The shape of a map, and its name in messages."""

  label: str
  height: int
  width: int
  channels: int


@dataclasses.dataclass(frozen=True)
class Target:
  """The vector that a conversion makes of a map.

  Attributes:
    size: p, its numbers.
    side: the wanted height and width of the result of `linear`, `pool_linear` and `conv`, before it is flattened; the
      largest height and width of the map that `pool_dense` has its matrix over.
    strict: whether settings that the appendices do not solve exactly are errors; otherwise the nearest ones are taken.
    filter: F, G and Z of `conv`: the filters' size, their stride and the zeros on each side; () for `convolution`'s
      own choice. `side` and `strict` have no effect beside it.
  """

  size: int
  side: int = 4
  strict: bool = False
  filter: tuple[int, ...] = ()


@checked
class Conversion(nn.Module):
  """Conversion of a map a of D x H x W numbers to a vector of p = `size` numbers, g(a; alpha) of the paper.

  - `linear`: vec(a x_1 U1 x_2 U2 x_3 U3), the n-mode product, to p / side^2 x side x side (READINGS K4).
  - `conv`: a convolution with p / side^2 filters and side x side places; see `convolution` (appendix A; K5). With
    `filter`, F x F filters of stride G over a map with Z zeros on each side, K = p / ((W - F + 2Z) / G + 1)^2 of them.
  - `pool`: max pooling to D x k x k, k the largest with D k^2 <= p, padded with zeros; no weights. Where D > p, maxima
    of ceil(D / p) channels each come first (appendix B; K2, K3). k is at most the map's own side; the windows are
    disjoint where it divides the side, and otherwise those of `adaptive_max_pool`.
  - `pool_average`: the same with means.
  - `pool_linear`: the map of `pool` times U1, U2, U3, as in the paper's formula (K2).
  - `pool_dense`: max pools of 2 x 2 until the map is at most `side` x `side`, then one matrix: what the authors' code
    runs, hence their Table 3 (K2).
  - `dense`: one matrix over the whole map; D x H x W x p weights (K4).

  Attributes:
    kind: one of these.
    size: p.
    side: see `Target`.
    strict: see `Target`.
    label: the map's name in messages.
    dtype: of the products; weights and result are float32.
    filter: see `Target`.
  """

  kind: Kind
  size: int
  side: int = 4
  strict: bool = False
  label: str = "the map"
  dtype: Any = jnp.float32
  filter: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p"]:
    """Returns the vectors.

    Raises:
      UserError: with `strict`, there is no exact setting for this map.
    """
    shape, target = MapShape(self.label, *x.shape[1:]), Target(self.size, self.side, self.strict, self.filter)
    x = x.astype(self.dtype)
    if self.kind in WITHOUT_WEIGHTS:
      y = _pooled(x, pooling(shape, target), self.kind == "pool_average")
      y = jnp.pad(y.reshape(len(y), -1), ((0, 0), (0, self.size - y[0].size)))
    elif self.kind == "conv":
      plan = convolution(shape, target)
      y = nn.Conv(
        self.size // plan.side**2,
        plan.windows,
        plan.strides,
        [(z, z) for z in plan.paddings],
        dtype=self.dtype,
        kernel_init=_HE,
        name="convolution",
      )(x)
    elif self.kind in ("dense", "pool_dense"):
      x = _halved(x, self.side) if self.kind == "pool_dense" else x
      y = nn.Dense(self.size, dtype=self.dtype, name="matrix")(x.reshape(len(x), -1))
    else:
      side = map_side(self.label, target)
      if self.kind == "pool_linear":
        x = _pooled(x, pooling(shape, target))
      y = self._modes(x, (side, side, self.size // side**2))
    return y.reshape(len(y), -1).astype(jnp.float32)

  def _modes(self, x: Float[Array, "b h w c"], sizes: tuple[int, int, int]) -> Float[Array, "b n v m"]:
    """Returns the n-mode product with one matrix a mode: U2 and U3 of rows and columns, U1 of channels."""
    initial = nn.initializers.lecun_normal()
    u2, u3, u1 = (
      self.param(name, initial, (old, new), jnp.float32).astype(self.dtype)
      for name, old, new in zip(("u2", "u3", "u1"), x.shape[1:], sizes, strict=True)
    )
    return jnp.einsum("bhwc,hn,wv,cm->bnvm", x, u2, u3, u1, optimize="optimal")


@dataclasses.dataclass(frozen=True)
class Pooling:
  """The settings of `pool`: `group` channels become one, and windows make `side` x `side` places."""

  group: int
  side: int


def pooling(shape: MapShape, target: Target) -> Pooling:
  """Returns the pooling of a map to at most `target.size` numbers.

  Raises:
    UserError: with `strict`, appendix B has no solution: D (W / F)^2 = p with disjoint windows of F x F.
  """
  height, width, channels, size = shape.height, shape.width, shape.channels, target.size
  if target.strict:
    places = size // channels
    side = math.isqrt(places)
    if height != width or places * channels != size or side**2 != places or not side or width % side:
      raise UserError(
        f"{shape.label}, D = {channels} channels of {height}x{width}: no pooling makes p = {size} numbers of it, since "
        "D (W / F)^2 = p has no integer F that divides W (Koo et al., appendix B); choose another config.head.size, "
        "or config.head.strict = False"
      )
    return Pooling(1, side)
  group = -(-channels // size)
  side = math.isqrt(size // -(-channels // group))
  return Pooling(group, min(side, height, width))


def _pooled(x: Float[Array, "b h w c"], plan: Pooling, average: bool = False) -> Float[Array, "b k k m"]:
  places = (adaptive_average_pool if average else adaptive_max_pool)(x, plan.side, plan.side)
  if plan.group == 1:
    return places
  channels = x.shape[-1]
  groups = -(-channels // plan.group)
  missing = ((0, 0), (0, 0), (0, 0), (0, groups * plan.group - channels))
  padded = jnp.pad(places, missing, constant_values=0 if average else -jnp.inf)
  grouped = padded.reshape(*places.shape[:-1], groups, plan.group)
  if not average:
    return largest(grouped, axis=-1)
  counts = jnp.minimum(plan.group, channels - plan.group * jnp.arange(groups)).astype(x.dtype)
  return grouped.sum(axis=-1) / counts[None, None, None]


def _halved(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h2 w2 c"]:
  """Returns the map after max pools of 2 x 2 with stride 2, odd sides rounded up, until no side is above `side`."""
  while max(x.shape[1:3]) > side:
    for axis in (1, 2):
      x = jnp.pad(x, [(0, x.shape[axis] % 2 * (a == axis)) for a in range(4)], constant_values=-jnp.inf)
      x = largest(x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :]), axis + 1)
  return x


def map_side(label: str, target: Target) -> int:
  """Returns the side nearest to `target.side` whose square divides `target.size`; of two, the larger.

  Raises:
    UserError: with `strict`, the square of `target.side` does not divide it; `label` names the map.
  """
  size, side = target.size, target.side
  if size % side**2 == 0:
    return side
  if target.strict:
    raise UserError(
      f"{label}: p = {size} numbers are not m x {side} x {side} for any m; choose another config.head.size or "
      "config.head.side, or config.head.strict = False"
    )
  sides = [s for s in range(1, math.isqrt(size) + 1) if size % s**2 == 0]
  return min(sides, key=lambda s: (abs(s - side), -s))


@dataclasses.dataclass(frozen=True)
class Convolution:
  """The settings of a convolution whose result has `side` x `side` places; other fields are of rows, then columns."""

  side: int
  windows: tuple[int, int]
  strides: tuple[int, int]
  paddings: tuple[int, int]


def convolution(shape: MapShape, target: Target) -> Convolution:
  """Returns the convolution that makes `target.size` numbers on side x side places of a map (appendix A).

  Of the appendix's solutions it is one with the least padding, and of those, disjoint windows (case 2) rather than
  overlapping ones (case 4); then comes stride 1 (case 3). One place takes a window as large as the map (case 1).

  Raises:
    UserError: with `strict`, there is no solution, or the map is not square, which the appendix assumes.
  """
  if target.filter:
    return given_convolution(shape, target)
  label, height, width = shape.label, shape.height, shape.width
  size, side, strict = target.size, target.side, target.strict
  remedy = "choose another config.head.size or config.head.side, or config.head.strict = False"
  if strict and height != width:
    raise UserError(f"{label}, {height}x{width}: appendix A of Koo et al. is for square maps; {remedy}")
  found = map_side(label, target)
  if found > min(height, width):
    if strict:
      raise UserError(f"{label}, W = {width}: no convolution makes {side} x {side} places of it (p = {size}); {remedy}")
    found = max(s for s in range(1, min(height, width) + 1) if size % s**2 == 0)
  rows, columns = window(height, found), window(width, found)
  return Convolution(found, *zip(rows, columns, strict=True))


def given_convolution(shape: MapShape, target: Target) -> Convolution:
  """Returns the convolution with `target.filter`, F, G and Z, where appendix A solves it for the map.

  Raises:
    UserError: the map is not square; F, G and Z are none of the appendix's four cases; or the convolution does not make
      p numbers with a whole number of filters.
  """
  (f, g, z), w, p = target.filter, shape.width, target.size
  has = f"{shape.label}, {shape.height}x{w}, with config.head.filters F = {f}, G = {g}, Z = {z}"
  if shape.height != w:
    raise UserError(f"{has}: appendix A of Koo et al. is for square maps; set config.head.filters = ()")
  case_1 = f == w and z == 0
  case_2 = f == g < w
  case_3 = g == 1 and f < w and z == 0
  case_4 = 1 < g < f < w
  if not (case_1 or case_2 or case_3 or case_4):
    raise UserError(
      f"{has}: appendix A of Koo et al. has F = W and Z = 0; or F = G below W; or F below W, G = 1 and Z = 0; or F "
      "below W, G from 2 to F - 1"
    )
  places, rest = divmod(w - f + 2 * z, g)
  side = places + 1
  if rest or p % side**2:
    counted = f"{p} / {side}^2 filters" if not rest else f"(W - F + 2Z) / G + 1 = {w - f + 2 * z} / {g} + 1 places"
    raise UserError(f"{has}: p = {p} numbers would need {counted}, which is not a whole number (appendix A)")
  return Convolution(side, (f, f), (g, g), (z, z))


def window(extent: int, places: int) -> tuple[int, int, int]:
  """Returns filter size F, stride G and padding Z, on each side, that make `places` of `extent` pixels, W of the paper.

  The padding is the smallest possible, and less than F, so that no window holds zeros only.

  Raises:
    ValueError: there are not as many pixels as places.
  """
  if places > extent:
    raise ValueError(f"{places} places of {extent} pixels")
  if places == extent:
    return 1, 1, 0  # cases 2 and 3 in one
  if places == 1:
    return extent, 1, 0  # case 1
  for padding in range(extent):
    padded = extent + 2 * padding
    if padded % places == 0 and padding < padded // places < extent:
      return padded // places, padded // places, padding  # case 2
    strides = range(2, padded)
    overlapping = [(padded - (places - 1) * g, g) for g in strides]
    fitting = [(f, g) for f, g in overlapping if g < f < extent and padding < f]
    if fitting:
      return *min(fitting), padding  # case 4
  return extent - places + 1, 1, 0  # case 3


def conversion_summary(kind: str, shape: MapShape, target: Target) -> str:
  """Returns a line on a conversion of a map; raises UserError as `Conversion` does."""
  size, across = target.size, f"{shape.height}x{shape.width}x{shape.channels}"
  if kind in WITHOUT_WEIGHTS:
    plan = pooling(shape, target)
    kept = -(-shape.channels // plan.group)
    used = kept * plan.side**2
    what = "means" if kind == "pool_average" else "maxima"
    first = f"{what} of {plan.group} channels, " if plan.group > 1 else ""
    zeros = f", {size - used} zeros" if used < size else ""
    done = f"{first}{what} over {plan.side}x{plan.side}x{kept} windows{zeros}"
  elif kind == "conv":
    conv = convolution(shape, target)
    f, g, z = ("x".join(map(str, field)) for field in (conv.windows, conv.strides, conv.paddings))
    done = f"{size // conv.side**2} filters of {f}, stride {g}, padding {z}"
  elif kind in ("dense", "pool_dense"):
    height, width, pools = shape.height, shape.width, 0
    while kind == "pool_dense" and max(height, width) > target.side:
      height, width, pools = -(-height // 2), -(-width // 2), pools + 1
    pooled = f"{pools} max pools of 2x2 to {height}x{width}, " if pools else ""
    done = f"{pooled}a matrix of {height * width * shape.channels:,} x {size}"
  else:
    found = map_side(shape.label, target)
    done = f"n-mode product to {found}x{found}x{size // found**2}"
  return f"{shape.label}, {across}: {done}"
