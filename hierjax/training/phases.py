"""Alternating training: parts of the model take turns, and then all of it trains (Koo et al., section 4.1)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax

from hierjax.errors import UserError
from hierjax.training.optim import OptimConfig, Optimizer, frozen_statistics, make_optimizer, parameter_names
from hierjax.types import Variables


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
  """The section `phases` of a config (READINGS K14).

  Attributes:
    alternate: the share of the run in which parts take turns, 0 to 1; everything trains in the rest.
    period: epochs of a turn.
    frozen: for each turn, regexes over parameter names: what one is found in is frozen, as by a factor of None in
      `optim.lr_groups`. By default the backbone at first, and then the head but for its conversions, which belong to
      both.
  """

  alternate: float = 0.0
  period: float = 1.0
  frozen: Sequence[Sequence[str]] = (("^backbone/",), ("^head/(?!sequence/)",))

  def __post_init__(self) -> None:
    """Raises UserError for a value that cannot be meant."""
    if not 0 <= self.alternate <= 1:
      raise UserError(f"config.phases.alternate = {self.alternate}: a share of the run is 0 to 1")
    if self.period <= 0:
      raise UserError(f"config.phases.period = {self.period}: must be more than 0 epochs")
    if not self.frozen or any(isinstance(turn, str) or not turn for turn in self.frozen):
      raise UserError(
        f"config.phases.frozen = {self.frozen!r}: must be a tuple of regexes for each turn, (('^backbone/',), "
        "('^head/',)) say"
      )


@dataclasses.dataclass(frozen=True)
class Phase:
  """What trains during some steps.

  Attributes:
    optimizer: its state has one structure in all phases.
    frozen_collections: as `make_train_step` wants them.
    frozen_parts: likewise.
  """

  optimizer: Optimizer
  frozen_collections: Any
  frozen_parts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Phases:
  """The phases of a run: its turns, and last the one in which everything trains that is not frozen for good.

  Attributes:
    all: the phases.
    until: steps of taking turns.
    period: steps of a turn.
  """

  all: tuple[Phase, ...]
  until: int
  period: int

  def at(self, step: int) -> int:
    """Returns the number of the phase that the step after `step` steps is of."""
    return (step // self.period) % (len(self.all) - 1) if step < self.until else len(self.all) - 1


def make_phases(
  config: PhasesConfig, optim: OptimConfig, variables: Variables, *, steps_per_epoch: float, total_steps: int
) -> Phases:
  """Returns the phases of a run.

  Args:
    config: the section `phases`.
    optim: the section `optim`; what it freezes is frozen in all phases.
    variables: the module's variables, or their shapes.
    steps_per_epoch: need not be whole.
    total_steps: of the run.

  Raises:
    UserError: a regex is none, or is found in no parameter; or as `make_optimizer`.
  """
  turns = config.frozen if config.alternate else ()
  names = jax.tree.leaves(parameter_names(variables["params"]))
  for pattern in (pattern for turn in turns for pattern in turn):
    try:
      found = any(re.search(pattern, name) for name in names)
    except (re.error, TypeError) as error:
      raise UserError(f"config.phases.frozen: {pattern!r} is no regex ({error})") from None
    if not found:
      raise UserError(f"config.phases.frozen: {pattern!r} is found in no parameter's name; {names[0]} is one")

  def phase(frozen: Sequence[str]) -> Phase:
    groups = (*((pattern, None) for pattern in frozen), *optim.lr_groups)
    own = dataclasses.replace(optim, lr_groups=groups)
    return Phase(make_optimizer(own, variables["params"], bool(turns)), *frozen_statistics(own, variables))

  return Phases(
    tuple(phase(frozen) for frozen in (*turns, ())),
    until=round(config.alternate * total_steps),
    period=max(1, round(config.period * steps_per_epoch)),
  )
