"""Faults, tried at random: what they did, as the table of docs/reference/reliability.md.

  python -m benchmarks.faults --minutes 75 --seed 0
  python -m benchmarks.faults --minutes 60 --most 12 --only 'of a run'

Kinds that start whole runs get six times the time of the others. A fault is `noticed` where it is refused, reported or
made good, `unharmed` where it makes no difference, such as where what is read is bit for bit what was written, and
`wrong` where it is anything else. With a seed the faults are the same, as many as there is time for; kills come at
other moments.

Kinds of faults are here, of checkpoints and caches; in `changed_images.py`, `foreign_files.py`,
`differing_processes.py` and `killed_runs.py`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from absl import logging

from benchmarks.changed_images import CHANGED_IMAGES
from benchmarks.damage import damaged, flipped, flipped_or_damaged
from benchmarks.differing_processes import DIFFERING
from benchmarks.foreign_files import FOREIGN_FILES
from benchmarks.killed_runs import RUNS
from hierjax import disk
from hierjax.data.images import cache
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints, VanishedCheckpoint, template

Rng = np.random.Generator

_WIDTH = 20_000  # weights of a checkpoint


def state(step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns the two items of a checkpoint, which its step determines."""
  rng = np.random.default_rng(step)
  weights = rng.normal(size=_WIDTH).astype(np.float32)
  return {"w": weights}, {"step": np.int32(step), "momentum": rng.normal(size=_WIDTH).astype(np.float32)}


def shapes() -> list[object]:
  """Returns the templates of both items."""
  whole = devices.replicated(devices.data_mesh())
  return [template(part, whole) for part in state(0)]


def is_right(model: dict[str, jax.Array], training: dict[str, jax.Array], step: int) -> bool:
  """Returns whether both items are bit for bit those of a step."""
  found, wanted = jax.device_get((model, training)), state(step)
  return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))


def save(folder: Path, steps: list[int]) -> None:
  """Writes checkpoints whose scores fall."""
  with closing(Checkpoints(folder, select_best=True, create=True)) as checkpoints:
    for step in steps:
      checkpoints.save(step, *state(step), score=1 / step)


def outcome(folder: Path, step: int) -> str:
  """Returns what reading the newest checkpoint, which was of `step`, gives."""
  with closing(Checkpoints(folder, select_best=True)) as checkpoints:
    if checkpoints.latest != step:
      return "noticed"
    try:
      return "unharmed" if is_right(*checkpoints.restore(step, *shapes()), step) else "wrong"
    except UserError:
      return "noticed"


def files_of(folder: Path, rng: Rng) -> tuple[Path, bytes]:
  """Returns a file of a checkpoint, any one or one of the two largest, and its bytes."""
  files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (-p.stat().st_size, p))
  file = files[int(rng.integers(2 if rng.random() < 0.5 else len(files)))]
  return file, file.read_bytes()


def bits_of_checkpoints(folder: Path, rng: Rng) -> Iterator[str]:
  """Flips a bit of any file of the newest checkpoint."""
  yield from _changed_files(folder, rng, flipped)


def damage_of_checkpoints(folder: Path, rng: Rng) -> Iterator[str]:
  """Damages any file of the newest checkpoint."""
  yield from _changed_files(folder, rng, damaged)


def _changed_files(folder: Path, rng: Rng, change: Callable[[bytes, Rng], bytes]) -> Iterator[str]:
  save(folder, [3, 6, 9])
  while True:
    file, data = files_of(folder / "9", rng)
    if data:
      file.write_bytes(change(data, rng))
      yield outcome(folder, 9)
      file.write_bytes(data)


def going_on(folder: Path, rng: Rng) -> Iterator[str]:
  """Damages the newest checkpoint, and goes on from the one before."""
  for number in itertools.count():
    own = folder / str(number)
    save(own, [3, 6, 9])
    file, data = files_of(own / "9" / "training", rng)
    file.write_bytes(damaged(data or b"x", rng))
    (own / "999").mkdir()
    with closing(Checkpoints(own, select_best=True, create=True)) as checkpoints:
      model, training, lines = checkpoints.restore_latest(*shapes())
      step = int(training["step"])
      right = is_right(model, training, step) and step == (6 if lines else 9) and checkpoints.latest == step
    yield ("noticed" if lines else "unharmed") if right else "wrong"


