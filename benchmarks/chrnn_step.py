r"""Times of whole train steps of SPP-net and C-HRNN on images of 224 x 224, and of the context alone; prints Markdown.

  python -m benchmarks.chrnn_step --batch 32
  python -m benchmarks.chrnn_step --batch 16 --networks spp hlstm --rounds 3

A step is the forward pass, the loss of a softmax over 1000 classes, the gradient of all weights and the update of SGD
with momentum. All sides run alternately, one round after another.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.spatial import Side, interleaved, load_average, machine, table_head, table_row
from benchmarks.spatial_baselines import with_gradient
from hierjax.functional.tree_arrays import TreeArrays, tree_arrays
from hierjax.nn.necks.context import ContextNeck
from hierjax.nn.registry import DTYPES, ModelConfig, make_method
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Batch, Examples, Features

NETWORKS: dict[str, dict[str, Any]] = {
  "spp": {"cell": "none"},
  "msrn": {"cell": "srn", "links": False},
  "hsrn": {"cell": "srn"},
  "mlstm": {"cell": "lstm", "links": False},
  "hlstm": {"cell": "lstm"},
}
CONV5 = (13, 13, 256)  # the backbone's last map for 224 x 224 pixels


def train_step(neck: dict[str, Any], tree: TreeArrays, batch: int, dtype: str) -> Side:
  """Returns a call that takes the next step of a training run, with its own state."""
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
  paths = jnp.asarray(rng.integers(0, tree.num_leaves, (batch, 1, 1), dtype=np.int32))
  examples = Examples(images, paths, jnp.ones(batch), jnp.zeros((batch, 2), jnp.int32))
  method = make_method(ModelConfig({"name": "sppnet"}, {"name": "flat"}, {"name": "context", **neck}, dtype), tree)
  variables = jax.jit(method.module.init)(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  optimizer = make_optimizer(OptimConfig(lr=0.01), variables["params"])
  schedule = lambda step: jnp.float32(0.01)  # noqa: E731
  step = make_train_step(Phase(optimizer), StepSettings(schedule, normalised, jax.random.key(1)))
  step = jax.jit(step, donate_argnums=1)
  state = init_state(variables, optimizer)

  def call() -> Any:
    nonlocal state
    state, metrics = step(method, state, examples)
    return jax.block_until_ready((state, metrics))

  return call


def normalised(examples: Examples, key: jax.Array, tree: Any = None) -> Batch:
  return Batch((examples.images.astype(jnp.float32) - 118) / 57, examples.paths, examples.mask)


def context_alone(neck: dict[str, Any], batch: int, dtype: str) -> Side:
  """Returns a call of the pools, recurrences and links without the dense layers, and of all their gradients."""
  module = ContextNeck(**neck, hidden=(), dtype=DTYPES[dtype])
  maps = jax.random.normal(jax.random.key(0), (batch, *CONV5)).astype(dtype)
  variables = jax.jit(module.init)(jax.random.key(1), features(maps))

  def context(variables: Any, maps: jax.Array) -> jax.Array:
    result: Any = module.apply(variables, features(maps))
    return result.pooled

  call = jax.jit(with_gradient(context))
  pooled = jax.eval_shape(context, variables, maps)
  cotangent = jax.random.normal(jax.random.key(2), pooled.shape).astype(pooled.dtype)
  return lambda: jax.block_until_ready(call(cotangent, variables, maps))


def features(maps: Any) -> Features:
  return Features(stages=(maps,), pooled=jnp.mean(maps.astype(jnp.float32), axis=(1, 2)))


def row(name: str, times: dict[str, list[float]]) -> list[str]:
  step, alone, spp = times[name], times[f"{name} alone"], times["spp"]
  added = statistics.median(mine - base for mine, base in zip(step, spp, strict=True))
  share = statistics.median(part / whole for part, whole in zip(alone, step, strict=True))
  milliseconds = [f"{1e3 * v:.1f}" for v in (statistics.median(step), added)]
  ratio = statistics.median(mine / base for mine, base in zip(step, spp, strict=True))
  return [name, *milliseconds, f"{ratio:.3f}", f"{1e3 * statistics.median(alone):.1f}", f"{100 * share:.1f}%"]


def table(networks: Sequence[str], times: dict[str, list[float]]) -> str:
  head = ["network", "step, ms", "more than spp, ms", "times spp", "context alone, ms", "of its step"]
  return "\n".join([table_head(head), *(table_row(row(name, times)) for name in networks)])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
  args = parser.parse_args()
  networks = ["spp", *(name for name in args.networks if name != "spp")]
  print(f"{machine()}; {load_average()} at the start\n")
  precision = jax.config.jax_default_matmul_precision or "default"
  print(f"{args.dtype}, products in {precision} precision, batch {args.batch}, {args.rounds} rounds\n", flush=True)
  tree = tree_arrays(LabelTree.from_children([f"class {i}" for i in range(1000)], [1000] + [0] * 1000))
  sides: dict[str, Side] = {}
  for name in networks:
    sides[name] = train_step(NETWORKS[name], tree, args.batch, args.dtype)
    sides[f"{name} alone"] = context_alone(NETWORKS[name], args.batch, args.dtype)
  print(table(networks, interleaved(sides, args.rounds)))
  print("\nAlone are the pools of all scales, the recurrences and the links, forward and gradient; of spp, the pools.")
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
