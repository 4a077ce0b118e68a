r"""Images a second that reach a train step from disk, against the decoder alone and what a step takes; prints Markdown.

  python -m benchmarks.input
  python -m benchmarks.input --sets large --threads 1 2 4

The sets are photographs of 12 megapixels and of 256 pixels, JPEG files that are decoded as squares of 256 pixels, and
PNG files of CIFAR's size. Their pages are dropped from memory before each round, so that each file is read from disk.

- `decoder`: `read_image` of files in memory, in that many threads: the limit of what can be had.
- `folder`, `pack`: batches of the loader, from the files themselves and from what `hierjax data pack` makes of them.
- `in memory`: batches of the loader where the set has been decoded once (`data.cache_mib`).
- `augmented`: the same, with the jitted crop, mirror and normalisation of each batch.
- `step`: images a second that a train step takes, of EfficientNet-Lite0 on 224 pixels or a small ResNet on 32.

The sides of a set run alternately, one round after another; ratios are of the same round.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.spatial import cores, load_average, machine, table_head, table_row
from hierjax.data.augment import Transform, train_batch
from hierjax.data.config import DataConfig
from hierjax.data.images.decode import parallel
from hierjax.data.images.read_image import read_image
from hierjax.data.loader import LabelledImages, ProcessRows, TrainSteps, train_batches
from hierjax.data.open_source import Opened, open_source
from hierjax.data.source import Source
from hierjax.data.sources.folders import tree_of
from hierjax.data.sources.packing import write_pack
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Examples

SMALL_RESNET = {"name": "small_resnet", "widths": (32, 64, 256), "blocks": 1, "stem_stride": 2}


@dataclasses.dataclass(frozen=True)
class ImageSet:
  """A set of images.

  Attributes:
    name: in the table.
    count: of images.
    size: width and height of the files.
    suffix: of the files.
    stored: the side of the squares that they are decoded as.
    crop: the side that the step reads.
    batch: images of a batch.
    backbone: of the step.
  """

  name: str
  count: int
  size: tuple[int, int]
  suffix: str
  stored: int
  crop: int
  batch: int
  backbone: Mapping[str, Any]


SETS = {
  "large": ImageSet("JPEG, 12 megapixels", 16, (4000, 3000), ".jpg", 256, 224, 8, {"name": "efficientnet_lite0"}),
  "small": ImageSet("JPEG, 256 pixels", 1024, (256, 256), ".jpg", 256, 224, 32, {"name": "efficientnet_lite0"}),
  "cifar": ImageSet("PNG, 32 pixels", 8192, (32, 32), ".png", 32, 32, 64, SMALL_RESNET),
}


def file_bytes(size: tuple[int, int], suffix: str, rng: np.random.Generator) -> bytes:
  """Returns a file of a drawn image: smooth as a photograph is, with the grain of a sensor."""
  coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
  smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
  grain = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
  file = io.BytesIO()
  image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
  image.save(file, {".jpg": "JPEG", ".png": "PNG"}[suffix], **({"quality": 90} if suffix == ".jpg" else {}))
  return file.getvalue()


def write_set(root: Path, images: ImageSet) -> None:
  """Writes the files of a set, in folders of two labels; some images come several times, as the drawing is slow."""
  rng = np.random.default_rng(0)
  drawn = [
    file_bytes(images.size, images.suffix, rng) for _ in range(min(images.count, 8 if images.stored > 32 else 64))
  ]
  for number in range(images.count):
    path = root / f"label {number % 2}" / f"{number}{images.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn[number % len(drawn)])


def forget(folder: Path) -> None:
  """Drops the pages of all files below a folder from memory."""
  for file in folder.rglob("*"):
    if file.is_file():
      opened = os.open(file, os.O_RDONLY)
      os.fsync(opened)
      os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
      os.close(opened)


def batches(source: Source, tree: LabelTree, config: DataConfig, batch: int) -> Iterator[Examples]:
  """Returns the batches of an epoch."""
  steps = TrainSteps(0, max(1, len(source) // batch))
  return train_batches(LabelledImages(source, tree), config, ProcessRows(batch), steps)


def rate_of(stream: Iterator[Any], images: int, use: Callable[[Any], Any] = lambda one: None) -> float:
  """Returns images a second of a stream that gives so many."""
  begin = time.perf_counter()
  for one in stream:
    use(one)
  return images / (time.perf_counter() - begin)


def augmented(images: ImageSet) -> Callable[[Examples], Any]:
  mesh, key, transform = devices.data_mesh(), jax.random.key(0), Transform(crop=images.crop, pad=4, mirror=True)
  augment = jax.jit(lambda examples, key: train_batch(examples, key, transform))
  return lambda examples: jax.block_until_ready(augment(devices.put_batch(examples, mesh), key))


def sides(images: ImageSet, folder: Path, threads: int) -> dict[str, Callable[[], float]]:
  """Returns a measurement of each side, images a second."""
  photos = DataConfig(
    name="folder", root=str(folder / "photos"), resize=images.stored, crop=images.crop, validation=0.0,
    threads=threads, cache_mib=0,
  )  # fmt: skip
  tree = tree_of(photos)
  pack = photos.moved(str(folder / "pack"))
  once = dataclasses.replace(pack, cache_mib=2**20, cache_gib=0)
  configs = {"folder": photos, "pack": pack, "once": once}
  opened = {name: open_source(config, tree, "train", Opened()) for name, config in configs.items()}
  files = [file.read_bytes() for file in sorted((folder / "photos").rglob(f"*{images.suffix}"))]
  count = images.count // images.batch * images.batch
  augment = augmented(images)

  def decoder() -> float:
    decode = lambda data: read_image(data, images.stored)  # noqa: E731
    return rate_of(parallel(decode, iter(files), threads), len(files))

  def loader(name: str, use: Callable[[Any], Any] = lambda one: None) -> float:
    source = opened[name]
    assert source is not None
    forget(folder / ("photos" if name == "folder" else "pack"))
    return rate_of(batches(source, tree, photos, images.batch), count, use)

  augment(next(iter(batches(opened["once"], tree, photos, images.batch))))  # type: ignore[arg-type]
  return {
    "decoder": decoder,
    "folder": lambda: loader("folder"),
    "pack": lambda: loader("pack"),
    "in memory": lambda: loader("once"),
    "augmented": lambda: loader("once", augment),
  }


def step_rate(images: ImageSet, rounds: int) -> float:
  """Returns images a second that a train step takes, the input apart."""
  tree = LabelTree.from_children(["a", "b"], [2, 0, 0])
  method = make_method(ModelConfig(images.backbone, {"name": "flat"}), tree_arrays(tree))
  shape = (1, images.crop, images.crop, 3)
  variables = jax.jit(method.module.init)(jax.random.key(0), jnp.zeros(shape))
  optimizer = make_optimizer(OptimConfig(lr=0.01), variables["params"])
  transform, whole = Transform(crop=images.crop), devices.replicated(devices.data_mesh())
  preprocess = lambda examples, key, tree=None: train_batch(examples, key, transform, tree)  # noqa: E731
  settings = StepSettings(lambda step: jnp.float32(0.01), preprocess, jax.random.key(1))
  step = jax.jit(make_train_step(Phase(optimizer), settings), donate_argnums=1, out_shardings=whole)
  method, state = jax.device_put((method, init_state(variables, optimizer)), whole)
  size = (images.batch, images.stored, images.stored, 3)
  pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
  paths, draw = np.zeros((images.batch, 1, 1), np.int32), np.zeros((images.batch, 2), np.int32)
  batch = devices.put_batch(Examples(pixels, paths, np.ones(images.batch, np.float32), draw), devices.data_mesh())
  times = []
  for _ in range(rounds + 1):
    begin = time.perf_counter()
    state, metrics = step(method, state, batch)
    jax.block_until_ready((state, metrics))
    times.append(time.perf_counter() - begin)
  return images.batch / statistics.median(times[1:])


def _rounded(rate: float) -> str:
  return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def rows(images: ImageSet, threads: list[int], rounds: int, with_step: bool) -> Iterator[list[str]]:
  """Yields the rows of a set: the medians, and the ratios of folder and pack to the decoder."""
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write_set(folder / "photos", images)
    config = DataConfig(name="folder", root=str(folder / "photos"), validation=0.0)
    (folder / "pack").mkdir()
    write_pack(folder / "pack", config, tree_of(config))
    step = _rounded(step_rate(images, rounds)) if with_step else ""
    for count in threads:
      measured = sides(images, folder, count)
      found = [{side: measure() for side, measure in measured.items()} for _ in range(rounds)]

      def cell(side: str, found: list[dict[str, float]] = found) -> str:
        text = _rounded(statistics.median(one[side] for one in found))
        ratio = statistics.median(one[side] / one["decoder"] for one in found)
        return f"{text} ({ratio:.2f})" if side in ("folder", "pack") else text

      yield [images.name, str(count), *map(cell, measured), step]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
  parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 4])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--no-step", action="store_true", help="do not compile and measure train steps")
  args = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", cores())
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"Images a second, the median of {args.rounds} rounds; in brackets, of the decoder's.\n")
  print(table_head(["set", "threads", "decoder", "folder", "pack", "in memory", "augmented", "step"]), flush=True)
  for name in args.sets:
    for row in rows(SETS[name], args.threads, args.rounds, not args.no_step):
      print(table_row(row), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
