r"""Times besides those of steps: imports, the start of `train.py`, and the loop around a step; prints Markdown.

  python -m benchmarks.startup
  python -m benchmarks.startup --imports
  python -m benchmarks.startup --config configs/cnnrnn_cifar100.py:cpu --starts 3

Imports are those of a command before it reads its first file, each in a process of its own, from byte code; the
commands take turns. A start is the time from the command to the line that reports its first step, on generated images.
It is measured with an empty compilation cache, and with the cache of the start before. The loop is the real one, on a
softmax over vectors of 8 numbers. Its step computes almost nothing, so the time of a step bounds that of the loop.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.spatial import load_average, machine, table_head, table_row
from configs import common
from hierjax.runs import devices
from hierjax.training.loop.run import train_and_evaluate

IMPORTS = {
  "`import jax` alone": "jax",
  "`hierjax predict`": "hierjax.cli.main, hierjax.inference.predictor, tqdm",
  "`hierjax evaluate`": "hierjax.cli.main, hierjax.evaluation.evaluate, hierjax.evaluation.console",
}


def import_seconds(modules: str) -> float:
  """Returns the seconds in which a process of its own imports modules."""
  code = f"import time; begin = time.perf_counter(); import {modules}; print(time.perf_counter() - begin)"
  environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
  folder = Path(__file__).parents[1]
  command = [sys.executable, "-c", code]
  return float(subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)


def start_seconds(config: str, cache: str) -> float:
  """Returns the seconds from the command to its first step, and ends the process."""
  with tempfile.TemporaryDirectory() as workdir:
    flags = ["--config.data.name=noise", "--config.data.examples=6000", "--config.log_every=1"]
    command = [sys.executable, "train.py", f"--config={config}", f"--workdir={workdir}/run", *flags]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONUNBUFFERED": "1"}
    begin = time.perf_counter()
    process = subprocess.Popen(
      command,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      cwd=Path(__file__).parents[1],
    )
    with process:
      said = []
      for line in process.stdout or ():
        said.append(line)
        if line.startswith("step 1 "):
          seconds = time.perf_counter() - begin
          process.kill()
          return seconds
  raise SystemExit(f"{' '.join(command)} made no step:\n{''.join(said)}")


def step_milliseconds(steps: int, records: int = 5) -> float:
  """Returns the milliseconds of a step of the real loop, input and checks included, that computes almost nothing."""
  batch = 8
  config: Any = common.base()
  config.tree.source = "cifar100"
  config.data = {**config.data, "name": "noise", "width": 8, "examples": 4000, "validation": 0.0}
  config.backbone, config.head = {"name": "features", "width": 8}, {"name": "flat"}
  config.batch_size, config.log_every, config.epochs = batch, steps, records * steps * batch / 4000
  config.checkpoint_every = 2 * config.epochs
  with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
    train_and_evaluate(config.to_dict(), workdir)
    lines = Path(workdir, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
  rates = [json.loads(line)["images_per_second"] for line in lines]
  return 1e3 * batch / statistics.median(rates[1:])  # the first compiles


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--config", default="configs/cnnrnn_cifar100.py:cpu")
  parser.add_argument("--imports", action="store_true", help="measure imports alone")
  parser.add_argument("--starts", type=int, default=3, help="with the cache; there is one without")
  parser.add_argument("--rounds", type=int, default=9, help="of imports; one more goes before them")
  parser.add_argument("--steps", type=int, default=1000, help="of the loop in each of five measurements")
  args = parser.parse_args()
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n", flush=True)
  if args.imports:
    found = [{name: import_seconds(modules) for name, modules in IMPORTS.items()} for _ in range(args.rounds + 1)]
    print(table_head(["imports", "seconds, median"]))
    for name in IMPORTS:
      print(table_row([name, f"{statistics.median(one[name] for one in found[1:]):.2f}"]))
    return
  with tempfile.TemporaryDirectory() as cache:
    cold = start_seconds(args.config, cache)
    warm = statistics.median(start_seconds(args.config, cache) for _ in range(args.starts))
  print(table_head(["", "cold", "cached"]))
  print(table_row([f"command to first step, s: {args.config}", f"{cold:.1f}", f"{warm:.1f}"]), flush=True)
  print(f"\nA whole step of almost nothing, input included: {step_milliseconds(args.steps):.2f} ms")
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
