"""The feature maps of a network's stages as a sequence of vectors (Koo et al., section 3.1)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.layers.conversions import Conversion, Kind, MapShape, Target, conversion_summary
from hierjax.types import Features

Layer = int | str  # a stage by its number, 1 nearest the image, or a layer of a plain network by its name
Subsets = tuple[tuple[Layer, ...], ...]
Filters = tuple[tuple[int, int, int], ...]
Names = tuple[tuple[str, ...], ...]
Order = Literal["deep_first", "shallow_first"]
MapNorm = Literal["none", "layer"]
_EPSILON = 1e-6


@checked
class StageSequence(nn.Module):
  """The sequence u_1, u_2, ... of Koo et al.: u_t is the mean over the stages s in S_t of their converted maps,

      u_t = 1/|S_t| sum_(s in S_t) g(a_s; alpha_s).

  Attributes:
    size: p, of each vector.
    subsets: S_t for each step, by the stages' numbers, 1 nearest the image, or the names of a plain network's layers,
      `conv5_3`; () for `default_subsets`.
    steps: the number of steps of the default subsets; 0 for one step a map.
    order: of the default subsets: `deep_first` as in the authors' code, `shallow_first` as in the text (READINGS K1).
    conversion: see `Conversion`.
    side: see `Conversion`.
    strict: see `Conversion`.
    dtype: of the products.
    maps: the stages or layers that the default subsets are of, nearest the image first; () for all stages.
    filters: F, G and Z of the conversion `conv`: for each map that is read, nearest the image first, or one for all; ()
      for those of least padding.
    norm: `layer` gives the numbers of each converted map the mean 0 and the variance 1, without weights, before they
      are averaged; `none` leaves them as they are, as the paper does (READINGS K18).
  """

  size: int
  subsets: Subsets = ()
  steps: int = 0
  order: Order = "deep_first"
  conversion: Kind = "pool"
  side: int = 4
  strict: bool = False
  dtype: Any = jnp.float32
  maps: tuple[Layer, ...] = ()
  filters: Filters = ()
  norm: MapNorm = "none"

  @nn.compact
  def __call__(self, features: Features) -> Float[Array, "b t p"]:
    """Returns the sequence; raises UserError for subsets that the network does not have."""
    subsets = self.resolved(len(features.stages), features.layer_names)
    read = self._read(subsets, features)
    vectors = {
      layer: Conversion(
        self.conversion,
        self.size,
        self.side,
        self.strict,
        _label(layer),
        self.dtype,
        own,
        name=f"conversion_{layer}",
      )(_map_of(layer, features))
      for layer, own in read.items()
    }
    if self.norm == "layer":
      vectors = {layer: _standardised(vector) for layer, vector in vectors.items()}
    means = [sum(vectors[s] for s in subset) / len(subset) for subset in subsets]
    return jnp.stack(means, axis=1)

  @nn.nowrap
  def _read(self, subsets: Subsets, features: Features) -> dict[Layer, tuple[int, ...]]:
    """Returns the layers that are read, nearest the image first, with F, G and Z of each."""
    places = layer_places(len(features.stages), features.layer_names)
    read = sorted(itertools.chain(*subsets), key=places.__getitem__)
    if len(self.filters) not in (0, 1, len(read)):
      raise UserError(
        f"config.head.filters = {self.filters}: give F, G and Z once, or for each of the {len(read)} maps that are "
        f"read, {', '.join(map(_label, read))}"
      )
    filters = self.filters if len(self.filters) > 1 else (self.filters or ((),)) * len(read)
    return dict(zip(read, filters, strict=True))

  @nn.nowrap
  def resolved(self, num_stages: int, names: Names = ()) -> Subsets:
    """Returns S_t for each step of a network with `num_stages` stages, whose layers have `names`.

    Raises:
      UserError: there is no such stage or layer, a subset is empty, or the subsets neither rise nor fall from step to
        step; or there are more steps than stages (READINGS K17).
    """
    if not num_stages:
      raise UserError(
        "config.head: this head reads the feature maps of several stages, and the backbone `features` has none; "
        "choose another backbone, or path_rnn"
      )
    places = layer_places(num_stages, names)
    if not self.subsets and not self.maps:
      return default_subsets(num_stages, self.steps or num_stages, self.order)
    if not self.subsets:
      check_subsets(tuple((layer,) for layer in self.maps), places, 0, "maps")
      maps = sorted(self.maps, key=places.__getitem__)
      numbered = dict(enumerate(maps, start=1))
      chosen = default_subsets(len(maps), self.steps or len(maps), self.order)
      return tuple(tuple(numbered[int(number)] for number in subset) for subset in chosen)
    check_subsets(self.subsets, places, self.steps)
    return self.subsets

  @nn.nowrap
  def describe(self, features: Features) -> list[str]:
    """Returns a line for each map that is read on its conversion; `features` may be shapes."""
    found = []
    for layer, own in self._read(self.resolved(len(features.stages), features.layer_names), features).items():
      target = Target(self.size, self.side, self.strict, own)
      shape = MapShape(_label(layer), *_map_of(layer, features).shape[1:])
      found.append(conversion_summary(self.conversion, shape, target))
    return found

  @nn.nowrap
  def check(self) -> None:
    """Raises ValueError for fields that are wrong for every backbone."""
    if self.size < 1 or self.side < 1:
      raise ValueError(f"size = {self.size}, side = {self.side}: must be 1 or more")
    if any(f < 1 or g < 1 or z < 0 for f, g, z in self.filters):
      raise ValueError(f"filters = {self.filters}: F and G are 1 or more, and Z is 0 or more")
    if self.filters and self.conversion != "conv":
      raise ValueError(f"filters = {self.filters}: they are of conversion = conv, and not of {self.conversion}")


def _standardised(vector: Float[Array, "b p"]) -> Float[Array, "b p"]:
  centred = vector - vector.mean(axis=1, keepdims=True)
  return centred / jnp.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON)


def _label(layer: Layer) -> str:
  return layer if isinstance(layer, str) else f"stage {layer}"


def layer_places(num_stages: int, names: Names = ()) -> dict[Layer, int]:
  """Returns the place of each stage and each named layer, from the image on; a stage is at its last layer's place."""
  found: dict[Layer, int] = {}
  place = 0
  for number in range(1, num_stages + 1):
    for name in names[number - 1] if number <= len(names) else ("",):
      place += 1
      found |= {name: place} if name else {}
    found[number] = place
  return found


