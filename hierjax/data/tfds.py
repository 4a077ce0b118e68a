"""Image sets of TensorFlow Datasets that are prepared already, read without TensorFlow: one piece of code for all."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, Integer, UInt8
from tqdm import tqdm

from hierjax.data import cache
from hierjax.data.config import DataConfig
from hierjax.data.images import read_image
from hierjax.data.source import Splits, nodes_column
from hierjax.errors import UserError
from hierjax.tree.catalog import class_nodes
from hierjax.tree.label_tree import LabelTree

_CHUNK = 1000


def tfds_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns the splits of the prepared set `config.name`, which has the features `image` and `label`.

  Raises:
    UserError: the set is not prepared, or not in a form that can be read here; the message says what prepares it.
    TreeError: a class of the set is not in `tree`.
  """
  builder = _builder(config)
  nodes_of_class = class_nodes(tree, _class_names(config, builder))
  return {
    split: functools.partial(TfdsSource, builder, split, nodes_of_class, config.resize, config.fit)
    for split in builder.info.splits
  }


def tree_of(config: DataConfig) -> LabelTree:
  """Returns the classes of the prepared set `config.name` as a tree of one level; raises UserError as `tfds_splits`."""
  names = _class_names(config, _builder(config))
  return LabelTree.from_children(names, [len(names)] + [0] * len(names))


def _class_names(config: DataConfig, builder: Any) -> list[str]:
  features = builder.info.features
  if not (
    {"image", "label"} <= set(features)
    and isinstance(features["image"], tfds.features.Image)
    and isinstance(features["label"], tfds.features.ClassLabel)
  ):
    raise UserError(f"config.data.name = {config.name!r}: the set has no features 'image' and 'label' (one class)")
  return features["label"].names


class TfdsSource:
  """One split of a prepared set of TensorFlow Datasets."""

  def __init__(self, builder: Any, split: str, nodes_of_class: Int[np.ndarray, "k"], resize: int, fit: str):
    """Opens the split.

    Args:
      builder: TFDS's.
      split: its name.
      nodes_of_class: the tree node of each class.
      resize: the side of the squares that `read` returns, in pixels.
      fit: how an image becomes that square, see `read_image`.

    Raises:
      UserError: the split has examples without a label.
    """
    self.shape = (resize, resize, 3)
    self.name = f"{builder.info.full_name} {split}"
    files = [os.stat(path) for path in builder.info.splits[split].filepaths]
    self._files = f"{self.name} {[(file.st_size, file.st_mtime_ns) for file in files]}"
    self.fingerprint = f"{resize} {fit} {self._files}"
    self._fit = fit
    self._records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = self._labels()
    if labels.min(initial=0) < 0:
      raise UserError(f"{self.name}: the set does not tell the labels of this split; choose another in config.data")
    self.nodes = nodes_column(nodes_of_class[labels])

  def __len__(self) -> int:
    return len(self._records)

  def read(self, indices: Integer[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w c"]:
    """Returns decoded images; raises BadImageError for one that cannot be decoded."""
    images = np.empty((len(indices), *self.shape), np.uint8)
    records = self._records.__getitems__(indices.tolist()) if len(indices) else []
    for row, (index, record) in enumerate(zip(indices.tolist(), records, strict=True)):
      images[row] = read_image(record["image"], self.shape[0], self._fit, self.describe(index))
    return images

  def describe(self, index: int) -> str:
    """Returns what to call an image in a message."""
    return f"{self.name} example {index}"

  def _labels(self) -> Int[np.ndarray, "n"]:
    """Reads every record for its label, the first time: ImageNet's are 150 GB, so they are kept whatever it took."""
    labels = cache.load(f"{self.name} labels", self._files, (len(self),), np.int32)
    if labels is None:
      labels = np.empty(len(self), np.int32)
      with tqdm(
        total=len(self), desc=f"reading the labels of {self.name}", unit=" labels", delay=2, leave=False, disable=None
      ) as bar:
        for start in range(0, len(self), _CHUNK):
          records = self._records.__getitems__(list(range(start, min(start + _CHUNK, len(self)))))
          labels[start : start + len(records)] = [record["label"] for record in records]
          bar.update(len(records))
      cache.save(f"{self.name} labels", self._files, labels)
    return labels


def _builder(config: DataConfig) -> Any:
  folder = os.path.expanduser(config.root or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
  command = (
    "python -m pip install -r requirements-prepare.txt && "
    f"python -m hierjax.data.prepare {config.name} --data-dir={folder}"
  )
  try:
    builder = tfds.core.read_only_builder.builder_from_files(config.name, data_dir=folder)
  except tfds.core.registered.DatasetNotFoundError:
    raise UserError(
      f"config.data.name = {config.name!r}: the set is not prepared in {folder} (config.data.root or TFDS_DATA_DIR "
      f"names another folder). This prepares it, with TensorFlow, which hierjax itself does not need:\n  {command}"
    ) from None
  except ValueError:
    raise UserError(
      f"config.data.name = {config.name!r}: choose from shapes, noise, folder, arrays, features, or a set of "
      "TensorFlow Datasets, `cifar100` or `sun397/tfds` say"
    ) from None
  if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f"{builder.data_path} is prepared as {builder.info.file_format.value}, which cannot be read by number without "
      f"TensorFlow. Move it away and prepare it as array_record:\n  {command}"
    )
  return builder
