r"""A tree of a million nodes through `hierjax train`: its time and memory, with whole and with divided weights.

  python -m benchmarks.million_nodes
  python -m benchmarks.million_nodes --nodes 20000 --width 512 --heads flat path_rnn

A tree of two levels, in a CSV file, and a few vectors of noise are written to a folder of their own; a run on them
takes four steps, saves, and is evaluated, in a process of its own on two devices of this machine's CPU.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

LAYOUTS: dict[str, tuple[str, ...]] = {
  "whole": (),
  "nodes": ("--config.sharding.rules=(('^head/','nodes'),)", "--config.sharding.model=2"),
}
_GROUPS = 1000  # of the largest tree; the square root of smaller ones


class Trained(NamedTuple):
  """What a run took.

  Attributes:
    seconds: of the whole command.
    processor_seconds: of all threads.
    gib: the most memory.
    lines: of what it printed.
  """

  seconds: float
  processor_seconds: float
  gib: float
  lines: list[str]


def write_set(folder: Path, nodes: int, width: int) -> None:
  """Writes tree.csv, and `train` and `test` of vectors whose labels are drawn at random."""
  groups = min(_GROUPS, int(nodes**0.5))
  leaves = nodes - groups
  rng = np.random.default_rng(0)
  with (folder / "tree.csv").open("w") as file:
    print("group,leaf", file=file)
    for number in range(leaves):
      print(f"group {number * groups // leaves},leaf {number}", file=file)
  for split, count in (("train", 128), ("test", 32)):
    (folder / split).mkdir()
    np.save(folder / split / "features.npy", rng.normal(size=(count, width)).astype(np.float32))
    np.save(folder / split / "nodes.npy", (groups + rng.integers(0, leaves, size=count)).astype(np.int32))


def arguments(folder: Path, width: int, head: str) -> list[str]:
  """Returns the arguments of `hierjax train`."""
  values = {
    "data.root": folder,
    "tree.source": folder / "tree.csv",
    "backbone.width": width,
    "head.name": head,
    "data.validation": 0.0,
    "batch_size": 32,
    "epochs": 1,
    "log_every": 1,
    "loggers": "('jsonl',)",
  }
  return ["train", "features:flat", *(f"--config.{key}={value}" for key, value in values.items())]


def trained(words: Sequence[str]) -> Trained:
  """Runs a command and returns what it took; raises CalledProcessError where it fails."""
  start = time.perf_counter()
  environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-m", "hierjax", *words]
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command, "\n".join(lines))
  used = usage.ru_utime + usage.ru_stime
  return Trained(time.perf_counter() - start, used, usage.ru_maxrss / 2**20, lines)


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--nodes", type=int, default=1_000_000)
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--heads", nargs="+", default=["sibling_softmax", "flat"])
  parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
  args = parser.parse_args()
  head = "| head | layout | weights, MiB a device | optimiser, MiB a device | s | s of the processor | GiB | loss |"
  print(f"{args.nodes:,} nodes, features of {args.width} numbers\n\n{head}\n|---|---|{'--:|' * 6}", flush=True)
  with tempfile.TemporaryDirectory() as root:
    folder = Path(root)
    write_set(folder, args.nodes, args.width)
    for name in args.heads:
      for layout in args.layouts:
        words = [*arguments(folder, args.width, name), *LAYOUTS[layout], f"--workdir={folder / f'{name}-{layout}'}"]
        found = trained(words)
        (held,) = [line for line in found.lines if line.startswith("a device (")]
        sizes = re.findall(r"(?:holds|and) ([\d.,]+)", held)
        loss = re.findall(r'"loss": ([\d.]+)', (folder / f"{name}-{layout}" / "metrics.jsonl").read_text())[-1]
        numbers = (f"{found.seconds:.0f}", f"{found.processor_seconds:.0f}", f"{found.gib:.1f}", f"{float(loss):.4f}")
        print(f"| `{name}` | {layout} | {' | '.join((*sizes, *numbers))} |", flush=True)


if __name__ == "__main__":
  main()
