"""Batches as pure functions of their number, so that a run can go on and any process count sees the same.

Grain's threads make whole batches ahead; a batch's rows are gathered at once. Position q of the training stream is row
q mod B of batch q // B, and example q mod N of the order of epoch q // N: batches run on across epochs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator

import grain
import numpy as np
from jaxtyping import Int

from hierjax.data.config import DataConfig
from hierjax.data.decode import read_or_skip, report_skipped
from hierjax.data.source import Source
from hierjax.tree.label_tree import PAD, LabelTree, ShortLabels
from hierjax.types import Examples

Order = Callable[[int], Int[np.ndarray, "n"]]


def train_batches(
  source: Source,
  tree: LabelTree,
  *,
  config: DataConfig,
  batch_size: int,
  seed: int,
  num_steps: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  short_labels: ShortLabels = "unknown",
) -> Generator[Examples, None, None]:
  """Returns this process's rows of training batches, numpy arrays, each a pure function of (seed, step).

  An epoch has every example once, in an order of its own; or, where `config.balanced`, as many draws, in which every
  end node is as frequent. Close the generator, or run it to its end, to be rid of its threads.

  Args:
    source: the images.
    tree: the tree that its nodes are of.
    config: says how images are read, and whether end nodes are balanced.
    batch_size: rows of a batch over all processes; a multiple of `process_count`.
    seed: of the order; 0 or more.
    num_steps: how many batches, from `start_step` on.
    start_step: the number of the first batch.
    process_index: which of the processes this is; process p of n gets rows [pB/n, (p+1)B/n).
    process_count: how many there are.
    short_labels: what follows a label that ends above a leaf (READINGS A2).

  Raises:
    BadImageError: an image cannot be read, and `config.on_bad_image` is `stop`. If it is `skip`, the row has mask 0 and
      the pixels of the first image of this process's rows that can be read, so that batch norm sees nothing foreign.
  """
  rows = _rows(batch_size, process_index, process_count)
  order = functools.lru_cache(maxsize=4)(
    functools.partial(_balanced_order, seed, source.nodes[:, 0])
    if config.balanced
    else functools.partial(_shuffled_order, seed, len(source))
  )

  def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    epochs, places = np.divmod((start_step + step) * batch_size + rows, len(source))
    numbers = np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
      here = epochs == epoch
      numbers[here] = order(epoch)[places[here]]
    # A balanced epoch can have an example twice: its place, which is its own, then keys its augmentation.
    return numbers, np.stack([epochs, places if config.balanced else numbers], axis=1)

  return _stream(_Batches(source, tree, short_labels, config.on_bad_image, num_steps, examples_of), config.threads)


def eval_batches(
  source: Source,
  tree: LabelTree,
  *,
  config: DataConfig,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  short_labels: ShortLabels = "unknown",
) -> Generator[Examples, None, None]:
  """Returns this process's rows of batches that have every example once, in order; arguments as in `train_batches`.

  All batches have one shape: the last is padded with rows of mask 0, as are images that cannot be read where
  `config.on_bad_image` is `skip`.
  """
  rows = _rows(batch_size, process_index, process_count)

  def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = step * batch_size + rows
    return np.where(numbers < len(source), numbers, -1), np.stack([np.zeros_like(numbers), numbers], axis=1)

  num_steps = -(-len(source) // batch_size)
  return _stream(_Batches(source, tree, short_labels, config.on_bad_image, num_steps, examples_of), config.threads)


def _rows(batch_size: int, process_index: int, process_count: int) -> np.ndarray:
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(f"batch_size = {batch_size} must be a multiple of {process_count}, the number of processes")
  share = batch_size // process_count
  return np.arange(process_index * share, (process_index + 1) * share, dtype=np.int64)


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
    source: the images.
    tree: their label tree.
    short_labels: as in `train_batches`.
    on_bad_image: `stop` or `skip`.
    num_steps: how many batches there are.
    examples_of: gives the number of each example of a batch, `i64[b]`, -1 for padding, and its draw, `i64[b 2]`.
  """

  source: Source
  tree: LabelTree
  short_labels: ShortLabels
  on_bad_image: str
  num_steps: int
  examples_of: Callable[[int], tuple[np.ndarray, np.ndarray]]

  def __len__(self) -> int:
    return self.num_steps

  def __getitem__(self, step: int) -> Examples:
    numbers, draw = self.examples_of(step)
    real = numbers >= 0
    read, bad = read_or_skip(self.source, numbers[real], self.on_bad_image)
    images = read
    if not real.all():
      images = np.zeros((len(numbers), *self.source.shape), read.dtype)
      images[real] = read
    if bad:
      report_skipped(bad.values())
      bad_rows = np.flatnonzero(real)[list(bad)]
      real[bad_rows] = False
      if real.any():
        images[bad_rows] = images[np.argmax(real)]
    nodes = np.where(real[:, None], self.source.nodes[numbers], PAD)
    return Examples(
      images=images,
      paths=self.tree.encode(nodes, self.short_labels),
      mask=real.astype(np.float32),
      draw=draw.astype(np.int32),
    )


def _stream(batches: _Batches, threads: int) -> Generator[Examples, None, None]:
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
  iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
  try:
    yield from iterator
  finally:
    iterator.close()
