"""The data set of the config section `data`: the table of kinds of sets, and the images of a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

import numpy as np

from hierjax.data.config import DataConfig
from hierjax.data.images.decode import check_some_readable, in_memory, report_once
from hierjax.data.partial_labels import PartialLabels, known_labels, nodes_in_top_levels, to_train_on
from hierjax.data.source import ArraySource as ArraySource
from hierjax.data.source import Source, Splits, View, data_checksum, has_label, what_changed
from hierjax.data.sources import shapes
from hierjax.data.sources.arrays import array_splits, noise_splits
from hierjax.data.sources.features import feature_splits
from hierjax.data.sources.folders import FolderSource, folder_splits
from hierjax.data.sources.packs import PackSource
from hierjax.data.sources.tfds import TfdsSource, tfds_splits
from hierjax.data.split_names import CALIBRATION, split_name
from hierjax.data.splits import parts_of_training
from hierjax.errors import UserError
from hierjax.tree.label_tree import LabelTree
from hierjax.tree.readers.split_words import matching, split_of_word

_KINDS: dict[str, Callable[[DataConfig, LabelTree], Splits]] = {
  "arrays": array_splits,
  "features": feature_splits,
  "folder": folder_splits,
  "noise": noise_splits,
  "shapes": shapes.splits,
}


@dataclasses.dataclass
class Opened:
  """The opened splits of one data set: each is read, and decoded, once, and kept.

  Attributes:
    full_tree: the tree in which labels are looked up, where the tree of the labels is only its top levels. Labels that
      end below the top levels count for their ancestor there. None: labels are looked up in the tree itself.
    splits_by_set: the splits of the set, once they are listed.
    sources: all images of a split, by the set's own name of it.
    digests: of the pixels of these images, by the source and the selection; see `hierjax.inference.frozen`.
  """

  full_tree: LabelTree | None = None
  splits_by_set: dict[str, Splits] = dataclasses.field(default_factory=dict)
  sources: dict[str, Source] = dataclasses.field(default_factory=dict)
  digests: dict[str, list[bytes]] = dataclasses.field(default_factory=dict)

  def splits(self, config: DataConfig, tree: LabelTree) -> Splits:
    """Returns the splits of the set `config`, labelled in `full_tree` or else `tree`, the same trees at each call."""
    if config.name not in self.splits_by_set:
      tree = self.full_tree or tree
      # Not `.get` with a default, which hides slips elsewhere: any other name is that of a TFDS set, or an error there.
      splits = _KINDS[config.name](config, tree) if config.name in _KINDS else tfds_splits(config, tree)
      self.splits_by_set[config.name] = splits
    return self.splits_by_set[config.name]

  def source(self, config: DataConfig, tree: LabelTree, own_name: str) -> Source:
    """Returns all images of a split, by the set's own name of it."""
    if own_name not in self.sources:
      source = self.splits(config, tree)[own_name]()
      _check_fits(source, config)
      self.sources[own_name] = _decoded(source, config)
    return self.sources[own_name]


def open_source(config: DataConfig, tree: LabelTree, split: str, opened: Opened | None = None) -> Source | None:
  """Opens the images of a split.

  Args:
    config: the config section `data`.
    tree: the label tree.
    split: `train`, `validation` (or `val`), `calibration` or `test`; `config` maps them to the set's own names, see
      `DataConfig`.
    opened: the opened splits of the same set with the same trees; a new one without a `full_tree` by default.

  Returns:
    The images; None where the set has no split to test on, or where there is no validation or calibration. Training
    images with partial labels are treated as `config.partial_labels` says.

  Raises:
    UserError: the set cannot be found or read, a label is not in the tree, the set has no split that `config` names,
      its images do not fit `config.crop`, `config.resize` or `config.mean`, or they cannot be divided by `config.fine`;
      or images have no label and `config.on_no_label` is `stop`, or no image has a label.
    BadImageError: an image of a set that is decoded once is bad, and `config.on_bad_image` is `stop`.
  """
  split = split_name(split)
  images = _open(config, tree, split, opened or Opened())
  if images is None:
    return None
  return _labelled(to_train_on(images, config, tree) if split == "train" else images, config, split)


def check_trained_on(config: DataConfig, tree: LabelTree, checksum: str, opened: Opened | None = None) -> None:
  """Raises UserError where validation or calibration is a part of the training images, and these have changed.

  After such a change it is another part, with images that the run was trained on.

  Args:
    config: the config section `data`.
    tree: the label tree.
    checksum: `data_checksum` of the images that were trained on.
    opened: as in `open_source`.
  """
  opened = opened or Opened()
  carved = carved_parts(config, opened.splits(config, tree))
  if not carved:
    return
  train = open_source(config, tree, "train", opened)
  if train is None or what_changed(checksum, data_checksum(train)) not in ("", "contents"):  # which leave parts as is
    name, fraction = next(iter(carved.items()))
    raise UserError(
      f"the set {config.name!r} has other images or labels than when this run was trained, and "
      f"config.data.{name} = {fraction} keeps another part of it for {name}, with images that the run "
      "was trained on. Restore the set (--data-root is its folder), evaluate with --split test, or train a new run"
    )


def open_partial_labels(config: DataConfig, tree: LabelTree, full_tree: LabelTree | None = None) -> PartialLabels:
  """Opens the training images, with their labels as far as they are known, for any `config.partial_labels`.

  Arguments and errors are as in `open_source` and `Opened`.
  """
  images = _open(config, tree, "train", Opened(full_tree))
  if images is None:
    raise UserError(f"the data set {config.name!r} has no training images")
  return known_labels(images, config, tree)


