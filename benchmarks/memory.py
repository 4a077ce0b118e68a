r"""Memory and time of a train step with parts that are computed anew, and with batches in parts; prints Markdown.

  python -m benchmarks.memory
  python -m benchmarks.memory --configs chrnn_cifar100 --batch 64 --steps 3

`temporary` is what the compiled step needs beside its arguments and results (`memory_analysis` of XLA, on this device);
`kept` is what the forward pass keeps for the backward pass, by the types of the program, before XLA compiles it. All
sides of a config are timed in turns; the number is the median.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lowering import examples_of, kept_bytes, run_of
from benchmarks.spatial import load_average, machine
from hierjax.config import unpack
from hierjax.runs.run import Run
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step

CONFIGS = ("cnnrnn_cifar100:cpu", "chrnn_cifar100", "dhnn_shapes")
PARTS = ("backbone", "neck", "head")
SIDES: Mapping[str, tuple[tuple[str, ...], int]] = {
  "all kept": ((), 1),
  "`remat = (backbone,)`": (("backbone",), 1),
  "`remat` of all parts": (PARTS, 1),
  "`optim.accumulate = 4`": ((), 4),
  "both": (PARTS, 4),
}
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Measured:
  """A compiled step.

  Attributes:
    temporary: bytes, beside arguments and results.
    kept: bytes that the forward pass of one part of the batch keeps.
    call: takes a step and returns its loss.
  """

  temporary: int
  kept: int
  call: Callable[[], float]


def with_parts(run: Run, remat: tuple[str, ...]) -> Run:
  """Returns a run of which these parts are computed anew."""
  module = run.method.module.clone(remat=remat)
  if "backbone" in remat and hasattr(module.backbone, "remat"):
    module = module.clone(backbone=module.backbone.clone(remat=True))
  return dataclasses.replace(run, method=dataclasses.replace(run.method, module=module))


def measured(run: Run, batch: int, accumulate: int) -> Measured:
  """Compiles the step of a run for a batch of noise."""
  variables = jax.jit(lambda: run.init_variables(jax.random.key(0), run.example_shape))()
  optimizer = make_optimizer(unpack(OptimConfig, run.config.optim, "optim"), variables["params"])
  settings = StepSettings(lambda step: jnp.float32(1e-3), run.augment, jax.random.key(1), accumulate)
  state = init_state(variables, optimizer)
  rng = np.random.default_rng(0)
  shapes = examples_of(run, batch)
  paths = run.tree.encode(rng.choice(run.tree.leaves, size=(batch, 1)))
  images = rng.integers(0, 255, shapes.images.shape, np.uint8)
  examples = shapes.replace(images=images, paths=paths, mask=np.ones(batch, np.float32),
                            draw=np.zeros((batch, 2), np.int32))  # fmt: skip
  step = jax.jit(make_train_step(Phase(optimizer), settings), donate_argnums=1)
  compiled = step.lower(run.method, state, examples).compile()
  analysis: Any = compiled.memory_analysis()

  def call() -> float:
    nonlocal state
    state, metrics = compiled(run.method, state, examples)
    return float(metrics["loss"])

  part = batch // accumulate
  return Measured(analysis.temp_size_in_bytes, part * (kept_bytes(run, 2) - kept_bytes(run, 1)), call)


def rows(spec: str, batch: int, steps: int) -> list[str]:
  """Returns the rows of a config: a side each."""
  run = run_of(spec)
  sides = {name: measured(with_parts(run, remat), batch, parts) for name, (remat, parts) in SIDES.items()}
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(steps + 1):  # the first warms up
    for name, side in sides.items():
      start = time.perf_counter()
      side.call()
      seconds[name].append(time.perf_counter() - start)
  times = {name: statistics.median(found[1:]) for name, found in seconds.items()}
  least = times["all kept"]
  return [
    f"| `{spec}` | {name} | {side.kept / _MIB:,.1f} | {side.temporary / _MIB:,.1f} | {times[name]:.2f} | "
    f"{times[name] / least:.2f} |"
    for name, side in sides.items()
  ]


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--configs", nargs="+", default=CONFIGS, metavar="NAME:VARIANT")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--steps", type=int, default=3)
  args = parser.parse_args()
  print(f"{machine()}; {load_average()}; batches of {args.batch}\n")
  print("| config | step | kept, MiB | temporary, MiB | s a step | ratio |\n|---|---|--:|--:|--:|--:|", flush=True)
  for spec in args.configs:
    print(*rows(spec, args.batch, args.steps), sep="\n", flush=True)


if __name__ == "__main__":
  main()
