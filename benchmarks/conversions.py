r"""Times of DHNN's conversions and recurrences in a train step, with their weights and peak memory; prints Markdown.

  python -m benchmarks.conversions --network resnet50 --side 224 --batch 4
  python -m benchmarks.conversions --network small --side 32 --batch 64

The backbone alone has the head `multilabel`, a sigmoid a node; the other sides have `dhnn_s2s` with sigmoids. At --size
all sides run alternately, one round after another. At --large the step is compiled only. The peak is XLA's analysis of
the compiled step: its arguments, its results, and its temporary buffers.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.chrnn_step import normalised
from benchmarks.spatial import Side, interleaved, load_average, machine, table_head, table_row
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.classifier import ModelMethod
from hierjax.nn.layers.conversions import Kind
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.tree import catalog
from hierjax.types import Examples

NETWORKS = {
  "small": {"name": "small_resnet", "widths": (32, 64, 256), "blocks": 1, "stem_stride": 2},
  "resnet50": {"name": "resnet50"},
  "vgg16": {"name": "vgg16"},
}


def method_of(network: str, conversion: str, size: int, width: int) -> ModelMethod:
  head: dict[str, Any] = {"name": "multilabel"}
  if conversion:
    head = {"name": "dhnn_s2s", "output": "sigmoid", "conversion": conversion, "size": size, "width": width}
  return make_method(ModelConfig(NETWORKS[network], head), tree_arrays(catalog.load("openimages30")))


def lowered(method: ModelMethod, batch: Examples) -> tuple[Any, Any, Any]:
  """Returns the compiled train step, the function that makes its first state, and the number of weights."""
  image = jnp.zeros((1, *batch.images.shape[1:]))
  shapes = jax.eval_shape(method.module.init, jax.random.key(0), image)
  optimizer = make_optimizer(OptimConfig(name="adamw", lr=1e-4), shapes["params"])

  def start() -> Any:
    return init_state(method.module.init(jax.random.key(0), image), optimizer)

  step = make_train_step(Phase(optimizer), StepSettings(lambda step: jnp.float32(1e-4), normalised, jax.random.key(1)))
  compiled = jax.jit(step, donate_argnums=1).lower(method, jax.eval_shape(start), batch).compile()
  return compiled, start, sum(x.size for x in jax.tree.leaves(shapes["params"]))


def peak(compiled: Any) -> float:
  """Returns MiB."""
  found = compiled.memory_analysis()
  sizes = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
  return float(sizes + found.temp_size_in_bytes) / 2**20


def stepping(method: ModelMethod, compiled: Any, start: Any, batch: Examples) -> Side:
  state = jax.jit(start)()

  def call() -> Any:
    nonlocal state
    state, metrics = compiled(method, state, batch)
    return jax.block_until_ready(metrics)

  return call


def examples(batch: int, side: int) -> Examples:
  rng = np.random.default_rng(0)
  tree = catalog.load("openimages30")
  nodes = rng.choice(tree.leaves, (batch, 2)).astype(np.int32)
  return Examples(
    images=rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8),
    paths=tree.encode(nodes),
    mask=np.ones(batch, np.float32),
    draw=np.zeros((batch, 2), np.int32),
  )


def table(args: argparse.Namespace) -> str:
  batch = jax.tree.map(jnp.asarray, examples(args.batch, args.side))
  methods = {name: method_of(args.network, name, args.size, args.width) for name in ("", *get_args(Kind))}
  made = {name: lowered(method, batch) for name, method in methods.items()}
  times = interleaved(
    {name: stepping(methods[name], compiled, start, batch) for name, (compiled, start, _) in made.items()}, args.rounds
  )
  head = ["", "weights of the head", f"step at p = {args.size}, ms", "head's share", "peak, MiB"]
  lines = [table_head([*head, f"peak at p = {args.large}, MiB"])]
  for name in methods:
    shares = [1 - bare / own for bare, own in zip(times[""], times[name], strict=True)]
    large = method_of(args.network, name, args.large, args.large // 2)
    cells = [
      name or "backbone alone",
      f"{made[name][2] - made[''][2]:,}" if name else "",
      f"{1e3 * statistics.median(times[name]):.1f}",
      f"{100 * statistics.median(shares):.1f}%" if name else "",
      f"{peak(made[name][0]):.0f}",
      f"{peak(lowered(large, batch)[0]):.0f}" if name else "",
    ]
    lines.append(table_row(cells))
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--network", default="resnet50", choices=NETWORKS)
  parser.add_argument("--side", type=int, default=224, help="of the images, in pixels")
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--size", type=int, default=256, help="p, whose step is timed")
  parser.add_argument("--width", type=int, default=512, help="of the recurrence there")
  parser.add_argument(
    "--large", type=int, default=2048, help="p, whose step is compiled; its recurrence is half as wide"
  )
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"{args.network}, {args.side} x {args.side}, batch {args.batch}, float32, {args.rounds} rounds, medians\n")
  print(table(args), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
