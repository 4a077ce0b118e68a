"""Prepared image sets of TensorFlow Datasets, read without TensorFlow."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer, UInt8
from tqdm import tqdm

from hierjax.config import read_json
from hierjax.data.config import DataConfig
from hierjax.data.images import cache
from hierjax.data.images.read_image import image_extent, read_image
from hierjax.data.source import Splits, deepest_nodes, pad_nodes, squares
from hierjax.errors import UserError, did_you_mean
from hierjax.extras import require
from hierjax.tree.catalog import class_nodes
from hierjax.tree.label_tree import PAD, LabelTree

KINDS = ("shapes", "noise", "folder", "arrays", "features")  # the sets that are not TFDS's
_CHUNK = 1000


def tfds_splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns the splits of the prepared set `config.name`, which has `image`, and classes in `config.label_feature`.

  Raises:
    UserError: the set is not prepared, or not in a readable format; the message has the command that prepares it.
    TreeError: a class of the set is not in `tree`; or none is, where an image has several.
  """
  builder = _builder(config)
  names, several = _classes(config, builder)
  nodes_of_class = class_nodes(tree, names, absent=PAD if several else None)
  if several and (nodes_of_class < 0).all():
    class_nodes(tree, names)  # raises, and lists a few

  def nodes_of(classes: Int[np.ndarray, "n p"]) -> Int[np.ndarray, "n q"]:
    return deepest_nodes(np.where(classes < 0, PAD, nodes_of_class[classes]), tree)

  return {split: functools.partial(TfdsSource, builder, split, config, nodes_of) for split in builder.info.splits}


def tree_of(config: DataConfig) -> LabelTree:
  """Returns the classes of the prepared set `config.name` as a tree of one level; raises UserError as `tfds_splits`."""
  names, _ = _classes(config, _builder(config))
  return LabelTree.from_children(names, [len(names)] + [0] * len(names))


def _classes(config: DataConfig, builder: Any) -> tuple[list[str], bool]:
  """Returns the names of the classes of `config.label_feature`, and whether an image may have several."""
  features, several = builder.info.features, False
  feature: Any = features
  tfds = _tfds()
  for part in config.label_feature.split("/"):
    within = isinstance(feature, tfds.features.FeaturesDict) and part in feature
    feature, inner = _element(feature[part]) if within else (None, False)
    several |= inner
  if "image" not in features or not isinstance(features["image"], tfds.features.Image):
    raise UserError(f"config.data.name = {config.name!r}: the set has no feature 'image'")
  if not isinstance(feature, tfds.features.ClassLabel):
    raise UserError(
      f"config.data.label_feature = {config.label_feature!r}: no class of {config.name!r}, whose features are "
      f"{', '.join(sorted(features))}; choose `label`, or a sequence of classes or a part of one, `bobjects/label` say"
    )
  return feature.names, several


def _element(feature: Any) -> tuple[Any, bool]:
  """Returns the element feature of a sequence, and True; any other feature itself, and False."""
  is_sequence = isinstance(feature, _tfds().features.Sequence)
  return (feature.feature, True) if is_sequence else (feature, False)


