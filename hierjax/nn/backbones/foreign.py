"""Adapter that makes a backbone of a module of another library."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.backbones.backbone import Backbone
from hierjax.types import Features, Inputs

MODES = ("train", "deterministic")


@checked
class ForeignBackbone(nn.Module):
  """A backbone that is a linen module with arrays as its output.

  The name of such a module, or of a function that returns one, is a backbone's name in a config. With the module
  `my_nets.py` below, `--config.backbone.name=my_nets:my_net --config.backbone.width=16` trains it:

      def my_net(width: int = 32) -> ForeignBackbone:
        return ForeignBackbone(MyLinenNet(width))

  An nnx module comes through flax's bridge:

      def my_net(width: int = 32) -> ForeignBackbone:
        return ForeignBackbone(nnx.bridge.ToLinen(MyNNXNet, kwargs={"width": width}), mode="deterministic")

  Attributes:
    module: `module(inputs)` returns what `as_features` takes.
    mode: the argument of `module` that distinguishes training: `train`, or `deterministic` for its opposite; `none`
      where it has no such argument; `detect` for the one of these that its `__call__` names.
  """

  module: nn.Module
  mode: Literal["detect", "none", "train", "deterministic"] = "detect"

  def __call__(self, inputs: Inputs, train: bool = False) -> Features:
    """Returns the outputs of the module as `Features`."""
    known = inspect.signature(type(self.module).__call__).parameters
    mode = next((name for name in MODES if name in known), "none") if self.mode == "detect" else self.mode
    values = {"train": train, "deterministic": not train}
    return as_features(self.module(inputs, **({mode: values[mode]} if mode in MODES else {})))


def as_features(outputs: Any) -> Features:
  """Returns the outputs of a network as `Features`, whose pooled vector is float32.

  Args:
    outputs: `f[b d]`, the pooled vector; `f[b h w c]`, the map of the last stage, whose mean is the pooled vector; a
      sequence of such maps, nearest the image first; or `Features`.

  Raises:
    UserError: they are none of these.
  """
  if isinstance(outputs, Features):
    return outputs
  maps = tuple(outputs) if isinstance(outputs, Sequence) else (outputs,)
  shapes = [jnp.shape(array) for array in maps]
  if len(maps) == 1 and len(shapes[0]) == 2:
    return Features(stages=(), pooled=maps[0].astype(jnp.float32))
  if not maps or any(len(shape) != 4 for shape in shapes):
    raise UserError(
      f"a backbone returned arrays of the shapes {shapes}; it must return a vector [b d], a map [b h w c], a tuple of "
      "maps, or hierjax.Features"
    )
  return Features(stages=maps, pooled=_mean(maps[-1]))


def as_backbone(made: Any, name: str) -> nn.Module:
  """Returns a module that is called as a backbone is.

  Args:
    made: a `Backbone`, or any linen module that `ForeignBackbone` takes.
    name: of the code that made it, for messages.

  Raises:
    UserError: it is no linen module.
  """
  if not isinstance(made, nn.Module):
    raise UserError(
      f"config.backbone.name = {name!r}: this is a {type(made).__name__}, not a linen module; an nnx module comes "
      "through flax.nnx.bridge.ToLinen (see hierjax.ForeignBackbone)"
    )
  return made if isinstance(made, Backbone | ForeignBackbone) else ForeignBackbone(made)


def _mean(last: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
  return jnp.mean(last.astype(jnp.float32), axis=(1, 2))