def _map_of(layer: Layer, features: Features) -> Any:
  if isinstance(layer, int):
    return features.stages[layer - 1]
  named = zip(itertools.chain(*features.layer_names), itertools.chain(*features.layers), strict=True)
  return next(found for name, found in named if name == layer)


def default_subsets(num_stages: int, steps: int, order: str = "deep_first") -> Subsets:
  """Returns one stage for each step, from the deepest on, and all other stages for the last step (READINGS K1).

  With `shallow_first` the order of the steps is reversed.

  Raises:
    UserError: there are more steps than stages.
  """
  if steps > num_stages:
    raise UserError(
      f"config.head: label paths have {steps} steps and the backbone {num_stages} stages, and each step reads a stage "
      "of its own; choose a deeper backbone, a tree of fewer levels (config.tree.levels), or dhnn_s2s, which takes any"
    )
  alone = [(stage,) for stage in range(num_stages, num_stages - steps + 1, -1)]
  subsets = (*alone, tuple(range(1, num_stages - steps + 2)))
  return subsets if order == "deep_first" else subsets[::-1]


def check_subsets(subsets: Subsets, places: Mapping[Layer, int], steps: int = 0, field: str = "subsets") -> None:
  """Raises UserError where `subsets` are not valid S_1, S_2, ... of the layers, or not `steps` many (0: any number)."""
  named = tuple(subset[0] for subset in subsets) if field == "maps" else subsets
  where = f"config.head.{field} = {named}"
  if steps and len(subsets) != steps:
    raise UserError(f"{where}: label paths have {steps} steps, so give {steps} subsets")
  num_stages = sum(isinstance(layer, int) for layer in places)
  names = [layer for layer in places if isinstance(layer, str)]
  some = f", or {', '.join(names)}" if names else ""
  for subset in subsets:
    here = [places.get(layer, 0) for layer in subset]
    if not here or 0 in here or len(set(here)) < len(here):
      raise UserError(f"{where}: each must hold stages of the backbone, 1 to {num_stages}{some}, and none twice")
  numbers = tuple(tuple(places[layer] for layer in subset) for subset in subsets)
  if field == "maps" and len(set(numbers)) == len(numbers):
    return
  pairs = list(itertools.pairwise(numbers))
  rises, falls = (all(max(a) < min(b) for a, b in some) for some in (pairs, [(b, a) for a, b in pairs]))
  if not rises and not falls:
    raise UserError(
      f"{where}: all stages of a subset must come before those of the next, or all after (Koo et al., section 3.1), "
      f"as in {default_subsets(num_stages, min(len(subsets), num_stages))}"
    )
