"""Images in .npz files of arrays, and synthetic noise in place of a data set."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path

import numpy as np

from hierjax.data.config import DataConfig
from hierjax.data.source import ArraySource, Splits, checked_nodes, nodes_column
from hierjax.errors import UserError
from hierjax.tree.label_tree import LabelTree

_LAYOUT = "an .npz file with `images` (uint8[n h w c]) and `nodes` (integers [n] or [n p])"


def array_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns the splits `config.root/SPLIT.npz`.

  Each file holds `images`, `u8[n h w c]`, h and w being `config.resize`, and `nodes`, `i[n]` or `i[n p]`: the node of
  `tree` that each label path ends at, PAD (-2) where an image has fewer than p.

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
  if images.ndim != 4:
    raise UserError(
      f"{file}: `images` is {images.dtype}{list(images.shape)}; want uint8[n h w c]. Precomputed features are for "
      "config.data.name = features, in other files: configs/features.py says how"
    )
  return ArraySource(images, checked_nodes(nodes, num_nodes, f"{file}: `nodes`"), str(file))


def noise_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns train, validation and test images that are a fixed pattern for each leaf of `tree`, and noise on it.

  Where `config.width` is not 0, they are vectors instead, as precomputed features are.
  """
  sizes = {"train": config.examples, "validation": config.examples // 6, "test": config.examples // 6}
  return {
    split: functools.partial(_noise, tree, size, config, (config.split_seed, i))
    for i, (split, size) in enumerate(sizes.items())
  }


def _noise(tree: LabelTree, size: int, config: DataConfig, seed: tuple[int, int]) -> ArraySource:
  rng = np.random.default_rng(seed)
  leaves = rng.permutation(np.resize(tree.leaves, size))
  draw = _noise_vector if config.width else _noise_image
  rows = [draw(config, np.random.default_rng((seed[0], leaf)), rng) for leaf in leaves.tolist()]
  return ArraySource(np.stack(rows), nodes_column(leaves), "noise")


def _noise_image(config: DataConfig, of_leaf: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
  side, channels = config.resize, len(config.mean)
  pattern = of_leaf.integers(64, 192, (4, 4, channels))
  large = np.kron(pattern, np.ones((-(-side // 4), -(-side // 4), 1), np.int64))[:side, :side]
  return (large + rng.integers(-64, 64, large.shape)).astype(np.uint8)


def _noise_vector(config: DataConfig, of_leaf: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
  return (of_leaf.normal(size=config.width) + rng.normal(size=config.width)).astype(np.float32)
