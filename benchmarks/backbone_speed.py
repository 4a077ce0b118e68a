r"""Images a second of the forward pass of backbones with random weights, as for features; prints Markdown.

  python -m benchmarks.backbone_speed
  python -m benchmarks.backbone_speed --backbones efficientnet_lite0:224 resnet50:224

All devices share each batch. The backbones run in turns, one round after another.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax

from benchmarks.spatial import cores, load_average, machine, table_head, table_row
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.tree.label_tree import LabelTree

BACKBONES = ("efficientnet_lite0:224", "efficientnet_lite1:240", "efficientnet_lite2:260", "resnet50:224")


def forward(backbone: str, batch: int) -> Callable[[], float]:
  """Returns a measurement of a backbone, `NAME:SIZE`: images a second of one pass of a batch."""
  name, _, size = backbone.partition(":")
  tree, mesh = LabelTree.from_children(["a", "b"], [2, 0, 0]), devices.data_mesh()
  module = make_method(ModelConfig({"name": name}, {"name": "flat"}), tree_arrays(tree)).module
  images = devices.put_batch(
    jax.device_get(jax.random.normal(jax.random.key(0), (batch, int(size), int(size), 3))), mesh
  )
  variables = jax.jit(module.init, out_shardings=devices.replicated(mesh))(jax.random.key(0), images)
  run = jax.jit(lambda variables, images: module.apply(variables, images, method="features").pooled)
  jax.block_until_ready(run(variables, images))

  def rate() -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run(variables, images))
    return batch / (time.perf_counter() - begin)

  return rate


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME:SIZE")
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=9)
  args = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", cores())
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"Images a second, the median of {args.rounds} rounds of {args.batch}.\n")
  measured = {backbone: forward(backbone, args.batch) for backbone in args.backbones}
  rounds = [{backbone: rate() for backbone, rate in measured.items()} for _ in range(args.rounds)]
  print(table_head(["backbone", "images a second"]))
  for backbone in measured:
    print(table_row([backbone, f"{statistics.median(one[backbone] for one in rounds):.1f}"]))
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
