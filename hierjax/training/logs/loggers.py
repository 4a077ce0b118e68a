"""Where metrics go besides metrics.jsonl and the console: TensorBoard, Weights & Biases, and code of others."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from hierjax import extras
from hierjax.config import lookup_or_import
from hierjax.errors import UserError
from hierjax.runs.folder import RunFolder, write_whole

Config = Mapping[str, Any]

DEFAULT = ("console", "jsonl", "tensorboard")


@runtime_checkable
class Logger(Protocol):
  """A writer of metrics."""

  def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes the metrics of a split at a step, by name."""

  def close(self) -> None:
    """Writes what is left."""


def check_loggers(names: Sequence[str]) -> None:
  """Raises UserError for `config.loggers` with a name that there is not, twice the same, or without `jsonl`."""
  if "jsonl" not in names:
    raise UserError(
      f"config.loggers = {tuple(names)}: jsonl must be among them: metrics.jsonl is the record of the run, which "
      "resuming, `report` and the loggers after a break read"
    )
  for name in names:
    if name not in _BUILT_IN:
      lookup_or_import({**dict.fromkeys(_BUILT_IN), **LOGGERS}, name, "loggers")
    if list(names).count(name) > 1:
      raise UserError(f"config.loggers = {tuple(names)}: {name} is there twice")
  if "wandb" in names:
    extras.require("wandb")


def opened(names: Sequence[str], run: RunFolder, config: Config, start_step: int) -> list[Logger]:
  """Returns the loggers of these names, but for `console` and `jsonl`, which `MetricsLog` has itself.

  Raises:
    UserError: one of them cannot start.
  """
  makers = [lookup_or_import(LOGGERS, name, "loggers") for name in names if name not in _BUILT_IN]
  found = [make(run, config, start_step) for make in makers]
  return [logger for logger in found if logger is not None]


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
  """Returns metrics as numbers by name; those of levels get the number of the level, those without a value are left."""
  flat: dict[str, float] = {}
  for name, value in metrics.items():
    if isinstance(value, list):
      flat.update({f"{name}/{i + 1}": float(v) for i, v in enumerate(value) if v is not None})
    elif value is not None:
      flat[name] = float(value)
  return flat


# TensorBoard.


class TensorBoard:
  """Events in the run's folder, by tensorboardX; on a full disk training goes on without it."""

  def __init__(self, run: RunFolder, start_step: int):
    """Opens the files; events after `start_step` no longer count."""
    from tensorboardX import SummaryWriter

    self._events: Any = SummaryWriter(str(run.tensorboard), purge_step=start_step + 1, max_queue=1000)

  def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes the metrics of a split at a step."""
    if _lost_events and self._events is not None:
      print(f"training goes on without TensorBoard: {_lost_events[0]}", file=sys.stderr, flush=True)
      self._events = None
    if self._events is not None:
      for name, value in values.items():
        self._events.add_scalar(f"{split}/{name}", value, step)

  def close(self) -> None:
    """Writes what is left."""
    with contextlib.suppress(OSError):  # of a full disk, which metrics.jsonl has said
      if self._events is not None and not _lost_events:
        self._events.close()


def tensorboard(run: RunFolder, config: Config, start_step: int) -> TensorBoard | None:
  """Returns the logger; None, and a line that says so, without tensorboardX."""
  if extras.missing("tensorboard"):
    print(f"metrics go to {run.metrics} alone; for TensorBoard events: {extras.command('tensorboard')}", flush=True)
    return None
  return TensorBoard(run, start_step)


_report_of_thread = threading.excepthook
_lost_events: list[str] = []  # errors of TensorBoard's writers, which have ended: their queues would block


def _report_others(failure: threading.ExceptHookArgs) -> None:
  """Reports an error of a thread, but for a full disk that TensorBoard's writer meets: training goes on without it."""
  if isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboardX"):
    _lost_events.append(str(failure.exc_value))
  else:
    _report_of_thread(failure)


threading.excepthook = _report_others


# Weights & Biases.


class WandB:
  """A run of Weights & Biases, which a resumed run goes on with; WANDB_MODE=offline keeps it in the run's folder.

  WANDB_PROJECT, WANDB_ENTITY and the other variables of wandb hold; the project is `hierjax` by default.
  """

  def __init__(self, run: RunFolder, config: Config):
    """Starts it; raises UserError where wandb does not."""
    import wandb

    self._file = run.path / "wandb-run"
    try:
      self._run: Any = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "hierjax"),
        name=run.path.name,
        id=self._identity(),
        resume="allow",
        dir=str(run.path),
        config=dict(config),
      )
    except Exception as error:
      raise UserError(
        f"config.loggers: wandb does not start ({error}): `wandb login`, or WANDB_MODE=offline, which keeps the "
        f"metrics in {run.path}"
      ) from None

  def _identity(self) -> str:
    """Returns the name of this run at Weights & Biases; drawn when it begins."""
    if not self._file.exists():
      write_whole(self._file, secrets.token_hex(8) + "\n")
    return self._file.read_text(encoding="utf-8").strip()

  def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes the metrics of a split at a step; after an error training goes on without it, and says so."""
    if self._run is not None:
      self._try(lambda: self._run.log({f"{split}/{name}": value for name, value in values.items()}, step=step))

  def close(self) -> None:
    """Sends what is left."""
    if self._run is not None:
      self._try(self._run.finish)

  def _try(self, function: Callable[[], Any]) -> None:
    try:
      function()
    except Exception as error:  # of a network or a server of others: it is no reason to lose a training
      print(f"training goes on without wandb: {error}", file=sys.stderr, flush=True)
      self._run = None


def wandb(run: RunFolder, config: Config, start_step: int) -> WandB:
  """Returns the logger."""
  extras.require("wandb")
  return WandB(run, config)


_BUILT_IN = ("console", "jsonl")
LOGGERS: Mapping[str, Callable[[RunFolder, Config, int], Logger | None]] = {"tensorboard": tensorboard, "wandb": wandb}
