"""Images, or precomputed features, in files of arrays; and noise that stands in for a set that is not at hand."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path

import numpy as np

from hierjax.data.config import DataConfig
from hierjax.data.source import ArraySource, Splits, nodes_column
from hierjax.errors import UserError
from hierjax.tree.label_tree import PAD, ROOT, LabelTree

_LAYOUT = (
  "an .npz file with `images` (uint8[n h w c], or float32[n d] for features) and `nodes` (integers [n] or [n p])"
)


def array_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns the splits `config.root/SPLIT.npz`.

  Each file holds `images`, `u8[n h w c]` or precomputed features `f32[n d]`, and `nodes`, `i[n]` or `i[n p]`: the node
  of `tree` that each label path ends at, PAD (-2) where an image has fewer than p.

  Raises:
    UserError: there is no such file, or it holds something else.
  """
  files = sorted(Path(config.root).expanduser().glob("*.npz")) if config.root else []
  if not files:
    raise UserError(f"config.data.root = {config.root!r}: for each split there must be {_LAYOUT}")
  return {file.stem: functools.partial(_read, file, tree.num_nodes) for file in files}


def _read(file: Path, num_nodes: int) -> ArraySource:
  try:
    with np.load(file, allow_pickle=False) as arrays:
      images, nodes = arrays["images"], arrays["nodes"]
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise UserError(f"{file}: must be {_LAYOUT} ({error})") from None
  if not np.issubdtype(nodes.dtype, np.integer) or nodes.ndim not in (1, 2):
    raise UserError(f"{file}: `nodes` is {nodes.dtype}{list(nodes.shape)}; want integers [n] or [n p]")
  column = nodes_column(nodes)
  wrong = np.argwhere((column >= num_nodes) | ((column < ROOT) & (column != PAD)))
  if len(wrong):
    row, path = wrong[0].tolist()
    raise UserError(f"{file}: nodes[{row}] holds {column[row, path]}; the tree has nodes 0 to {num_nodes - 1}")
  return ArraySource(images, column, str(file))


def noise_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns train, validation and test images that are a fixed pattern for each leaf of `tree`, and noise on it."""
  sizes = {"train": config.examples, "validation": config.examples // 6, "test": config.examples // 6}
  return {
    split: functools.partial(_noise, tree, size, config.resize, len(config.mean), (config.split_seed, i))
    for i, (split, size) in enumerate(sizes.items())
  }


def _noise(tree: LabelTree, size: int, side: int, channels: int, seed: tuple[int, int]) -> ArraySource:
  rng = np.random.default_rng(seed)
  leaves = rng.permutation(np.resize(tree.leaves, size))
  images = np.empty((size, side, side, channels), np.uint8)
  for row, leaf in enumerate(leaves.tolist()):
    pattern = np.random.default_rng((seed[0], leaf)).integers(64, 192, (4, 4, channels))
    large = np.kron(pattern, np.ones((-(-side // 4), -(-side // 4), 1), np.int64))[:side, :side]
    images[row] = large + rng.integers(-64, 64, large.shape)
  return ArraySource(images, nodes_column(leaves), "noise")
