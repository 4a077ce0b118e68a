"""Kills and signals of training runs, and evaluations beside them: rows of the table of `benchmarks/faults.py`.

A run is stopped up to three times, is started again each time, and must end in the same bits as one that nothing
stopped: all arrays of its last checkpoint, its losses and the metrics of its evaluation. Of two processes one is killed
or frozen, and the other must end by itself, with its status and its sentence. A signal that a run is sent while it
trains must save.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.peers import LOST
from hierjax.runs.run import Run
from hierjax.training.loop import start

Rng = np.random.Generator

_CONFIGS = Path(__file__).parents[1] / "configs"
_VALUES = (
  "checkpoint_every=0.15",
  "eval_every=0.5",
  "log_every=1",
  "epochs=3",
  "calibrate=False",
  "loggers=('jsonl',)",
)
_STOPS = 3  # of a run
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_OTHERS_S = 60  # until the other process has ended, on a machine with other work
_LONGEST_S = 600  # of a run

# Modules are imported once, by a server that each process is forked from.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["benchmarks.killed_runs", "hierjax.cli.main", "hierjax.training.loop.run"])


def train(words: Sequence[str], log: Path, place: Path, version: str) -> None:
  """Runs `hierjax train` in this process and a folder, its output in a file; with another version of jax, if given."""
  for number in _SIGNALS:  # as a terminal has them, and not a shell that runs in the background
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
  file = log.open("w")
  os.dup2(file.fileno(), 1)
  os.dup2(file.fileno(), 2)
  os.chdir(place)
  if version:
    versions = start.versions()
    start.versions = lambda: versions | {"jax": version}
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  jax.config.update("jax_compilation_cache_dir", str(log.parents[1] / "programs"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(log.parents[1] / "programs")
  os.environ["JAX_NUM_CPU_DEVICES"] = "1"
  os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiling takes longer than these runs
  os.environ["XDG_CACHE_HOME"] = str(log.parents[1] / "cache")
  sys.exit(main(["train", *words]))


class Differing(NamedTuple):
  """What a process has that is not as the first one has it.

  Attributes:
    values: of its config.
    place: where it runs, so that relative names of folders are others; None for the folder of the run.
    version: of jax, as it says; '' for its own.
  """

  values: tuple[str, ...] = ()
  place: Path | None = None
  version: str = ""


class Started:
  """The processes of a run.

  Attributes:
    folder: of the run.
    processes: the processes.
  """

  def __init__(
    self, config: str, folder: Path, count: int, values: Sequence[str] = _VALUES, differing: Differing | None = None
  ):
    """Starts them, in a folder where they run and write; `differing` is of all but the first."""
    self.folder = folder
    address, self.processes = f"127.0.0.1:{_free_port()}", []
    for number in range(count):
      own = differing if number and differing else Differing()
      words = [f"--config={_CONFIGS / config}", "--workdir=run", *(f"--config.{v}" for v in (*values, *own.values))]
      words += [f"--multihost={address},{count},{number}"] if count > 1 else []
      (log := folder / f"log-{number}").unlink(missing_ok=True)  # of an earlier start
      arguments = (words, log, own.place or folder, own.version)
      process = _SERVER.Process(target=train, args=arguments)
      process.start()
      self.processes.append(process)

  def said(self, number: int) -> str:
    """Returns what a process has printed."""
    log = self.folder / f"log-{number}"
    return log.read_text(errors="replace") if log.exists() else ""

  def until_training(self) -> bool:
    """Waits for the first of the processes to say that all begin to train, and returns whether it did."""
    end = time.monotonic() + _LONGEST_S
    while None in self.wait(0.05) and time.monotonic() < end:
      if "passes over" in self.said(0):
        return True
    return False

  def wait(self, seconds: float) -> list[int | None]:
    """Waits for all processes, that long together, and returns their statuses; None of one that goes on."""
    end = time.monotonic() + seconds
    for process in self.processes:
      process.join(max(0.0, end - time.monotonic()))
    return [process.exitcode for process in self.processes]

  def send(self, process: int, number: int) -> None:
    """Sends a process a signal, if it has not ended."""
    if self.processes[process].is_alive():
      os.kill(self.processes[process].pid or 0, number)

  def kill(self) -> None:
    """Kills all processes."""
    for process in self.processes:
      process.kill()
      process.join()


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port: int = s.getsockname()[1]
    return port


def ends_of(folder: Path) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
  """Returns the arrays of a run's last checkpoint, its losses, and the metrics of its evaluation."""
  run = RunFolder(folder / "run")
  step, checkpointer = run.newest_step(), ocp.StandardCheckpointer()
  arrays = {item: checkpointer.restore(run.checkpoints / str(step) / item) for item in ("model", "training")}
  lines = map(json.loads, run.metrics.read_text().splitlines())
  losses = [(line["step"], line["split"], line["loss"]) for line in lines]
  metrics = json.loads((run.path / "eval" / "test.json").read_text())
  metrics["data"].pop("root", None)
  return {"step": step} | arrays, losses, metrics


