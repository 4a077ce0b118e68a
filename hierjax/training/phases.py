"""Phases of alternating training: parts of the model are frozen in turn, then all parts train (Koo et al., 4.1)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.training.optim import OptimConfig, Optimizer, frozen_statistics, make_optimizer, parameter_names
from hierjax.training.schedule import RunLength
from hierjax.types import Variables


@checked
@dataclasses.dataclass(frozen=True)
class PhasesConfig:
  """The section `phases` of a config (READINGS K14).

  Attributes:
    alternate: the fraction of the run in which parts are frozen in turn, 0 to 1; in the rest all parts train.
    period: epochs of a turn.
    frozen: for each turn, regexes over parameter names: a parameter whose name has a match is frozen, as by a factor of
      None in `optim.lr_groups`. The default freezes the backbone in the first turn; in the second, the head without its
      conversions, which train in both.
  """

  alternate: float = 0.0
  period: float = 1.0
  frozen: Sequence[Sequence[str]] = (("^backbone/",), ("^head/(?!sequence/)",))

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    if not 0 <= self.alternate <= 1:
      raise UserError(f"config.phases.alternate = {self.alternate}: must be a fraction of the run, 0 to 1")
    if self.period <= 0:
      raise UserError(f"config.phases.period = {self.period}: must be more than 0 epochs")
    if not self.frozen or not all(self.frozen):
      raise UserError(
        f"config.phases.frozen = {self.frozen!r}: must be a tuple of regexes for each turn, e.g. (('^backbone/',), "
        "('^head/',))"
      )


@dataclasses.dataclass(frozen=True)
class Phase:
  """The trainable and the frozen variables of some steps.

  Attributes:
    optimizer: its state has the same structure in all phases.
    frozen_collections: a tree of bools like the state's collections, True for a frozen leaf; None freezes nothing.
    frozen_parts: parts of the module that run with `train=False`.
  """

  optimizer: Optimizer
  frozen_collections: Any = None
  frozen_parts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Phases:
  """The phases of a run: its turns, and last the phase in which all parts train that `optim.lr_groups` does not freeze.

  Attributes:
    all: the phases.
    until: the number of steps in which the turns alternate.
    period: the number of steps of a turn.
  """

  all: tuple[Phase, ...]
  until: int
  period: int

  def at(self, step: int) -> int:
    """Returns the index of the phase of the step that follows `step` steps."""
    return (step // self.period) % (len(self.all) - 1) if step < self.until else len(self.all) - 1


def make_phases(config: PhasesConfig, optim: OptimConfig, variables: Variables, length: RunLength) -> Phases:
  """Returns the phases of a run.

  Args:
    config: the section `phases`.
    optim: the section `optim`; the parameters that it freezes are frozen in all phases.
    variables: the module's variables, or their shapes.
    length: of the run.

  Raises:
    UserError: a regex is invalid, or matches no parameter's name; or as `make_optimizer`.
  """
  turns = config.frozen if config.alternate else ()
  names = jax.tree.leaves(parameter_names(variables["params"]))
  for pattern in (pattern for turn in turns for pattern in turn):
    try:
      found = any(re.search(pattern, name) for name in names)
    except (re.error, TypeError) as error:
      raise UserError(f"config.phases.frozen: {pattern!r} is not a valid regex ({error})") from None
    if not found:
      raise UserError(f"config.phases.frozen: {pattern!r} matches no parameter's name, such as {names[0]}")

  def phase(frozen: Sequence[str]) -> Phase:
    groups = (*((pattern, None) for pattern in frozen), *optim.lr_groups)
    own = dataclasses.replace(optim, lr_groups=groups)
    return Phase(make_optimizer(own, variables["params"], bool(turns)), *frozen_statistics(own, variables))

  return Phases(
    tuple(phase(frozen) for frozen in (*turns, ())),
    until=round(config.alternate * length.total_steps),
    period=max(1, round(config.period * length.steps_per_epoch)),
  )
