"""Opens what the config section `data` names; the one table of kinds of sets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hierjax.data.config import DataConfig
from hierjax.data.decode import in_memory, report_once
from hierjax.data.partial_labels import PartlyLabelled, climb, partly_labelled, to_train_on
from hierjax.data.source import ArraySource as ArraySource
from hierjax.data.source import Source, Splits, View, data_checksum, has_label, same_data
from hierjax.data.sources import shapes
from hierjax.data.sources.arrays import array_splits, noise_splits
from hierjax.data.sources.features import feature_splits
from hierjax.data.sources.folders import FolderSource, folder_splits
from hierjax.data.sources.tfds import TfdsSource, tfds_splits
from hierjax.data.splits import kept_for_validation
from hierjax.errors import UserError
from hierjax.tree.label_tree import LabelTree

SPLITS = ("train", "validation", "test")

_KINDS: dict[str, Callable[[DataConfig, LabelTree], Splits]] = {
  "arrays": array_splits,
  "features": feature_splits,
  "folder": folder_splits,
  "noise": noise_splits,
  "shapes": shapes.splits,
}


class Opened:
  """What has been opened of one set: each of its own splits is read, and decoded, once, and kept."""

  def __init__(self) -> None:
    self._splits: Splits | None = None
    self._sources: dict[str, Source] = {}

  def splits(self, config: DataConfig, tree: LabelTree) -> Splits:
    """Returns the splits that the set `config` has, labelled in `tree`; the arguments are the same at each call."""
    if self._splits is None:
      # Not `.get` with a default, which hides slips elsewhere: here every other name is TFDS's to know or to refuse.
      self._splits = _KINDS[config.name](config, tree) if config.name in _KINDS else tfds_splits(config, tree)
    return self._splits

  def source(self, config: DataConfig, tree: LabelTree, own_name: str) -> Source:
    """Returns all images of a split, by the set's own name of it."""
    if own_name not in self._sources:
      source = self.splits(config, tree)[own_name]()
      _check_fits(source, config)
      self._sources[own_name] = _decoded(source, config)
    return self._sources[own_name]


def open_source(
  config: DataConfig, tree: LabelTree, split: str, full_tree: LabelTree | None = None, opened: Opened | None = None
) -> Source | None:
  """Opens the images of a split.

  Args:
    config: the config section `data`.
    tree: the label tree.
    split: `train`, `validation` or `test`, whatever the set calls them; see `DataConfig`.
    full_tree: where `tree` is only the top levels of another, that tree: labels are looked up in it, and those that end
      below `tree` count for their ancestor in it.
    opened: what was opened before of the same set, with the same whole tree.

  Returns:
    The images; None where the set has no split to test on, or where there is no validation. Those to train on are as
    `config.coarse_images` says.

  Raises:
    UserError: the set cannot be found or read, a label is not in the tree, the set has no split that `config` names,
      its images do not fit `config.crop`, `config.resize` or `config.mean`, or they cannot be divided as `config.fine`
      says; or images have no label and `config.on_no_label` is `stop`, or none has.
    BadImageError: an image of a set that is decoded once is bad, and `config.on_bad_image` is `stop`.
  """
  images = _open(config, tree, split, full_tree, opened or Opened())
  if images is None:
    return None
  return _labelled(to_train_on(images, config, tree) if split == "train" else images, config, split)


def check_trained_on(
  config: DataConfig, tree: LabelTree, checksum: str, full_tree: LabelTree | None = None, opened: Opened | None = None
) -> None:
  """Raises UserError where validation is a part of the training images, and these have changed.

  Then it is another part, among which are images that were trained on.

  Args:
    config: the config section `data`.
    tree: the label tree.
    checksum: `data_checksum` of the images that were trained on.
    full_tree: as in `open_source`.
    opened: as in `open_source`.
  """
  opened = opened or Opened()
  if not is_carved(config, opened.splits(config, full_tree or tree)):
    return
  train = open_source(config, tree, "train", full_tree, opened)
  if train is None or not same_data(checksum, data_checksum(train)):
    raise UserError(
      f"the set {config.name!r} has other images or labels than when this run was trained, and "
      f"config.data.validation = {config.validation} keeps another part of it for validation: among that are images "
      "that the run was trained on. Restore the set (--data-root says where it is), judge the run on --split test, or "
      "train anew"
    )


def open_partly_labelled(config: DataConfig, tree: LabelTree, full_tree: LabelTree | None = None) -> PartlyLabelled:
  """Opens the training images, with their labels and as much of them as is known, whatever `config.coarse_images` says.

  Arguments and errors are as in `open_source`.
  """
  images = _open(config, tree, "train", full_tree, Opened())
  if images is None:
    raise UserError(f"the data set {config.name!r} has no training images")
  return partly_labelled(images, config, tree)


def is_carved(config: DataConfig, found: Splits) -> bool:
  """Returns whether the images to validate on are a part of those that the set has to train on."""
  return config.validation > 0 and _own_name(config, found, "validation") is None


def _open(config: DataConfig, tree: LabelTree, split: str, full_tree: LabelTree | None, opened: Opened) -> View | None:
  """Opens all images of a split, with the labels that the set has for them."""
  if split not in SPLITS:
    raise UserError(f"split {split!r}: choose from {', '.join(SPLITS)}")
  label_tree = full_tree or tree
  found = opened.splits(config, label_tree)
  own_name = _own_name(config, found, split)
  carved = split != "test" and is_carved(config, found)
  if carved:
    own_name = _own_name(config, found, "train")
  if own_name is None:
    return None
  source = opened.source(config, label_tree, own_name)
  rows = np.arange(len(source))
  if carved:
    # By the labels in the whole tree, so that runs on its top levels keep the same images.
    kept = kept_for_validation(source.nodes[:, 0], config.validation, config.split_seed) & has_label(source.nodes)
    rows = np.flatnonzero(kept == (split == "validation"))
    if not len(rows):
      raise UserError(
        f"config.data.validation = {config.validation}: that keeps no image of {len(source)}; "
        "set config.data.validation=0 to train on everything"
      )
  return View(source, rows, climb(source.nodes[rows], label_tree, tree))


def _labelled(images: View, config: DataConfig, split: str) -> View:
  """Returns the images that have a label; all, unless `config.on_no_label` is `skip`."""
  known = has_label(images.nodes)
  if known.all():
    return images
  count, first = int((~known).sum()), images.describe(int(np.argmin(known)))
  what = f"{count:,} of {len(images):,} {split} images {'has' if count == 1 else 'have'} no label, {first} the first"
  if config.on_no_label == "stop":
    raise UserError(f"{what}: label them, or set config.data.on_no_label = skip to leave them out")
  if not known.any():
    raise UserError(f"{what}: none is left for config.data.on_no_label = skip")
  report_once(what)
  return View(images.source, images.indices[known], images.nodes[known])


def _own_name(config: DataConfig, found: Splits, split: str) -> str | None:
  """Returns what the set calls a split; None where it has none."""
  test = config.test_split or "test"
  named, automatic = {
    "train": (config.train_split, []),
    "validation": (config.validation_split, [name for name in ("validation", "val") if name != test]),
    "test": (config.test_split, [test]),
  }[split]
  if split == "validation" and config.validation == 0:
    return None
  if named and named not in found:
    raise UserError(f"config.data.{split}_split = {named!r}: the set {config.name!r} has {', '.join(found)}")
  return named or next((name for name in automatic if name in found), None)


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
  if not (small and isinstance(source, (FolderSource, TfdsSource))):
    return source
  return in_memory(source, on_bad_image=config.on_bad_image, threads=config.threads)