def unequal(ends: Any, others: Any) -> list[str]:
  """Returns the names of what is not equal to the bit in two results of `ends_of`."""
  (arrays, *texts), (other_arrays, *other_texts) = ends, others
  alike = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), arrays, other_arrays)
  equal = (all(jax.tree.leaves(alike)), *(a == b for a, b in zip(texts, other_texts, strict=True)))
  return [name for name, right in zip(("checkpoint", "losses", "metrics"), equal, strict=True) if not right]


Stops = Callable[[str, Path, Rng, float], Iterator[str]]


def stops_of(config: str, stopped: Stops, processes: int = 1) -> Callable[[Path, Rng], Iterator[str]]:
  """Returns the fault that runs of a config, such as `quickstart.py:smoke`, are stopped; a result for each time."""

  def stops(folder: Path, rng: Rng) -> Iterator[str]:
    (folder / "whole").mkdir()
    begin, whole = time.monotonic(), Started(config, folder / "whole", processes)
    if processes > 1 and whole.until_training():
      begin = time.monotonic()
    statuses = whole.wait(_LONGEST_S)
    seconds = time.monotonic() - begin
    assert not any(statuses), statuses
    reference = ends_of(folder / "whole")
    for number in itertools.count():
      (own := folder / str(number)).mkdir()
      results = list(itertools.islice(stopped(config, own, rng, seconds), _STOPS))
      last = Started(config, own, processes)
      statuses = last.wait(_LONGEST_S)
      wrong = [f"statuses {statuses}"] if any(statuses) else unequal(ends_of(own), reference)
      if wrong:
        tell(f"not as if nothing had stopped it: {', '.join(wrong)}", last)
      yield from ["wrong"] * max(1, len(results)) if wrong else results

  return stops


def _signalled(config: str, folder: Path, rng: Rng, seconds: float) -> Iterator[str]:
  """Sends a run a signal after up to so many seconds, and yields whether it saved, until it ends."""
  last_step = RunFolder(folder.parent / "whole" / "run").newest_step()
  while True:
    run, kept = Started(config, folder, 1), RunFolder(folder / "run")
    if None not in run.wait(rng.uniform(0.0, seconds)):
      return
    number = _SIGNALS[int(rng.integers(len(_SIGNALS)))]
    run.send(0, number)
    (status,) = run.wait(_LONGEST_S)  # the step may have to be compiled first
    said = re.search(r"^stopped at step (\d+) of", run.said(0), re.M)
    steps = [json.loads(line)["step"] for line in kept.metric_lines()]
    if said:
      result = "noticed" if (status, int(said[1])) == (128 + number, kept.newest_step()) else "wrong"
    else:  # it ended without saving, before its first step or after its last, or had taken the last one
      lost = max(steps, default=0) > (kept.newest_step() or 0) and max(steps, default=0) != last_step
      result = "wrong" if lost or status not in (0, -number, 128 + signal.SIGINT) else "unharmed"
    if result == "wrong":
      tell(f"signal {number}: status {status}, the newest checkpoint is of step {kept.newest_step()}", run)
    run.send(0, signal.SIGKILL)
    yield result


