"""The log of a run's metrics, of all its loggers; and the rate of training images."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from hierjax.disk import said_where_full, when_there_is_room
from hierjax.runs.folder import RunFolder
from hierjax.training.logs.console import Console, Progress
from hierjax.training.logs.loggers import DEFAULT, opened, scalars


class MetricsLog:
  """Writer of metrics by step; only the first process of a run writes, and only while steps are left.

  metrics.jsonl is the record of the run, which resuming and the page of `report` read: it is written in any case.
  """

  def __init__(
    self,
    run: RunFolder,
    progress: Progress,
    loggers: Sequence[str] = DEFAULT,
    config: Mapping[str, Any] | None = None,
  ):
    """Opens the files; metrics of steps after the first, which an earlier process wrote, are removed.

    Args:
      run: the run's folder.
      progress: of the run, with the step that it begins at.
      loggers: `config.loggers`.
      config: the resolved config, for loggers that keep it.
    """
    self._writes = jax.process_index() == 0 and progress.start_step < progress.total_steps
    if not self._writes:
      return
    run.cut_metrics(progress.start_step)
    self._others = opened(loggers, run, config or {}, progress.start_step)
    self._path = run.metrics
    self._file = run.metrics.open("a", encoding="utf-8")
    lines = [json.loads(line) for line in run.metric_lines()]
    self._console = Console(progress, lines) if "console" in loggers else None

  def advance(self) -> None:
    """Counts one training step."""
    if self._writes and self._console:
      self._console.advance()

  def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics of a split at a step."""
    if not self._writes:
      return
    line = json.dumps({"step": step, "split": split, **metrics}) + "\n"
    self._file.write(line)
    when_there_is_room(partial(self._flush, len(line)))
    flat = scalars(metrics)
    for other in self._others:
      other.write(step, split, flat)
    if self._console:
      self._console.write(step, split, flat)

  def _flush(self, needed: int) -> None:
    with said_where_full(self._path, needed):  # what could not be written stays in the buffer
      self._file.flush()

  def close(self) -> None:
    """Closes the files and the bar."""
    if self._writes:
      if self._console:
        self._console.close()
      for other in self._others:
        other.close()
      with contextlib.suppress(OSError):  # of a full disk, which `write` has said
        self._file.close()


class ImageRate:
  """Training images a second since the last log line; pauses do not count."""

  def __init__(self, batch_size: int, step: int, clock: Callable[[], float] = time.perf_counter):
    """Starts at a step.

    Args:
      batch_size: images of a step.
      step: the number of steps done.
      clock: returns the time in seconds.
    """
    self._batch_size = batch_size
    self._clock = clock
    self.restart(step)

  def restart(self, step: int) -> None:
    """Counts images and seconds from now on, after `step` steps."""
    self._step, self._since = step, self._clock()

  def per_second(self, step: int) -> float:
    """Returns the rate since the last start, after `step` steps."""
    return (step - self._step) * self._batch_size / (self._clock() - self._since)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time within the context out."""
    start = self._clock()
    yield
    self._since += self._clock() - start
