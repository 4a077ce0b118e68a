"""Processes of one run that differ: a row of the table of `benchmarks/faults.py`.

Two processes are started with one command but for what differs. Both must end by themselves, with the status 1 and the
difference in words. Where the second cannot read its image it says so, and the first ends as when a process is lost.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.changed_images import CHANGES
from benchmarks.damage import Rng
from benchmarks.killed_runs import Differing, Started, tell
from hierjax.data.sources.shapes import write_folders
from hierjax.runs.peers import LOST

_LONGEST_S = 120
_VALUES = (
  "data.name=folder",
  "data.root=set",
  "data.cache_gib=0",
  "epochs=1",
)  # the root is found where a process runs


def _config(place: Path, rng: Rng) -> tuple[Differing, str]:
  value = ("optim.lr=0.3", "batch_size=32", "head.width=8", "data.mirror=False", "log_every=3")[int(rng.integers(5))]
  return Differing((value,)), f"config.{value.partition('=')[0]}: "


def _seed(place: Path, rng: Rng) -> tuple[Differing, str]:
  return Differing((f"seed={int(rng.integers(1, 1000))}",)), "config.seed: 0 on process 0"


def _version(place: Path, rng: Rng) -> tuple[Differing, str]:
  return Differing(version="0.1"), "versions.jax: "


def _images(place: Path, rng: Rng) -> tuple[Differing, str]:
  other = _elsewhere(place)
  (other / "run").symlink_to(place / "run")
  split = ("train", "test")[int(rng.integers(2))]
  folder = other / "set" / split
  before = sorted((path.name, path.read_bytes()) for path in folder.rglob("*.png"))
  while before == sorted((path.name, path.read_bytes()) for path in folder.rglob("*.png")):
    CHANGES[int(rng.integers(3))](folder, rng)
  return Differing(place=other), f"{split} images: "


def _folder(place: Path, rng: Rng) -> tuple[Differing, str]:
  return Differing(place=_elsewhere(place)), "does not see the folder "


def _checkpoint(place: Path, rng: Rng) -> tuple[Differing, str]:
  other, step = _elsewhere(place), int(rng.integers(1, 100))
  (other / "run" / "checkpoints" / str(step) / "model").mkdir(parents=True)
  return Differing(place=other), f"newest checkpoint: 'None' on process 0, '{step}' on it"


def _elsewhere(place: Path) -> Path:
  """Returns another folder with the same images, and no run."""
  other = place / "elsewhere"
  shutil.copytree(place / "set", other / "set")
  return other


KINDS: tuple[Callable[[Path, Rng], tuple[Differing, str]], ...] = (
  _config,
  _seed,
  _version,
  _images,
  _folder,
  _checkpoint,
)


def differing(folder: Path, rng: Rng) -> Iterator[str]:
  """Starts two processes that differ, each kind in turn, and yields whether both said so and ended."""
  for number in itertools.count():
    place = folder / str(number)
    for split in ("train", "test"):
      write_folders(place / "set" / split, 62, side=16)
    (place / "run").mkdir()
    kind = KINDS[number % len(KINDS)]
    other, words = kind(place, rng)
    run = Started("quickstart.py:smoke", place, 2, _VALUES, other)
    statuses = run.wait(_LONGEST_S)
    run.kill()
    said = [run.said(process) for process in range(2)]
    waits = all("waiting for the other processes" in text for text in said)
    plain = not any("Traceback" in text for text in said)
    refused = statuses == [1, 1] and all(words in text for text in said)
    lost = statuses == [LOST, 1] and "seems to have ended" in said[0] and "error: set/" in said[1]
    if waits and plain and (refused or (lost and kind is _images)):
      yield "noticed"
    else:
      tell(f"{words}: statuses {statuses}", run)
      yield "wrong"


DIFFERING: dict[str, Callable[[Path, Rng], Iterator[str]]] = {"two processes of a run that differ": differing}