class TfdsSource:
  """One split of a prepared set of TensorFlow Datasets."""

  def __init__(self, builder: Any, split: str, config: DataConfig, nodes_of: Callable[[np.ndarray], np.ndarray]):
    """Opens the split.

    Args:
      builder: TFDS's.
      split: its name.
      config: `resize`, `stored_fit`, `keeps_extents`, `interpolation` and `label_feature` are read.
      nodes_of: returns the end nodes of images, `i32[n p]`, from their classes, `i32[n p]` with -1 for none.

    Raises:
      UserError: no example of the split has a label.
    """
    self.shape = (config.resize, config.resize, 3)
    self.name = f"{builder.info.full_name} {split}"
    files = [os.stat(path) for path in builder.info.splits[split].filepaths]
    self._files = f"{self.name} {[(file.st_size, file.st_mtime_ns) for file in files]}"
    self.settings = config.decoding
    self.fingerprint = f"{self.settings} {self._files}"
    self._fit, self._interpolation = config.stored_fit, config.interpolation
    self._keeps_extents = config.keeps_extents
    self._label_feature = config.label_feature
    self._records = builder.as_data_source(split, decoders={"image": _tfds().decode.SkipDecoding()})
    labels = self._labels()  # i32[n p], -1 where there are fewer than p
    if labels.max(initial=-1) < 0:
      raise UserError(f"{self.name}: the set has no labels for this split; choose another in config.data")
    self.nodes = nodes_of(labels)

  def __len__(self) -> int:
    return len(self._records)

  def read(self, indices: Integer[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w c"]:
    """Returns decoded images; raises BadImageError for one that cannot be decoded."""
    images = np.empty((len(indices), *self.shape), np.uint8)
    records = self._records.__getitems__(indices.tolist()) if len(indices) else []
    for row, (index, record) in enumerate(zip(indices.tolist(), records, strict=True)):
      images[row] = read_image(
        record["image"], self.shape[0], self._fit, self.name_of(index), interpolation=self._interpolation
      )
    return images

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns heights and widths; see `Source`."""
    if not self._keeps_extents or not len(indices):
      return squares(len(indices), self.shape)
    records = self._records.__getitems__(indices.tolist())
    return np.array([image_extent(record["image"]) for record in records], np.int32)

  def name_of(self, index: int) -> str:
    """Returns the name of an image in messages."""
    return f"{self.name} example {index}"

  def content(self, index: int, most: int) -> bytes:
    """Returns the bytes of an image as it is stored; see `Source`."""
    return bytes(self._records.__getitems__([index])[0]["image"]) if most else b""

  def _labels(self) -> Int[np.ndarray, "n p"]:
    """Returns the classes of every record. ImageNet has 150 GB of records, so they are kept after the first time."""
    name, fingerprint = f"{self.name} labels {self._label_feature}", f"{self._label_feature} {self._files}"
    labels = cache.load(name, fingerprint, (len(self), None), np.int32)
    if labels is None:
      found: list[list[int]] = []
      with tqdm(
        total=len(self), desc=f"reading the labels of {self.name}", unit=" labels", delay=2, leave=False, disable=None
      ) as bar:
        for start in range(0, len(self), _CHUNK):
          records = self._records.__getitems__(list(range(start, min(start + _CHUNK, len(self)))))
          found += [self._classes_of(record) for record in records]
          bar.update(len(records))
      labels = np.where((padded := pad_nodes(found)) < 0, -1, padded)
      cache.save(name, fingerprint, labels)
    return labels

  def _classes_of(self, record: Any) -> list[int]:
    """Returns the different classes of an example."""
    for part in self._label_feature.split("/"):
      record = record[part]
    return np.unique(record).tolist()


def _tfds() -> Any:
  """Returns the module `tensorflow_datasets`, which is optional and slow to import; raises UserError without it."""
  require("tfds")
  import tensorflow_datasets

  return tensorflow_datasets


def _check_features(folder: Path) -> None:
  """Raises UserError where a features.json of a set names a class that TFDS would import from elsewhere."""
  for file in sorted({*folder.glob("*/features.json"), *folder.glob("*/*/features.json")}):
    for name in _class_names(read_json(file, "the features of a set of TensorFlow Datasets")):
      if not name.startswith("tensorflow_datasets.core.features."):
        raise UserError(f"{file} names the class {name!r}, which is none of TFDS's features: no code of a set is run")


def _class_names(features: Any) -> Iterator[str]:
  """Yields the names of classes in the contents of a features.json."""
  if isinstance(features, Mapping):
    for key, value in features.items():
      if key in ("type", "pythonClassName", "python_class_name") and isinstance(value, str):
        yield value
      else:
        yield from _class_names(value)
  elif isinstance(features, list):
    for value in features:
      yield from _class_names(value)


def _builder(config: DataConfig) -> Any:
  kinds = f"choose from {', '.join(KINDS)}, or a set of TensorFlow Datasets, `cifar100` for example"
  kinds += did_you_mean(config.name, KINDS)
  try:
    tfds = _tfds()
  except UserError as error:
    raise UserError(f"config.data.name = {config.name!r}: {kinds} ({error})") from None
  folder = os.path.expanduser(config.root or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
  command = f'pip install "hierjax[prepare]" && hierjax data prepare {config.name} --data-dir={folder}'
  own = config.name.partition("/")[0].partition(":")[0]
  if own not in ("", ".", ".."):
    _check_features(Path(folder) / own)
  try:
    builder = tfds.core.read_only_builder.builder_from_files(config.name, data_dir=folder)
  except tfds.core.registered.DatasetNotFoundError:
    raise UserError(
      f"config.data.name = {config.name!r}: the set is not prepared in {folder} (config.data.root or TFDS_DATA_DIR "
      f"names another folder). This prepares it, with TensorFlow, which hierjax itself does not need:\n  {command}"
    ) from None
  except ValueError:
    raise UserError(f"config.data.name = {config.name!r}: {kinds}") from None
  if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f"{builder.data_path} is prepared as {builder.info.file_format.value}, which cannot be read by number without "
      f"TensorFlow. Move it away and prepare it as array_record:\n  {command}"
    )
  return builder