def kills(folder: Path, rng: Rng) -> Iterator[str]:
  """Kills a process that saves, at any moment, and reads what it has left."""
  for number in itertools.count():
    own = folder / str(number)
    command = [sys.executable, "-m", "benchmarks.faults", "--save-in", str(own)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    saved = [int(process.stdout.readline()) for _ in range(2)]
    time.sleep(rng.random())
    process.send_signal(signal.SIGKILL)
    saved += [int(line) for line in process.communicate()[0].split()]
    with closing(Checkpoints(own, select_best=True, create=True)) as checkpoints:
      model, training, lines = checkpoints.restore_latest(*shapes())
      step = int(training["step"])
    yield "unharmed" if not lines and step >= saved[-1] and is_right(model, training, step) else "wrong"


def save_forever(folder: Path) -> None:
  """Saves one step after the other, and prints each that has reached the disk."""
  with closing(Checkpoints(folder, select_best=False, create=True)) as checkpoints:
    for step in itertools.count(1):
      checkpoints.save(step, *state(step))
      checkpoints.wait()
      print(step, flush=True)


def full_disk(folder: Path, rng: Rng) -> Iterator[str]:
  """Lets no file grow beyond some bytes while a checkpoint is written, and reads the one before."""
  save(folder, [3, 6, 9])
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  for step in itertools.count(12, 3):
    checkpoints = Checkpoints(folder, select_best=False, create=True)
    before, message = checkpoints.latest, ""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(rng.integers(1000, 160_000)), hard))
    try:
      checkpoints.save(step, *state(step))
      checkpoints.wait()
    except UserError as error:
      message = str(error)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    checkpoints.close()
    newest = before if message else step
    said = not message or (str(folder / str(step)) in message and "\n" not in message)
    assert newest is not None
    right = said and outcome(folder, newest) == "unharmed"
    yield ("noticed" if message else "unharmed") if right else "wrong"


def room_later(folder: Path, rng: Rng) -> Iterator[str]:
  """Fills a disk of 6 MiB while checkpoints are saved, and makes room again; nothing where none can be mounted."""
  place, run = folder / "disk", folder / "disk" / "run"
  place.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
  if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
    return
  try:
    with mock.patch.object(disk, "_POLL_S", 0.05):
      for step in itertools.count(1):
        said = _saved_on_a_full_disk(run, step, rng)
        wanted = ("bytes are needed", "there is room again") if said else ()
        right = len(said) == len(wanted) and all(text in line for text, line in zip(wanted, said, strict=True))
        right &= outcome(run, step) == "unharmed"
        yield ("noticed" if said else "unharmed") if right else "wrong"
  finally:
    subprocess.run(["umount", "-l", place], check=True)


def _saved_on_a_full_disk(run: Path, step: int, rng: Rng) -> list[str]:
  """Saves a checkpoint on a disk with little room for up to half a second, and returns what it said."""
  filler, said = run.parent / "filler", io.StringIO()
  filler.write_bytes(bytes(max(0, disk.room(run.parent) - int(rng.integers(2 * 2**20)))))
  timer = threading.Timer(rng.uniform(0.05, 0.5), filler.unlink)
  timer.start()
  try:
    with contextlib.redirect_stderr(said), closing(Checkpoints(run, select_best=False, create=True)) as checkpoints:
      checkpoints.save(step, *state(step))
      checkpoints.wait()
  except UserError as error:
    return [str(error)]
  finally:
    timer.join()
  return said.getvalue().splitlines()


