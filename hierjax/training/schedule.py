"""The learning rate over a run: schedules in epochs, and the plateau."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.typing import ArrayLike

from hierjax.config import checked, lookup, unpack
from hierjax.errors import UserError
from hierjax.types import Leaf

Schedule = Callable[[ArrayLike], jax.Array]


@dataclasses.dataclass(frozen=True)
class RunLength:
  """The length of a training run.

  Attributes:
    steps_per_epoch: training images / batch size, but for bounds of `of`; need not be whole.
    total_steps: all steps of the run.
  """

  steps_per_epoch: float
  total_steps: int

  @classmethod
  def of(cls, steps_per_epoch: float, epochs: float, bounds: tuple[int, int] = (0, 0)) -> RunLength:
    """Returns the length of a run of so many epochs, within bounds.

    Where a bound changes the number of steps, an epoch becomes as much longer or shorter, for all that is given in
    epochs: warm-up, validation, patience.

    Args:
      steps_per_epoch: training images / batch size.
      epochs: of the run; a run of 0 epochs has 0 steps.
      bounds: the least and the most steps; 0 for none.
    """
    least, most = bounds
    steps = math.ceil(epochs * steps_per_epoch)
    total = max(min(steps, most or steps), least) if epochs else 0
    return cls(steps_per_epoch if total == steps else total / epochs, total)

  def in_words(self, steps_per_pass: float) -> str:
    """Returns the length as text, for the console.

    Args:
      steps_per_pass: training images / batch size.
    """
    said = f"{self.total_steps:,} steps, {self.total_steps / steps_per_pass:.1f} passes over the images"
    epoch = self.steps_per_epoch / steps_per_pass
    if math.isclose(epoch, 1) or not self.total_steps:
      return said
    return f"{said} (set by config.least_steps or most_steps; an epoch of this run is {epoch:.2g} passes)"

  def due(self, done: int, epochs: float) -> bool:
    """Returns whether step `done` is the first at or after a multiple of `epochs` epochs, or the last of the run."""
    every = epochs * self.steps_per_epoch
    return done == self.total_steps or int(done / every) > int((done - 1) / every)


@checked
@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """The section `schedule` of a config; times are in epochs.

  Attributes:
    name: `constant`, `step`, `cosine` (down to 0 at the end) or `plateau`.
    warmup: epochs in which the rate rises linearly from 0.
    boundaries: epochs at which `step` multiplies the rate by `factor`.
    factor: of `step` and `plateau`.
    patience: evaluations without improvement after which `plateau` multiplies the rate by `factor`.
    min_delta: the smallest decrease of the loss, or increase of the accuracy, that counts as an improvement.
    monitor: the value on validation that `plateau` watches: `loss`, or `accuracy` (as in Zuo et al.), which is path
      accuracy, or path F1 for multi-label heads.
  """

  name: str = "cosine"
  warmup: float = 0.0
  boundaries: Sequence[float] = ()
  factor: float = 0.1
  patience: int = 3
  min_delta: float = 1e-3
  monitor: str = "loss"

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    laws = {
      "warmup": (0 <= self.warmup <= 100_000, "0 epochs or more, and at most 100,000"),
      "boundaries": (all(0 < epoch <= 100_000 for epoch in self.boundaries), "epochs above 0, and at most 100,000"),
      "factor": (0 < self.factor < 1, "above 0 and below 1"),
      "patience": (self.patience >= 1, "1 evaluation or more"),
      "min_delta": (self.min_delta >= 0, "0 or more"),
      "monitor": (self.monitor in ("loss", "accuracy"), "loss or accuracy"),
    }
    values = dataclasses.asdict(self)
    for key, (holds, allowed) in laws.items():
      if not holds:
        raise UserError(f"config.schedule.{key} = {values[key]!r}: must be {allowed}")
    early = [epoch for epoch in self.boundaries if epoch < self.warmup]
    if self.name == "step" and early:
      raise UserError(
        f"config.schedule.boundaries: {early[0]} lies within the {self.warmup} epochs of config.schedule.warmup, in "
        "which the rate rises; boundaries must not be before its end"
      )


def make_schedule(section: Mapping[str, Any], peak: float, length: RunLength) -> tuple[Schedule, ScheduleConfig]:
  """Returns the learning rate as a function of the step, and the parsed section.

  Args:
    section: the section `schedule` of a config.
    peak: the largest learning rate.
    length: of the run; `cosine` ends with it.

  Raises:
    UserError: the section has an unknown key or a value outside its range.
  """
  config = unpack(ScheduleConfig, section, "schedule")
  warmup = round(config.warmup * length.steps_per_epoch)
  factors: dict[int, float] = {}
  for epoch in config.boundaries:
    step = round(epoch * length.steps_per_epoch) - warmup
    factors[step] = factors.get(step, 1.0) * config.factor
  after: dict[str, optax.Schedule] = {
    "constant": optax.constant_schedule(peak),
    "plateau": optax.constant_schedule(peak),
    "cosine": optax.cosine_decay_schedule(peak, max(1, length.total_steps - warmup)),
    "step": optax.piecewise_constant_schedule(peak, factors),
  }
  schedule = lookup(after, config.name, "schedule.name")
  if warmup:
    schedule = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])
  # In float32, which is exact for the first 16 million steps: optax mixes its types.
  return lambda step: jnp.asarray(schedule(jnp.asarray(step, jnp.float32)), jnp.float32), config


@struct.dataclass
class Plateau:
  """The state of the plateau schedule. It changes after each validation, never within a step.

  The watched value v should fall: it is the loss, or 1 - accuracy. After a validation,

      if v < best - min_delta:   best <- v,  waited <- 0
      else:                      waited <- waited + 1;  at `patience`:  scale <- factor scale,  waited <- 0

  optax.contrib.reduce_on_plateau has this rule, but it refuses the tolerance 0 that `min_delta` allows, and its state
  is part of the optimiser's, which a validation between two steps would have to update with gradients of zero.

  Attributes:
    scale: `f32[]`, multiplies the learning rate.
    best: `f32[]`, the lowest value so far.
    waited: `i32[]`, evaluations since the last improvement or reduction.
  """

  scale: Leaf
  best: Leaf
  waited: Leaf

  @classmethod
  def initial(cls) -> Plateau:
    """Returns the state before the first validation."""
    return cls(jnp.float32(1), jnp.float32(jnp.inf), jnp.int32(0))

  def after(self, value: float, config: ScheduleConfig) -> Plateau:
    """Returns the state after a validation whose watched value is `value`."""
    better = value < self.best - config.min_delta
    waited = jnp.where(better, 0, self.waited + 1).astype(jnp.int32)
    drop = waited >= config.patience
    return Plateau(
      scale=jnp.where(drop, self.scale * config.factor, self.scale).astype(jnp.float32),
      best=jnp.where(better, value, self.best).astype(jnp.float32),
      waited=jnp.where(drop, 0, waited).astype(jnp.int32),
    )
