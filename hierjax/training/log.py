"""The log of a run's metrics: metrics.jsonl, TensorBoard and the console; and the rate of training images."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from tqdm import tqdm

from hierjax import extras
from hierjax.disk import said_where_full
from hierjax.runs.folder import RunFolder


class MetricsLog:
  """Writer of metrics by step; only the first process of a run writes, and only while steps are left."""

  def __init__(self, run: RunFolder, total_steps: int, batch_size: int, start_step: int = 0):
    """Opens the files; metrics of steps after `start_step`, which an earlier process wrote, are removed."""
    self._batch_size = batch_size
    self._writes = jax.process_index() == 0 and start_step < total_steps
    if not self._writes:
      return
    run.cut_metrics(start_step)
    self._path = run.metrics
    self._file = run.metrics.open("a", encoding="utf-8")
    self._events = _event_writer(run, start_step)
    # disable=None: no bar where the output is not a terminal; `write` prints lines there.
    self._bar = tqdm(
      total=total_steps * batch_size,
      initial=start_step * batch_size,
      unit="img",
      unit_scale=True,
      dynamic_ncols=True,
      disable=None,
    )

  def advance(self) -> None:
    """Counts one training step."""
    if self._writes:
      self._bar.update(self._batch_size)

  def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics of a split at a step."""
    if not self._writes:
      return
    line = json.dumps({"step": step, "split": split, **metrics}) + "\n"
    with said_where_full(self._path, len(line)):
      self._file.write(line)
      self._file.flush()
    flat = _scalars(metrics)
    if _lost_events:
      self._events = None
    if self._events is not None:
      for name, value in flat.items():
        self._events.add_scalar(f"{split}/{name}", value, step)
    line = "  ".join(f"{name} {value:.4g}" for name, value in flat.items() if name in _SHOWN)
    if split == "train" and not self._bar.disable:
      self._bar.set_postfix_str(f"loss {flat['loss']:.3f}")
    else:
      tqdm.write(f"step {step}  {split}: {line}")

  def close(self) -> None:
    """Closes the files and the bar."""
    if self._writes:
      self._bar.close()
      with contextlib.suppress(OSError):  # of a full disk, which `write` has said
        if self._events is not None and not _lost_events:
          self._events.close()
      with contextlib.suppress(OSError):
        self._file.close()


_report_of_thread = threading.excepthook
_lost_events: list[str] = []  # errors of TensorBoard's writers, which have ended: their queues would block


def _report_others(failure: threading.ExceptHookArgs) -> None:
  """Reports an error of a thread, but for a full disk that TensorBoard's writer meets: training goes on without it."""
  if isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboardX"):
    _lost_events.append(str(failure.exc_value))
  else:
    _report_of_thread(failure)


threading.excepthook = _report_others


def _event_writer(run: RunFolder, start_step: int) -> Any:
  """Returns a writer of TensorBoard events from a step on; None, and a line that says so, without tensorboardX."""
  if extras.missing("tensorboard"):
    print(f"metrics go to {run.metrics} alone; for TensorBoard events: {extras.command('tensorboard')}", flush=True)
    return None
  from tensorboardX import SummaryWriter

  return SummaryWriter(str(run.tensorboard), purge_step=start_step + 1, max_queue=1000)


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


_SHOWN = {"loss", "lr", "images_per_second", "path_accuracy", "path_f1", "leaf_top1"}


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
  flat: dict[str, float] = {}
  for name, value in metrics.items():
    if isinstance(value, list):
      flat.update({f"{name}/{i + 1}": float(v) for i, v in enumerate(value) if v is not None})
    elif value is not None:
      flat[name] = float(value)
  return flat
