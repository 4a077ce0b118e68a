"""Merged networks (Dutt et al. 2017, section 3.4): levels of the tree share the first stages of a backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.backbones.backbone import Backbone, State, called, map_of, remat
from hierjax.types import Features


@checked
@dataclasses.dataclass(frozen=True)
class MergedConfig:
  """The section `merged` of a config.

  Attributes:
    shared: the number of stages, nearest the image, that all levels share. Each level has its own branch of the other
      stages. 0: a whole network for each level, the stem included (merge-0); -1: the backbone is not merged.
    levels: the levels that have a branch, from 1, the last among them; () for all. A single level with `shared = 0` is
      a network that the paper trains separately.
  """

  shared: int = -1
  levels: Sequence[int] = ()

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    if self.shared < -1:
      raise UserError(f"config.merged.shared = {self.shared}: must be a number of stages, or -1 for no merged network")
    if self.levels and self.shared < 0:
      raise UserError(f"config.merged.levels = {self.levels}: set config.merged.shared, the stages that they share")

  def branch_levels(self, depth: int) -> tuple[int, ...]:
    """Returns the levels that have a branch, of a tree of `depth` levels; () where the backbone is not merged.

    Raises:
      UserError: they are not rising levels of the tree, or do not cover it.
    """
    if self.shared < 0:
      return ()
    levels = tuple(self.levels) or tuple(range(1, depth + 1))
    if any(level not in range(1, depth + 1) for level in levels) or list(levels) != sorted(set(levels)):
      raise UserError(f"config.merged.levels = {levels}: give levels of the tree, 1 to {depth}, in rising order")
    if levels[-1] != depth:
      raise UserError(
        f"config.merged.levels = {levels}: they do not cover the tree, which has {depth} levels: the last must have a "
        f"branch; to learn the upper ones alone, set config.tree.levels = {levels[-1]}"
      )
    return levels


class MergedBackbone(nn.Module):
  """A trunk, and a branch for each of several levels; the branches' pooled vectors are concatenated.

  Attributes:
    trunk: `trunk(x, train) -> x`, one after the other: the stem and the shared stages; empty where nothing is shared.
    branches: the remaining stages for each level, by its number from 0, as `CoarseFineHead` numbers its layers. So a
      branch draws the same initial values for any set of other branches (READINGS D4).
    remat: as of `Backbone`.
  """

  trunk: tuple[nn.Module, ...]
  branches: FrozenDict[str, Backbone]
  remat: bool = False

  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Features:
    """Returns the maps of the shared stages, and the branches' pooled vectors, the top level's first, `f32[b l*d]`."""
    x, maps = images, []
    run = partial(remat if self.remat else called, train=train)
    for module in self.trunk:
      x = run(module, x)
      maps.append(map_of(x))
    pooled = [branch(x, train).pooled for branch in self.branches.values()]
    return Features(stages=tuple(maps[1:]), pooled=jnp.concatenate(pooled, axis=1))


class _Pass(nn.Module):
  """The empty stem of a branch."""

  def __call__(self, x: State, train: bool = False) -> State:
    return x


@checked
def merge(build: Callable[[], nn.Module], shared: int, levels: Sequence[int]) -> MergedBackbone:
  """Returns a backbone's first stages with a branch of the others for each level (Fig. 2 d to g, READINGS D4, D9).

  Args:
    build: returns a new backbone; a module can be in one branch only, so it is called for each.
    shared: the number of shared stages, the stem with them; 0 for none.
    levels: the levels that have a branch, from 1.

  Raises:
    UserError: the backbone has no stages, or fewer than are shared.
  """

  def built() -> Backbone:
    backbone = build()
    if not isinstance(backbone, Backbone):
      raise UserError(f"config.merged.shared = {shared}: this backbone has no stages to share; set it to -1")
    if shared > len(backbone.stages):
      most = len(backbone.stages)
      raise UserError(f"config.merged.shared = {shared}: the backbone has {most} stages, so give at most {most}")
    return backbone

  def branch() -> Backbone:
    own = built()
    return Backbone(_Pass() if shared else own.stem, own.stages[shared:], own.top, remat=own.remat)

  whole = built()
  trunk = (whole.stem, *whole.stages[:shared]) if shared else ()
  return MergedBackbone(trunk, FrozenDict({str(level - 1): branch() for level in levels}), whole.remat)


def merged_names(name: str, shared: int, branches: Sequence[str]) -> list[str]:
  """Returns the names that a weight has with a merged backbone: one in the trunk, or one for each branch.

  Args:
    name: with the plain backbone, such as `backbone/stages_3/norm/scale`; one of another part stays as it is.
    shared: the number of shared stages, the stem with them; 0 for none.
    branches: their keys, as in `MergedBackbone.branches`.
  """
  backbone, _, below = name.partition("/")
  if backbone != "backbone":
    return [name]
  part, _, rest = below.partition("/")
  number = int(part.removeprefix("stages_")) if part.startswith("stages_") else -1
  if shared and (part == "stem" or 0 <= number < shared):
    return [f"backbone/trunk_{number + 1}/{rest}"]
  own = f"stages_{number - shared}/{rest}" if number >= 0 else below
  return [f"backbone/branches_{key}/{own}" for key in branches]
