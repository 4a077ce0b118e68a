"""Batches as pure functions of their number, so that resumed runs and any number of processes read the same ones.

Grain's threads prepare whole batches ahead; the rows of a batch are gathered at once. Position q of the training stream
is row q mod B of batch q // B, and example q mod N of the order of epoch q // N: batches run on across epochs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator

import numpy as np
from jaxtyping import Int

from hierjax.data.config import DataConfig
from hierjax.data.images.decode import read_or_skip, report_skipped
from hierjax.data.source import Source
from hierjax.tree.label_tree import PAD, LabelTree, ShortLabels
from hierjax.types import Examples

Order = Callable[[int], Int[np.ndarray, "n"]]


@dataclasses.dataclass(frozen=True)
class LabelledImages:
  """Images with their label paths in a tree.

  Attributes:
    source: the images, and the end nodes of their labels.
    tree: the label tree.
    short_labels: the meaning of a label that ends above a leaf (READINGS A2).
  """

  source: Source
  tree: LabelTree
  short_labels: ShortLabels = "unknown"


@dataclasses.dataclass(frozen=True)
class ProcessRows:
  """The rows of each global batch that one process reads: process p of n reads rows [pB/n, (p+1)B/n).

  Attributes:
    batch_size: B, the rows of a batch over all processes; a multiple of `process_count`.
    process_index: p.
    process_count: n.
  """

  batch_size: int
  process_index: int = 0
  process_count: int = 1

  def __post_init__(self) -> None:
    """Raises ValueError for a batch that does not divide evenly."""
    if self.batch_size < 1 or self.batch_size % self.process_count:
      raise ValueError(
        f"batch_size = {self.batch_size} must be a multiple of {self.process_count}, the number of processes"
      )

  @property
  def numbers(self) -> Int[np.ndarray, "b"]:
    """The numbers of these rows in the batch."""
    share = self.batch_size // self.process_count
    return np.arange(self.process_index * share, (self.process_index + 1) * share, dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class TrainSteps:
  """A part of the endless stream of training batches.

  Attributes:
    seed: of the order of examples; 0 or more.
    count: the number of batches.
    start: the number of the first batch.
  """

  seed: int
  count: int
  start: int = 0


def train_batches(
  images: LabelledImages, config: DataConfig, rows: ProcessRows, steps: TrainSteps
) -> Generator[Examples, None, None]:
  """Returns this process's rows of training batches, numpy arrays, each a pure function of (seed, step).

  An epoch has every example once, in an order of its own. With `config.balanced` it has as many draws, in which every
  end node is equally frequent. Close the generator, or run it to its end, to stop its threads.

  Args:
    images: to train on.
    config: how images are read, and whether end nodes are balanced.
    rows: of each batch, for this process.
    steps: the batches.

  Raises:
    BadImageError: an image cannot be read, and `config.on_bad_image` is `stop`. With `skip`, its row has mask 0 and the
      pixels of the first readable image of this process's rows, so that batch norm gets pixels of the data set.
  """
  source, seed = images.source, steps.seed
  order = functools.lru_cache(maxsize=4)(
    functools.partial(_balanced_order, seed, source.nodes[:, 0])
    if config.balanced
    else functools.partial(_shuffled_order, seed, len(source))
  )

  def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    epochs, places = np.divmod((steps.start + step) * rows.batch_size + rows.numbers, len(source))
    numbers = np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
      here = epochs == epoch
      numbers[here] = order(epoch)[places[here]]
    # A balanced epoch can have an example twice: its place, which is its own, then keys its augmentation.
    return numbers, np.stack([epochs, places if config.balanced else numbers], axis=1)

  return _stream(_Batches(images, config.on_bad_image, steps.count, config.keeps_extents, examples_of), config.threads)


def eval_batches(images: LabelledImages, config: DataConfig, rows: ProcessRows) -> Generator[Examples, None, None]:
  """Returns this process's rows of batches that have every example once, in order; arguments as in `train_batches`.

  All batches have one shape: the last is padded with rows of mask 0. So are images that cannot be read, where
  `config.on_bad_image` is `skip`.
  """
  size = len(images.source)

  def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = step * rows.batch_size + rows.numbers
    return np.where(numbers < size, numbers, -1), np.stack([np.zeros_like(numbers), numbers], axis=1)

  count = -(-size // rows.batch_size)
  return _stream(_Batches(images, config.on_bad_image, count, config.keeps_extents, examples_of), config.threads)


def _shuffled_order(seed: int, size: int, epoch: int) -> Int[np.ndarray, "n"]:
  return _generator(seed, epoch).permutation(size)


def _balanced_order(seed: int, ends: Int[np.ndarray, "n"], epoch: int) -> Int[np.ndarray, "n"]:
  """Deals the places of an epoch out to the end nodes evenly, and draws an image of its own for each."""
  rng = _generator(seed, epoch)
  _, counts = np.unique(ends, return_counts=True)
  classes = rng.permutation(np.resize(rng.permutation(len(counts)), len(ends)))
  within = np.floor(rng.random(len(ends)) * counts[classes]).astype(np.int64)
  return np.argsort(ends, kind="stable")[(np.cumsum(counts) - counts)[classes] + within]


def _generator(seed: int, epoch: int) -> np.random.Generator:
  return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))


@dataclasses.dataclass(frozen=True)
class _Batches:
  """Grain's random access to whole batches.

  Attributes:
    images: the examples.
    on_bad_image: `stop` or `skip`.
    num_steps: the number of batches.
    keeps_extents: whether examples have their `extents`.
    examples_of: returns the number of each example of a batch, `i64[b]`, -1 for padding, and its draw, `i64[b 2]`.
  """

  images: LabelledImages
  on_bad_image: str
  num_steps: int
  keeps_extents: bool
  examples_of: Callable[[int], tuple[np.ndarray, np.ndarray]]

  def __len__(self) -> int:
    return self.num_steps

  def __getitem__(self, step: int) -> Examples:
    numbers, draw = self.examples_of(step)
    source, tree = self.images.source, self.images.tree
    real = numbers >= 0
    read, bad = read_or_skip(source, numbers[real], self.on_bad_image)
    images = read
    if not real.all():
      images = np.zeros((len(numbers), *source.shape), read.dtype)
      images[real] = read
    if bad:
      report_skipped(bad.values())
      bad_rows = np.flatnonzero(real)[list(bad)]
      real[bad_rows] = False
      if real.any():
        images[bad_rows] = images[np.argmax(real)]
    extents = None
    if self.keeps_extents:
      extents = np.ones((len(numbers), 2), np.int32)
      extents[numbers >= 0] = source.extents(numbers[numbers >= 0])
    nodes = np.where(real[:, None], source.nodes[numbers], PAD)
    return Examples(
      images=images,
      paths=tree.encode(nodes, self.images.short_labels),
      mask=real.astype(np.float32),
      draw=draw.astype(np.int32),
      extents=extents,
    )


def _stream(batches: _Batches, threads: int) -> Generator[Examples, None, None]:
  import grain  # takes a tenth of a second, which commands that train nothing need not wait for

  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
  iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
  try:
    yield from iterator
  finally:
    iterator.close()