def _one_of_two(config: str, folder: Path, rng: Rng, seconds: float, number: int) -> Iterator[str]:
  """Kills or freezes a process up to so many seconds after both began, and yields what became of the other."""
  while True:
    run = Started(config, folder, 2)  # before they have begun, a process waits for the others
    if not run.until_training() or None not in run.wait(rng.uniform(0.0, seconds)):
      statuses = run.wait(0.0)
      if statuses != [0, 0]:  # None: it neither trains nor ends
        tell(f"statuses {statuses} of processes that nothing has stopped", run)
        run.kill()
        yield "wrong"
      return
    stopped = int(rng.integers(2))  # the first process coordinates both
    other = 1 - stopped
    run.send(stopped, number)
    run.processes[other].join(_OTHERS_S)
    status = run.processes[other].exitcode
    finished = "path accuracy" in run.said(0) or "trained" in run.said(0)
    left = status == LOST and "goes on from" in run.said(other) and "@     0x" not in run.said(other)
    run.kill()
    result = "noticed" if left else "unharmed" if finished and status == 0 else "wrong"
    if result == "wrong":
      tell(f"process {stopped} got signal {number}, and the other has the status {status}", run, other)
    yield result


def _killed(config: str, folder: Path, rng: Rng, seconds: float) -> Iterator[str]:
  """Kills a run after up to so many seconds, until it ends."""
  while None in (run := Started(config, folder, 1)).wait(rng.uniform(0.0, seconds)):
    run.kill()
    yield "unharmed"


def tell(what: str, run: Started, process: int = 0) -> None:
  """Prints what is wrong with a run, and the end of what a process of it printed."""
  print(f"{run.folder}: {what}\n{run.said(process)[-2000:]}", file=sys.stderr, flush=True)


def evaluations(folder: Path, rng: Rng) -> Iterator[str]:
  """Reads the weights that count beside a training that saves after each step, and every 20th time evaluates them."""
  del rng
  values = (*_VALUES, "epochs=1000", "checkpoint_every=0.01", "eval_every=0.01")
  training, run_folder = Started("quickstart.py:smoke", folder, 1, values), RunFolder(folder / "run")
  try:
    while run_folder.newest_step() is None and training.wait(0.1) == [None]:
      pass
    run, words = Run.from_folder(run_folder), ["evaluate", str(run_folder.path), "--split", "validation"]
    for number in itertools.count():
      if number % 20 == 19:
        with contextlib.redirect_stdout(io.StringIO()):
          yield "unharmed" if main(words) == 0 else "wrong"
      else:
        yield _read(run, run_folder)
      assert training.wait(0.0) == [None], training.said(0)
  finally:
    training.kill()


def _read(run: Run, folder: RunFolder) -> str:
  try:
    run.restored_variables(folder, devices.data_mesh())
  except UserError:
    return "wrong"
  return "unharmed"


RUNS: dict[str, Callable[[Path, Rng], Iterator[str]]] = {
  "reading and evaluating beside a training": evaluations,
  "kill -9 of one of two processes of a run": stops_of(
    "quickstart.py:smoke", functools.partial(_one_of_two, number=signal.SIGKILL), 2
  ),
  "SIGSTOP to one of two processes of a run": stops_of(
    "quickstart.py:smoke", functools.partial(_one_of_two, number=signal.SIGSTOP), 2
  ),
  "another signal to a run": stops_of("quickstart.py:smoke", _signalled),
  "kill -9 of a run: CNN-RNN": stops_of("quickstart.py:smoke", _killed),
  "kill -9 of a run: merged networks": stops_of("merged_cifar100.py:smoke", _killed),
  "kill -9 of a run: DHNN": stops_of("dhnn_shapes.py:smoke", _killed),
  "kill -9 of a run: C-HRNN": stops_of("chrnn_cifar100.py:smoke", _killed),
}