def readers(folder: Path, rng: Rng) -> Iterator[str]:
  """Reads any checkpoint beside a thread that saves and removes them."""
  save(folder, [1, 2, 3])
  stop = threading.Event()

  def train() -> None:
    with closing(Checkpoints(folder, select_best=False, create=True)) as checkpoints:
      for step in itertools.count(4):
        checkpoints.save(step, *state(step))
        if stop.is_set():
          return

  trainer = threading.Thread(target=train)
  trainer.start()
  try:
    while True:
      yield _read_any(folder, rng)
  finally:
    stop.set()
    trainer.join()


def _read_any(folder: Path, rng: Rng) -> str:
  with closing(Checkpoints(folder, select_best=False)) as checkpoints:
    steps = sorted({*checkpoints._records, *checkpoints.damaged})
    step = steps[int(rng.integers(len(steps)))]
    try:
      return "unharmed" if is_right(*checkpoints.restore(step, *shapes()), step) else "wrong"
    except VanishedCheckpoint:
      return "noticed"  # that it has gone: `evaluate` takes the next one
    except UserError:
      return "wrong"  # nothing is damaged


def bits_of_the_cache(folder: Path, rng: Rng) -> Iterator[str]:
  """Flips a bit of a file of decoded images, or damages it."""
  place, images = cache.CachePlace(str(folder)), rng.integers(1, 256, (200, 16, 16, 3), dtype=np.uint8)
  path = cache.save("set", "print", images, place)
  assert path is not None
  data = path.read_bytes()
  while True:
    path.write_bytes(flipped_or_damaged(data, rng))
    found = cache.load("set", "print", images.shape, np.uint8, place)
    yield "noticed" if found is None else "unharmed" if np.array_equal(found, images) else "wrong"


FAULTS: dict[str, Callable[[Path, Rng], Iterator[str]]] = {
  "a flipped bit of a checkpoint": bits_of_checkpoints,
  "other damage of a file of a checkpoint": damage_of_checkpoints,
  "going on after damage of the newest one": going_on,
  "kill -9 while checkpoints are saved": kills,
  "no room for a file of a checkpoint": full_disk,
  "a full disk that gets room again": room_later,
  "a reader beside a trainer": readers,
  "a damaged file of decoded images": bits_of_the_cache,
}
FAULTS |= CHANGED_IMAGES | FOREIGN_FILES | DIFFERING | RUNS


def tried(name: str, seconds: float, seed: int, most: int | None = None) -> collections.Counter[str]:
  """Returns how often a fault, as many as there is time for and `most` at most, had which outcome."""
  os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # a command of this process finds its devices, and asks for no more
  found: collections.Counter[str] = collections.Counter()
  end = time.monotonic() + seconds
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    outcomes = FAULTS[name](Path(folder), np.random.default_rng(seed))
    stack.callback(outcomes.close)  # type: ignore[attr-defined]
    for result in itertools.islice(outcomes, most):
      found[result] += 1
      if time.monotonic() > end:
        break
  return found


def main() -> None:
  """Prints the table; the status is 1 where anything was wrong."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--minutes", type=float, default=75.0)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--most", type=int, default=None, metavar="N", help="faults of each kind")
  parser.add_argument("--only", default="", metavar="WORDS", help="a pattern of names: `signal|image`")
  parser.add_argument("--save-in", type=Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.save_in:
    save_forever(args.save_in)
  logging.set_verbosity(logging.ERROR)  # each damaged file of the cache is warned of
  print("| fault | tried | noticed | unharmed | wrong |\n|---|---|---|---|---|")
  wrong = 0
  chosen = [name for name in FAULTS if re.search(args.only, name)]
  shares = {name: 6 if name in DIFFERING | RUNS else 1 for name in chosen}
  for name, share in shares.items():
    found = tried(name, 60 * args.minutes * share / sum(shares.values()), args.seed, args.most)
    wrong += found["wrong"]
    counts = (sum(found.values()), found["noticed"], found["unharmed"], found["wrong"])
    print(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |", flush=True)
  sys.exit(wrong > 0)


if __name__ == "__main__":
  main()
