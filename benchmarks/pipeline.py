r"""Times of the input pipeline alone on images of CIFAR's size in memory; prints Markdown.

  python -m benchmarks.pipeline
  python -m benchmarks.pipeline --batch 64 --threads 2

`loader` gathers batches in its threads. `augmentation` is the jitted crop, mirror and normalisation of a batch in
memory. `both` is the time that training waits for a batch, with nothing else to compute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.spatial import load_average, machine, table_head, table_row
from benchmarks.train_step import cifar100_tree
from hierjax.data.augment import Transform, train_batch
from hierjax.data.config import DataConfig
from hierjax.data.loader import LabelledImages, ProcessRows, TrainSteps, train_batches
from hierjax.data.source import ArraySource
from hierjax.runs import devices
from hierjax.types import Examples

TRANSFORM = Transform(crop=32, pad=4, mirror=True)


def source(size: int) -> ArraySource:
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
  return ArraySource(images, rng.integers(20, 120, (size, 1), dtype=np.int32), "random")


def batches(images: ArraySource, batch: int, threads: int, steps: int) -> Iterator[Examples]:
  config = DataConfig(threads=threads)
  return train_batches(LabelledImages(images, cifar100_tree()), config, ProcessRows(batch), TrainSteps(0, steps))


def augmentation() -> Callable[[Examples], Any]:
  mesh, key = devices.data_mesh(), jax.random.key(0)
  augment = jax.jit(lambda examples, key: train_batch(examples, key, TRANSFORM))
  return lambda examples: jax.block_until_ready(augment(devices.put_batch(examples, mesh), key))


def rates(images: ArraySource, batch: int, threads: int, steps: int) -> dict[str, float]:
  """Returns images a second of the loader, of the augmentation and of both."""
  augment = augmentation()
  ready = next(iter(batches(images, batch, threads, 1)))
  augment(ready)
  use: dict[str, tuple[Any, Callable[[Examples], Any]]] = {
    "loader": (batches(images, batch, threads, steps), lambda examples: None),
    "augmentation": ([ready] * steps, augment),
    "both": (batches(images, batch, threads, steps), augment),
  }
  found = {}
  for name, (stream, consume) in use.items():
    start = time.perf_counter()
    for examples in stream:
      consume(examples)
    found[name] = steps * batch / (time.perf_counter() - start)
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--batch", nargs="+", type=int, default=[64, 256])
  parser.add_argument("--threads", type=int, default=4)
  parser.add_argument("--images", type=int, default=50_000)
  parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, about")
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"Images a second, {args.images} images of 32 x 32 x 3 in memory, {args.threads} threads: the median.\n")
  images = source(args.images)
  print(table_head(["batch", "loader", "augmentation", "both"]), flush=True)
  for batch in args.batch:
    steps = max(1, int(rates(images, batch, args.threads, 20)["both"] * args.seconds / batch))
    rounds = [rates(images, batch, args.threads, steps) for _ in range(args.rounds)]
    medians = [statistics.median(found[name] for found in rounds) for name in rounds[0]]
    print(table_row([str(batch), *(f"{rate:,.0f}" for rate in medians)]), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
