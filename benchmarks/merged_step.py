r"""Parameters, FLOPs and times of train steps of merged networks by the number of shared stages; prints Markdown.

  python -m benchmarks.merged_step --batch 16
  python -m benchmarks.merged_step --networks cpu --batch 64

The networks are those of configs/merged_cifar100.py. `separate` is a step of the coarse network and then one of the
fine network. All sides run alternately, one round after another.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.chrnn_step import normalised
from benchmarks.spatial import Side, interleaved, load_average, machine, table_head, table_row
from benchmarks.train_step import cifar100_tree, examples
from configs import merged_cifar100
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.classifier import ModelMethod
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.types import Examples

NETWORKS = ("resnet164", "densenet100", "cpu")
ROWS: dict[str, tuple[str, ...]] = {
  "separate": ("separate,coarse", "separate,fine"),
  **{f"merge-{k}": (f"merge{k}",) for k in range(4)},
}


def method_of(network: str, words: str) -> ModelMethod:
  config = merged_cifar100.get_config(f"{network},{words}").to_dict()
  tree = cifar100_tree()
  levels = config["tree"]["levels"]
  arrays = tree_arrays(tree.truncated(levels) if levels else tree)
  return make_method(
    ModelConfig(config["backbone"], config["head"], dtype=config["dtype"], merged=config["merged"]), arrays
  )


def parameters(method: ModelMethod) -> int:
  shapes = jax.eval_shape(method.module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  return sum(x.size for x in jax.tree.leaves(shapes["params"]))


def forward_flops(method: ModelMethod) -> float:
  """Returns the floating-point operations of the forward pass of one image, as XLA counts them, one an addition."""
  image = jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(method.module.init, jax.random.key(0), image)
  cost: Any = jax.jit(method.module.apply).lower(shapes, image).cost_analysis()
  return float(cost["flops"])


def train_step(method: ModelMethod, batch: Examples) -> Side:
  """Returns a call that takes the next step of a training run, with its own state."""
  variables = jax.jit(method.module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  optimizer = make_optimizer(OptimConfig(lr=0.01, nesterov=True), variables["params"])
  step = make_train_step(Phase(optimizer), StepSettings(lambda step: jnp.float32(0.01), normalised, jax.random.key(1)))
  step = jax.jit(step, donate_argnums=1)
  state = init_state(variables, optimizer)
  own = batch.replace(paths=batch.paths[..., : method.tree.depth])

  def call() -> Any:
    nonlocal state
    state, metrics = step(method, state, own)
    return jax.block_until_ready((state, metrics))

  return call


def in_turn(sides: list[Side]) -> Side:
  return lambda: [side() for side in sides]


def table(network: str, batch: int, rounds: int) -> str:
  methods = {name: [method_of(network, words) for words in variants] for name, variants in ROWS.items()}
  inputs = jax.tree.map(jnp.asarray, examples(batch))
  sides = {name: in_turn([train_step(method, inputs) for method in found]) for name, found in methods.items()}
  times = interleaved(sides, rounds)
  lines = [table_head([f"{network}, batch {batch}", "parameters", "MFLOPs an image", "step, ms", "of separate"])]
  for name, found in methods.items():
    ratio = statistics.median(mine / base for mine, base in zip(times[name], times["separate"], strict=True))
    flops = sum(map(forward_flops, found)) / 1e6
    count = f"{sum(map(parameters, found)):,}"
    lines.append(
      table_row([name, count, f"{flops:.1f}", f"{1e3 * statistics.median(times[name]):.1f}", f"{ratio:.2f}"])
    )
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"float32, {args.rounds} rounds, medians; FLOPs are the forward pass's\n", flush=True)
  for network in args.networks:
    print(table(network, args.batch, args.rounds) + "\n", flush=True)
  print(f"{load_average()} at the end")


if __name__ == "__main__":
  main()
