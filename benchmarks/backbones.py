r"""Times and memory of backbones for photographs, against PyTorch; prints Markdown.

  python -m benchmarks.backbones
  python -m benchmarks.backbones --cases lite0:224:16:forward --rounds 3 --sides torch_eager_nhwc

A case is NETWORK:SIZE:BATCH:WHAT. NETWORK is lite0, EfficientNet-Lite0 with padding on both sides as PyTorch has it, or
convnextC, one block of ConvNeXt of C channels. WHAT is `forward`; `gradient`, of all weights, with norms by running
averages, as in fine-tuning; or `training`, the same with norms by the batch. hierjax runs on one device, whose threads
are as many as there are cores, and on a device for each core, which share the batch. All sides run alternately in one
process. A ratio is the median over rounds of a PyTorch side's time divided by hierjax's of the same round: above 1,
hierjax is faster. On a machine that others use too, compare processor times on one core (taskset -c 0), as PyTorch's
threads wait for each other busily. Memory is the peak of a process of its own above what it holds before the network is
made.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from benchmarks import backbones_torch
from benchmarks.spatial import Side, cores, load_average, machine, table_head, table_row
from benchmarks.spatial_torch import use_threads
from hierjax.nn.backbones.efficientnet_lite import efficientnet_lite0
from hierjax.nn.layers.depthwise import DepthwiseConv
from hierjax.nn.pretrained.files import to_bytes
from hierjax.nn.pretrained.name_maps import NETWORKS
from hierjax.nn.pretrained.restore import restore
from hierjax.runs import devices

OURS = ("hierjax", "a device a core")


class Case(NamedTuple):
  """One row of the table."""

  network: str
  size: int
  batch: int
  what: str

  @classmethod
  def parse(cls, text: str) -> Case:
    """Reads `lite0:224:16:forward`, as `str` writes it."""
    network, size, batch, what = text.split(":")
    if what not in ("forward", "gradient", "training") or not network.startswith(("lite0", "convnext")):
      raise argparse.ArgumentTypeError(f"{text}: give NETWORK:SIZE:BATCH:WHAT; see --help")
    return cls(network, int(size), int(batch), what)

  def __str__(self) -> str:
    return ":".join(map(str, self))

  @property
  def width(self) -> int:
    """Channels of a block of ConvNeXt; 0 for another network."""
    return int(self.network.removeprefix("convnext")) if self.network.startswith("convnext") else 0

  def inputs(self) -> np.ndarray:
    """Returns images, or maps, f32[b h w c]."""
    channels = self.width or 3
    shape = (self.batch, self.size, self.size, channels)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


CASES = tuple(
  Case(*row)
  for row in (
    ("lite0", 224, 16, "forward"),
    ("lite0", 224, 16, "gradient"),
    ("lite0", 192, 32, "gradient"),
    ("lite0", 192, 32, "training"),
    ("convnext96", 56, 16, "forward"),
    ("convnext96", 56, 16, "gradient"),
  )
)


class ConvNeXtBlock(nn.Module):
  """x + F(x), F a depthwise 7x7 convolution, LayerNorm, and two linear layers with GELU between them."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Returns a map of the same size."""
    y = DepthwiseConv((7, 7), padding=3, use_bias=True, name="depthwise")(x)
    y = nn.LayerNorm(1e-6, name="norm")(y)
    y = nn.gelu(nn.Dense(4 * self.width, name="expand")(y), approximate=False)
    return x + nn.Dense(self.width, name="project")(y)


def module_and_variables(case: Case, network: Any) -> tuple[Any, Any]:
  """Returns the network, and PyTorch's weights where there is PyTorch."""
  module = ConvNeXtBlock(case.width) if case.width else efficientnet_lite0(symmetric=True)
  variables = jax.jit(module.init)(jax.random.key(0), jnp.asarray(case.inputs()[:1]))
  if network is None:
    return module, variables
  weights = {name: value.numpy() for name, value in network.state_dict().items() if "num_batches" not in name}
  if case.width:
    return module, {"params": _block_weights(weights)}
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "weights.safetensors"
    file.write_bytes(to_bytes(weights, file))
    found = restore(file, NETWORKS["efficientnet_lite0_symmetric"], module)
  return module, unflatten_dict({path: found["/".join(("backbone", *path[1:]))] for path in flatten_dict(variables)})


