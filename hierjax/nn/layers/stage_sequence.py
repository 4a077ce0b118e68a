"""The feature maps of a network's stages as a sequence of vectors (Koo et al., section 3.1)."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.errors import UserError
from hierjax.nn.layers.conversions import KINDS, Conversion, MapShape, Target, conversion_summary

Subsets = tuple[tuple[int, ...], ...]
ORDERS = ("deep_first", "shallow_first")


class StageSequence(nn.Module):
  """The sequence u_1, u_2, ... of Koo et al.: u_t is the mean over the stages s in S_t of their converted maps,

      u_t = 1/|S_t| sum_(s in S_t) g(a_s; alpha_s).

  Attributes:
    size: p, of each vector.
    subsets: S_t for each step, by the stages' numbers, 1 nearest the image; () for `default_subsets`.
    steps: the number of steps of the default subsets; 0 for one step a stage.
    order: of the default subsets: `deep_first` as in the authors' code, `shallow_first` as in the text (READINGS K1).
    conversion: see `Conversion`.
    side: see `Conversion`.
    strict: see `Conversion`.
    dtype: of the products.
  """

  size: int
  subsets: Subsets = ()
  steps: int = 0
  order: str = "deep_first"
  conversion: str = "pool"
  side: int = 4
  strict: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, stages: tuple[Float[Array, "b _h _w _c"], ...]) -> Float[Array, "b t p"]:
    """Returns the sequence; raises UserError for subsets that the stages do not have."""
    subsets = self.resolved(len(stages))
    vectors = {
      stage: Conversion(
        self.conversion,  # type: ignore[arg-type]
        self.size,
        self.side,
        self.strict,
        _label(stage),
        self.dtype,
        name=f"conversion_{stage}",
      )(stages[stage - 1])
      for stage in sorted(itertools.chain(*subsets))
    }
    means = [sum(vectors[s] for s in subset) / len(subset) for subset in subsets]
    return jnp.stack(means, axis=1)

  @nn.nowrap
  def resolved(self, num_stages: int) -> Subsets:
    """Returns S_t for each step of a network with `num_stages` stages.

    Raises:
      UserError: there is no such stage, a subset is empty, or the subsets neither rise nor fall from step to step; or
        there are more steps than stages (READINGS K17).
    """
    if not num_stages:
      raise UserError(
        "config.head: this head reads the feature maps of several stages, and the backbone `features` has none; "
        "choose another backbone, or path_rnn"
      )
    if not self.subsets:
      return default_subsets(num_stages, self.steps or num_stages, self.order)
    check_subsets(self.subsets, num_stages, self.steps)
    return self.subsets

  @nn.nowrap
  def describe(self, shapes: tuple[tuple[int, ...], ...]) -> list[str]:
    """Returns a line for each stage on the conversion of its map, of shape (h, w, c)."""
    read = sorted(itertools.chain(*self.resolved(len(shapes))))
    target = Target(self.size, self.side, self.strict)
    return [conversion_summary(self.conversion, MapShape(_label(s), *shapes[s - 1]), target) for s in read]

  @nn.nowrap
  def check(self) -> None:
    """Raises ValueError for fields that are wrong for every backbone."""
    if self.size < 1 or self.side < 1:
      raise ValueError(f"size = {self.size}, side = {self.side}: must be 1 or more")
    for name, value, allowed in (("conversion", self.conversion, KINDS), ("order", self.order, ORDERS)):
      if value not in allowed:
        raise ValueError(f"{name} = {value!r}: choose from {', '.join(allowed)}")


def _label(stage: int) -> str:
  return f"stage {stage}"


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


def check_subsets(subsets: Subsets, num_stages: int, steps: int = 0) -> None:
  """Raises UserError where `subsets` are not valid S_1, S_2, ... of the stages, or not `steps` many (0: any number)."""
  where = f"config.head.subsets = {subsets}"
  if steps and len(subsets) != steps:
    raise UserError(f"{where}: label paths have {steps} steps, so give {steps} subsets")
  for subset in subsets:
    if not subset or any(not 1 <= stage <= num_stages for stage in subset) or len(set(subset)) < len(subset):
      raise UserError(f"{where}: each must hold stages of the backbone, 1 to {num_stages}, and none twice")
  pairs = list(itertools.pairwise(subsets))
  rises, falls = (all(max(a) < min(b) for a, b in some) for some in (pairs, [(b, a) for a, b in pairs]))
  if not rises and not falls:
    raise UserError(
      f"{where}: all stages of a subset must come before those of the next, or all after (Koo et al., section 3.1), "
      f"as in {default_subsets(num_stages, min(len(subsets), num_stages))}"
    )