def carved_parts(config: DataConfig, found: Splits) -> dict[str, float]:
  """Returns the splits that are parts of the set's training images, with their fractions: validation, calibration."""
  own = own_names(config, found)["validation"] is not None
  parts = {"validation": 0.0 if own else config.validation, CALIBRATION: config.calibration}
  return {name: fraction for name, fraction in parts.items() if fraction > 0}


def _open(config: DataConfig, tree: LabelTree, split: str, opened: Opened) -> View | None:
  """Opens all images of a split, with the labels that the set has for them."""
  label_tree = opened.full_tree or tree
  found = opened.splits(config, tree)
  names = own_names(config, found)
  carved = carved_parts(config, found)
  own_name = names["train"] if split in carved else names.get(split)
  if own_name is None:
    return None
  source = opened.source(config, tree, own_name)
  rows = np.arange(len(source))
  if carved and own_name == names["train"]:
    # By the labels in the whole tree, so that runs on its top levels keep the same images.
    fractions = carved.get("validation", 0.0), carved.get(CALIBRATION, 0.0)
    parts = parts_of_training(source.nodes[:, 0], *fractions, config.split_seed) * has_label(source.nodes)
    rows = np.flatnonzero(parts == ("train", "validation", CALIBRATION).index(split))
    if split in carved and not len(rows):
      raise UserError(
        f"config.data.{split} = {carved[split]}: that keeps no image of {len(source)}; "
        f"set config.data.{split}=0 to train on everything"
      )
  return View(source, rows, nodes_in_top_levels(source.nodes[rows], label_tree, tree))


def _labelled(images: View, config: DataConfig, split: str) -> View:
  """Returns the images that have a label; all, unless `config.on_no_label` is `skip`."""
  known = has_label(images.nodes)
  if known.all():
    return images
  count, first = int((~known).sum()), images.name_of(int(np.argmin(known)))
  what = f"{count:,} of {len(images):,} {split} images {'has' if count == 1 else 'have'} no label, {first} the first"
  if config.on_no_label == "stop":
    raise UserError(f"{what}: label them, or set config.data.on_no_label = skip to leave them out")
  if not known.any():
    raise UserError(f"{what}: none is left for config.data.on_no_label = skip")
  report_once(what)
  return View(images.source, images.indices[known], images.nodes[known])


def own_names(config: DataConfig, found: Collection[str]) -> dict[str, str | None]:
  """Returns the set's own name of each split of `SPLITS`, None where it has no such split.

  Raises:
    UserError: the set has no split that `config` names, several that could be meant, or trains on one that it is judged
      on.
  """
  train = _matching("train", config.train_split, found)
  test = _matching("test", config.test_split, found)
  others = [name for name in found if name != test or config.validation_split]
  validation = _matching("validation", config.validation_split, others) if config.validation else None
  for split, name in (("validation", validation), ("test", test)):
    if name is not None and name == train:
      raise UserError(
        f"config.data.{split}_split = {name!r}: these are the images that the run trains on, so its metrics would be "
        "those of training; name another split"
      )
  return {"train": train, "validation": validation, "test": test}


def _matching(split: str, named: str, found: Collection[str]) -> str | None:
  names = matching(named, found) if named else []
  if not named or named == split == "train":  # the defaults
    names = [name for name in found if split_of_word(name) == split] or names
  if len(names) > 1:
    raise UserError(
      f"the splits {' and '.join(map(repr, names))} could both be the {split} images; set config.data.{split}_split to "
      "one of them, and config.data.ignore to leave out the other"
    )
  if named and not names:
    raise UserError(f"config.data.{split}_split = {named!r}: the set has {', '.join(found) or 'no splits'}")
  return names[0] if names else None


def _check_fits(source: Source, config: DataConfig) -> None:
  if len(source.shape) != 3:  # Precomputed features are not transformed.
    return
  height, width, channels = source.shape
  if config.crop > min(height, width):
    raise UserError(
      f"config.data.crop = {config.crop}: the images of {config.name!r} have {height} x {width} pixels; choose at most "
      f"{min(height, width)}"
    )
  if height != width:
    raise UserError(f"the images of {config.name!r} have {height} x {width} pixels: store squares")
  if height != config.resize:
    raise UserError(
      f"config.data.resize = {config.resize}: the images of {config.name!r} are stored with {height} x {width} pixels, "
      f"and `predict` must make the same of a file; set config.data.resize = {height}"
    )
  if channels != len(config.mean):
    raise UserError(
      f"config.data.mean = {config.mean}: the images of {config.name!r} have {channels} channels, so give mean and std "
      f"{channels} values each"
    )


def _decoded(source: Source, config: DataConfig) -> Source:
  small = len(source) * np.prod(source.shape, dtype=np.int64) <= config.cache_mib * 2**20
  if small and isinstance(source, (FolderSource, PackSource, TfdsSource)):
    source = in_memory(source, on_bad_image=config.on_bad_image, threads=config.threads, place=config.cache_place)
  if config.on_bad_image == "skip" and (
    isinstance(source, (FolderSource, PackSource)) or (isinstance(source, ArraySource) and source.bad)
  ):
    check_some_readable(source, config.threads)
  return source
