"""The progress of training on the console: a bar in a terminal, a line every now and then elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tqdm import tqdm

from hierjax.runs.estimate import duration

_EVERY_S = 10.0  # between two lines about training where there is no bar; those about validation are all printed
_SHOWN = ("loss", "lr", "images_per_second", "path_accuracy", "path_f1", "leaf_top1")
_BEST = {"path_accuracy": "path accuracy", "path_f1": "path F1"}  # the metrics by which the best weights are chosen


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far a run goes.

  Attributes:
    total_steps: of the run.
    batch_size: images of a step.
    start_step: the steps that are done when it begins.
    steps_per_epoch: need not be whole.
  """

  total_steps: int
  batch_size: int
  start_step: int = 0
  steps_per_epoch: float = 1.0

  def epoch(self, step: int) -> str:
    """Returns the epoch of a step, and the number of epochs."""
    whole = self.total_steps / self.steps_per_epoch
    return f"epoch {step / self.steps_per_epoch:.1f} of {whole:.{0 if abs(whole - round(whole)) < 0.05 else 1}f}"


class Console:
  """Progress with the epoch, the time that is left, and the best metric on validation so far."""

  def __init__(
    self, progress: Progress, before: Iterable[Mapping[str, Any]] = (), clock: Callable[[], float] = time.monotonic
  ):
    """Shows the bar, where there is a terminal.

    Args:
      progress: of the run.
      before: the lines of metrics.jsonl that an earlier process wrote.
      clock: returns the time in seconds.
    """
    self._progress, self._clock = progress, clock
    self._start, self._said, self._step = clock(), -_EVERY_S, progress.start_step
    self._best: tuple[str, float] | None = None
    for line in before:
      self._judge(line)
    # disable=None: no bar where the output is not a terminal.
    self._bar = tqdm(
      total=progress.total_steps * progress.batch_size,
      initial=progress.start_step * progress.batch_size,
      desc=progress.epoch(progress.start_step),
      unit="img",
      unit_scale=True,
      dynamic_ncols=True,
      disable=None,
    )

  def advance(self) -> None:
    """Counts one training step."""
    self._step += 1
    if not self._bar.disable:
      self._bar.set_description_str(self._progress.epoch(self._step), refresh=False)
      self._bar.update(self._progress.batch_size)

  def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Shows the metrics of a split at a step."""
    if split != "train":
      self._judge({"split": split, **values})
    elif not self._bar.disable:
      self._bar.set_postfix_str("  ".join([f"loss {values['loss']:.3f}", *self._best_text()]))
      return
    elif not self._due(step):
      return
    shown = "  ".join(f"{name} {values[name]:.4g}" for name in _SHOWN if name in values)
    where = ", ".join([self._progress.epoch(step), *self._left(step)])
    tqdm.write("  ".join([f"step {step} ({where})  {split}: {shown}", *self._best_text()]))

  def close(self) -> None:
    """Closes the bar."""
    self._bar.close()

  def _judge(self, line: Mapping[str, Any]) -> None:
    """Keeps the best metric on validation."""
    for name in _BEST:
      value = line.get(name) if line.get("split") == "validation" else None
      if value is not None and (self._best is None or value >= self._best[1]):
        self._best = name, value

  def _best_text(self) -> list[str]:
    return [f"best {_BEST[self._best[0]]} {self._best[1]:.2%}"] if self._best else []

  def _left(self, step: int) -> list[str]:
    """Returns how long the rest takes at the mean speed so far, validation included; nothing at the start and end."""
    done, left = step - self._progress.start_step, self._progress.total_steps - step
    seconds = (self._clock() - self._start) / max(done, 1) * left
    return [f"{duration(seconds)} left"] if done > 1 and left > 0 else []

  def _due(self, step: int) -> bool:
    """Returns whether a line about training is due; the last one is in any case."""
    now = self._clock()
    if now - self._said < _EVERY_S and step < self._progress.total_steps:
      return False
    self._said = now
    return True
