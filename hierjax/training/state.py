"""The state of a training run, one pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hierjax.training.optim import Optimizer
from hierjax.training.schedule import Plateau
from hierjax.types import Leaf


@struct.dataclass
class TrainState:
  """The state of a training run.

  Attributes:
    step: `i32[]`, number of steps done.
    params: the weights.
    collections: the other variables: batch statistics.
    opt_state: the optimiser's state.
    plateau: see `Plateau`.
    loss_sum: `f32[]`, the losses since the last log line, so that a resumed run logs the same.
    loss_count: `i32[]`, their number.
    bad_step: `i32[]`, the first step whose loss or gradient was not finite; -1 while all were.
  """

  step: Leaf
  params: Any
  collections: Any
  opt_state: Any
  plateau: Plateau
  loss_sum: Leaf
  loss_count: Leaf
  bad_step: Leaf

  @property
  def variables(self) -> dict[str, Any]:
    """The variables for `module.apply`."""
    return {"params": self.params, **self.collections}

  @property
  def model(self) -> dict[str, Any]:
    """The half of a checkpoint that evaluation needs."""
    return {"params": self.params, "collections": self.collections}

  @property
  def training(self) -> dict[str, Any]:
    """The half of a checkpoint that only training needs."""
    return {
      "step": self.step,
      "opt_state": self.opt_state,
      "plateau": self.plateau,
      "loss_sum": self.loss_sum,
      "loss_count": self.loss_count,
      "bad_step": self.bad_step,
    }


def init_state(variables: Any, optimizer: Optimizer) -> TrainState:
  """Returns the state before the first step."""
  collections = dict(variables)
  params = collections.pop("params")
  return TrainState(
    step=jnp.int32(0),
    params=params,
    collections=collections,
    opt_state=optimizer.init(params),
    plateau=Plateau.initial(),
    loss_sum=jnp.float32(0),
    loss_count=jnp.int32(0),
    bad_step=jnp.int32(-1),
  )


@jax.jit
def all_finite(model: Any) -> jax.Array:
  """Returns whether weights and statistics are finite; the loss of a step does not show it for its own update."""
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(model)]).all()