def _block_weights(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
  laid_out: dict[str, Any] = {}
  for name, array in weights.items():
    layer, leaf = name.split(".")
    if leaf == "weight":
      leaf = "scale" if layer == "norm" else "kernel"
      array = array.T if array.ndim < 4 else array.transpose(2, 3, 1, 0)
    laid_out.setdefault(layer, {})[leaf] = array
  return laid_out


def our_side(case: Case, module: Any, variables: Any, mesh: Mesh) -> Side:
  """Returns a call that returns when the computation has ended; `case.what` as in backbones_torch."""
  train, collections = case.what == "training", {key: v for key, v in variables.items() if key != "params"}

  def output(params: Any, x: jax.Array) -> jax.Array:
    y = module.apply({"params": params, **collections}, x, train, mutable=["batch_stats"] if train else False)
    y = y[0] if train else y
    return y if case.width else y.pooled

  def loss(params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean(output(params, x) ** 2)

  call = jax.jit(output if case.what == "forward" else jax.grad(loss))
  params = jax.device_put(variables["params"], devices.replicated(mesh))
  x = devices.put_batch(case.inputs(), mesh)
  return lambda: jax.block_until_ready(call(params, x))


def sides_of(case: Case, names: list[str]) -> dict[str, Side]:
  """Returns the sides of these names, which have the same weights."""
  network = None
  if backbones_torch.torch is not None:
    backbones_torch.torch.manual_seed(0)
    network = backbones_torch.convnext_block(case.width) if case.width else backbones_torch.efficientnet_lite0()
  sides: dict[str, Side] = {}
  all_devices = devices.data_mesh()
  meshes = {OURS[0]: Mesh(all_devices.devices[:1], all_devices.axis_names), OURS[1]: all_devices}
  if set(names) & set(OURS):
    module, variables = module_and_variables(case, network)
  for name in names:
    if name in meshes:
      sides[name] = our_side(case, module, variables, meshes[name])
    else:
      sides[name] = backbones_torch.side(network, case.inputs(), case.what, name)
  return sides


def check_agreement(sides: Mapping[str, Side]) -> None:
  """Raises ValueError where a side's output, or the norm of its gradients, is not the first one's."""

  def size(side: Side) -> float:
    leaves = jax.tree.leaves(side())
    return float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in leaves)))

  norms = {name: size(side) for name, side in sides.items()}
  if max(norms.values()) > 1.001 * min(norms.values()):
    raise ValueError(f"the sides compute different things, of norms {norms}")


def interleaved(sides: Mapping[str, Side], rounds: int) -> dict[str, list[tuple[float, float]]]:
  """Returns the wall and the processor seconds of each side in each round."""
  found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
  for side in sides.values():
    side()
  for _ in range(rounds):
    for name, side in sides.items():
      time.sleep(0.2)  # until the threads of the side before are idle
      wall, processor = time.perf_counter(), time.process_time()
      side()
      found[name].append((time.perf_counter() - wall, time.process_time() - processor))
  return found


def peak_mib(case: Case, name: str) -> float:
  """Returns the peak memory of a side in a process of its own."""
  command = [sys.executable, "-m", "benchmarks.backbones", "--cases", str(case), "--peak", name]
  return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(case: Case, name: str) -> None:
  before = memory_mib("VmRSS")
  (side,) = sides_of(case, [name]).values()
  for _ in range(3):
    side()
  print(memory_mib("VmHWM") - before)


def memory_mib(field: str) -> float:
  """Returns a size of this process; `ru_maxrss` would be at least what its parent had when it started this one."""
  (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
  return int(line.split()[1]) / 1024


def row(case: Case, names: list[str], rounds: int, memory: bool) -> list[str]:
  sides = sides_of(case, names)
  check_agreement(sides)
  times = interleaved(sides, rounds)

  def ratio(name: str, ours: str, clock: int) -> float:
    return statistics.median(a[clock] / b[clock] for a, b in zip(times[name], times[ours], strict=True))

  cells = [str(case)]
  for name in names:
    wall = statistics.median(wall for wall, _ in times[name])
    of = [f"{ratio(name, ours, 0):.2f} (processor {ratio(name, ours, 1):.2f})" for ours in OURS if name not in OURS]
    peak = f", {peak_mib(case, name):.0f} MiB" if memory else ""
    cells.append(f"{case.batch / wall:.1f}/s{peak}" + "".join(f"; {text}" for text in of))
  return cells


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--cases", nargs="+", default=CASES, type=Case.parse)
  parser.add_argument("--sides", nargs="*", default=list(backbones_torch.SIDES), choices=backbones_torch.SIDES)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--no-memory", action="store_true")
  parser.add_argument("--peak", help=argparse.SUPPRESS)
  args = parser.parse_args()
  devices.keep_memory()
  jax.config.update("jax_num_cpu_devices", cores())
  threads = use_threads(cores(), "float32") if backbones_torch.torch is not None else "no PyTorch"
  if args.peak:
    print_peak(args.cases[0], args.peak)
    return
  names = [*OURS, *(args.sides if backbones_torch.torch is not None else [])]
  print(f"{machine()}; {load_average()} at the start\n\nfloat32, {args.rounds} rounds. {threads}\n")
  print("Images a second, peak memory; of PyTorch, its time / hierjax's on one device, then / on a device a core.\n")
  print(table_head(["case", *names]), flush=True)
  for case in args.cases:
    print(table_row(row(case, names, args.rounds, not args.no_memory)), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
