r"""Times of train steps of CNN-RNN on CIFAR-100, against the same networks in PyTorch; prints Markdown.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --networks cnn7 --rounds 3 --sides torch_eager_nhwc

A step normalises a batch of bytes, computes loss and gradient, and updates all weights by SGD with Nesterov's momentum
and weight decay. Random crops are in neither side; see input.py. hierjax's side is `make_train_step`, on one device,
and on a device for each core that share a batch, as in `train.py` on a CPU. PyTorch's convolutions pad both sides of a
map and JAX's the end, so both sides do the same work on different numbers.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import train_step_torch
from benchmarks.chrnn_step import normalised
from benchmarks.spatial import Side, cores, interleaved, load_average, machine, table_head, table_row, torch_device
from benchmarks.spatial_torch import use_threads
from hierjax.functional.tree_arrays import TreeArrays, tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Examples, Features

NETWORKS: dict[str, dict[str, Any]] = {
  "small_resnet": {"name": "small_resnet", "widths": (32, 64, 256), "blocks": 1, "stem_stride": 2},
  "cnn7": {"name": "cnn7"},
}
HEAD = {"name": "path_rnn", "width": 256}
BATCH = {"small_resnet": 64, "cnn7": 100}  # as in configs/common.py
CHANNELS = {"small_resnet": 256, "cnn7": 192}  # of the features of the head


def cifar100_tree() -> LabelTree:
  names = [f"coarse {i}" for i in range(20)] + [f"fine {i}" for i in range(100)]
  return LabelTree.from_children(names, [20] + [5] * 20 + [0] * 100)


def examples(batch: int) -> Examples:
  """Returns random images with paths of CIFAR-100's shape, numpy arrays."""
  rng = np.random.default_rng(0)
  fine = rng.integers(0, 100, batch, dtype=np.int32)
  images = rng.integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
  paths = np.stack([fine // 5, 20 + fine], axis=1)[:, None]
  return Examples(images, paths, np.ones(batch, np.float32), np.zeros((batch, 2), np.int32))


def method_of(network: str, tree: TreeArrays) -> tuple[Any, Any]:
  method = make_method(ModelConfig(NETWORKS[network], HEAD), tree)
  return method, jax.jit(method.module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def train_step(network: str, tree: TreeArrays, batch: Examples, mesh: Mesh) -> Side:
  """Returns a call that takes the next step of a training run, with its own state."""
  method, variables = method_of(network, tree)
  decay = (("kernel$", 5e-4), (".*", 0.0))
  optimizer = make_optimizer(OptimConfig(lr=0.01, nesterov=True, decay=decay), variables["params"])
  step = make_train_step(Phase(optimizer), StepSettings(lambda step: jnp.float32(0.01), normalised, jax.random.key(1)))
  whole = devices.replicated(mesh)
  step = jax.jit(step, donate_argnums=1, out_shardings=whole)
  method, state = jax.device_put((method, init_state(variables, optimizer)), whole)

  def call() -> Any:
    nonlocal state
    state, metrics = step(method, state, devices.put_batch(batch, mesh))
    return jax.block_until_ready((state, metrics))

  return call


def head_alone(network: str, tree: TreeArrays, batch: Examples) -> Side:
  """Returns a call of the head, its loss, and the gradient of its weights and of the features."""
  method, variables = method_of(network, tree)
  paths = jnp.asarray(batch.paths)
  features = jax.random.normal(jax.random.key(0), (len(paths), CHANNELS[network]))

  def loss(params: Any, pooled: jax.Array) -> jax.Array:
    outputs = method.module.head.apply({"params": params}, Features((), pooled), paths)
    return method.loss(outputs, paths).mean()

  call = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  return lambda: jax.block_until_ready(call(variables["params"]["head"], features))


def torch_side(network: str, name: str, batch: Examples) -> Side:
  module = train_step_torch.networks(cifar100_tree().num_nodes)[network]()
  return train_step_torch.train_step(module, batch.images, batch.paths[:, 0], name)


def row(network: str, names: list[str], rounds: int) -> list[str]:
  tree, batch = tree_arrays(cifar100_tree()), examples(BATCH[network])
  all_devices = devices.data_mesh()
  sides = {"hierjax": train_step(network, tree, batch, Mesh(all_devices.devices[:1], all_devices.axis_names))}
  if all_devices.size > 1:
    sides["a device a core"] = train_step(network, tree, batch, all_devices)
  sides |= {name: torch_side(network, name, batch) for name in names}
  times = interleaved(sides | {"head": head_alone(network, tree, batch)}, rounds)

  def cell_of(name: str) -> str:
    ratio = statistics.median(theirs / mine for theirs, mine in zip(times[name], times["hierjax"], strict=True))
    return f"{1e3 * statistics.median(times[name]):.1f} ({ratio:.2f})"

  share = statistics.median(head / step for head, step in zip(times["head"], times["hierjax"], strict=True))
  return [f"{network}, batch {BATCH[network]}", *map(cell_of, sides), f"{100 * share:.1f}%"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
  parser.add_argument("--sides", nargs="*", default=train_step_torch.SIDES, choices=train_step_torch.SIDES)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  devices.keep_memory()
  jax.config.update("jax_num_cpu_devices", cores())
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"float32, {args.rounds} rounds\n")
  device = torch_device()
  names = list(args.sides) if device == "cpu" else []
  if names:
    print(use_threads(cores(), "float32") + "\n")
  print("Milliseconds of a step: the median, and in brackets how many times hierjax's on one device.\n")
  on_all = ["a device a core"] if jax.device_count() > 1 else []
  print(table_head(["network", "hierjax", *on_all, *names, "head alone, of the step"]), flush=True)
  for network in args.networks:
    print(table_row(row(network, names, args.rounds)), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
