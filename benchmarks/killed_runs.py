"""Kills of training runs, and evaluations beside them: rows of the table of `benchmarks/faults.py`.

A run is killed up to three times, is started again each time, and must end in the same bits as one that nothing killed:
all arrays of its last checkpoint, its losses and the metrics of its evaluation. Of two processes one is killed, and the
other must end by itself, with its status and its sentence.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.peers import LOST
from hierjax.runs.run import Run

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
_KILLS = 3  # of a run
_OTHERS_S = 60  # until the other process has ended, on a machine with other work
_LONGEST_S = 600  # of a run

# Modules are imported once, by a server that each process is forked from.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["benchmarks.killed_runs", "hierjax.cli.main", "hierjax.training.loop.run"])


def train(words: Sequence[str], log: Path) -> None:
  """Runs `hierjax train` in this process, its output in a file."""
  file = log.open("w")
  os.dup2(file.fileno(), 1)
  os.dup2(file.fileno(), 2)
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  jax.config.update("jax_compilation_cache_dir", str(log.parents[1] / "programs"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(log.parents[1] / "programs")
  os.environ["JAX_NUM_CPU_DEVICES"] = "1"
  os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiling takes longer than these runs
  os.environ["XDG_CACHE_HOME"] = str(log.parents[1] / "cache")
  sys.exit(main(["train", *words]))


class Started:
  """The processes of a run.

  Attributes:
    folder: of the run.
    processes: the processes.
  """

  def __init__(self, config: str, folder: Path, count: int, values: Sequence[str] = _VALUES):
    self.folder = folder
    words = [f"--config={_CONFIGS / config}", f"--workdir={folder / 'run'}", *(f"--config.{v}" for v in values)]
    address, self.processes = f"127.0.0.1:{_free_port()}", []
    for number in range(count):
      joined = [f"--multihost={address},{count},{number}"] if count > 1 else []
      process = _SERVER.Process(target=train, args=([*words, *joined], folder / f"log-{number}"))
      process.start()
      self.processes.append(process)

  def said(self, number: int) -> str:
    """Returns what a process has printed."""
    log = self.folder / f"log-{number}"
    return log.read_text(errors="replace") if log.exists() else ""

  def wait(self, seconds: float) -> list[int | None]:
    """Waits for all processes, that long together, and returns their statuses; None of one that goes on."""
    end = time.monotonic() + seconds
    for process in self.processes:
      process.join(max(0.0, end - time.monotonic()))
    return [process.exitcode for process in self.processes]

  def kill(self, numbers: Sequence[int]) -> None:
    """Kills some of the processes."""
    for number in numbers:
      self.processes[number].kill()
      self.processes[number].join()


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


def kills_of(config: str, processes: int = 1) -> Callable[[Path, Rng], Iterator[str]]:
  """Returns the fault that runs of a config, such as `quickstart.py:smoke`, are killed; a result for each kill."""

  def kills(folder: Path, rng: Rng) -> Iterator[str]:
    (folder / "whole").mkdir()
    begin = time.monotonic()
    statuses = Started(config, folder / "whole", processes).wait(_LONGEST_S)
    seconds = time.monotonic() - begin
    assert not any(statuses), statuses
    reference = ends_of(folder / "whole")
    for number in itertools.count():
      (own := folder / str(number)).mkdir()
      results = list(itertools.islice(_killed(config, own, processes, seconds, rng), _KILLS))
      last = Started(config, own, processes)
      statuses = last.wait(_LONGEST_S)
      wrong = [f"statuses {statuses}"] if any(statuses) else unequal(ends_of(own), reference)
      if wrong:
        _tell(f"not as without kills: {', '.join(wrong)}", last)
      yield from ("wrong" if wrong else result for result in results)

  return kills


def _killed(config: str, folder: Path, processes: int, seconds: float, rng: Rng) -> Iterator[str]:
  """Kills the processes of a run after up to so many seconds, and yields what became of the others, until it ends."""
  while True:
    run = Started(config, folder, processes)
    if None not in run.wait(rng.uniform(0.0, seconds)):
      return
    if processes == 1 or "passes over" not in run.said(0) or None not in run.wait(2.0):
      run.kill(range(processes))  # before they have begun, a process waits for the others
      yield "unharmed"
      continue
    killed = int(rng.integers(2))  # the first process coordinates both
    other = 1 - killed
    run.kill([killed])
    status = run.wait(_OTHERS_S)[other]
    finished = "path accuracy" in run.said(0) or "trained" in run.said(0)
    left = status == LOST and "goes on from" in run.said(other)
    run.kill(range(processes))
    result = "noticed" if left else "unharmed" if finished and status == 0 else "wrong"
    if result == "wrong":
      _tell(f"process {killed} was killed, and the other has the status {status}", run, other)
    yield result


def _tell(what: str, run: Started, process: int = 0) -> None:
  """Prints what is wrong with a run, and the end of what a process of it printed."""
  print(f"{run.folder}: {what}\n{run.said(process)[-2000:]}", file=sys.stderr, flush=True)


def evaluations(folder: Path, rng: Rng) -> Iterator[str]:
  """Reads the weights that count beside a training that saves after each step, and every 20th time evaluates them."""
  del rng
  os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # `evaluate` runs in this process, which has its devices already
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
    training.kill([0])


def _read(run: Run, folder: RunFolder) -> str:
  try:
    run.restored_variables(folder, devices.data_mesh())
  except UserError:
    return "wrong"
  return "unharmed"


RUNS: dict[str, Callable[[Path, Rng], Iterator[str]]] = {
  "reading and evaluating beside a training": evaluations,
  "kill -9 of one of two processes of a run": kills_of("quickstart.py:smoke", processes=2),
  "kill -9 of a run: CNN-RNN": kills_of("quickstart.py:smoke"),
  "kill -9 of a run: merged networks": kills_of("merged_cifar100.py:smoke"),
  "kill -9 of a run: DHNN": kills_of("dhnn_shapes.py:smoke"),
  "kill -9 of a run: C-HRNN": kills_of("chrnn_cifar100.py:smoke"),
}
