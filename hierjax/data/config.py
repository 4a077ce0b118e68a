"""The config section `data`: the source of images, their splits, and their preparation."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hierjax.config import checked
from hierjax.data.augment import Transform
from hierjax.data.images.cache import CachePlace
from hierjax.data.images.read_image import FITS, INTERPOLATIONS, MAX_PIXELS
from hierjax.data.mixing import Mixing
from hierjax.data.photo_augment import PhotoAugment
from hierjax.errors import UserError
from hierjax.tree.readers.folders import SplitRules

ON_BAD_IMAGE = ("stop", "skip")
ON_NO_LABEL = ("stop", "skip")
MAX_SIDE = math.isqrt(MAX_PIXELS)
_MOST_DRAWN, _WIDEST = 2**32, 2**20  # bytes of all drawn images, which are in memory; features of a drawn vector
_OR_WEIGHTS = "; or name pretrained weights that say it, config.init.weights"
PACK = "pack.json"  # in a folder that `hierjax data pack` wrote
PARTIAL_LABELS = ("direct", "drop", "pseudo", "truth")


@checked
@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The section `data` of a config: the source of images, their splits, and their preparation.

  Attributes:
    name: `shapes` (drawn by the package), `noise` (a pattern for each leaf of any tree, and noise on it), `folder`,
      `arrays`, `features` (precomputed, see configs/features.py), or the name of a set of TensorFlow Datasets,
      such as `cifar100` or `imagenet2012`.
    root: the folder of the images, arrays or features, or TFDS's data folder; empty: $TFDS_DATA_DIR, or TFDS's default.
      For `folder`, what `hierjax data pack` made of the folder does as well.
    labels: for `folder`, a CSV file of labels; empty: the folders that an image lies in are its label path.
    label_feature: for a set of TFDS, the feature whose classes are the labels: `label`; or a sequence of classes or a
      part of one, such as `bobjects/label`, for multi-label images. There, classes that are not in the tree are left
      out, and so are ancestors of other classes of the same image.
    levels: for `folder` with `labels`, the columns that hold the labels, by their names in the header: a column a
      level, the top level first, or one column of whole paths such as `animal/dog`. (): they are found by the header.
    folders: for `folder` without `labels`, the folders right below `root`: `auto`, those with the names of splits are
      splits; `labels`, all are labels.
    ignore: for `folder`, names of folders right below `root`, or of splits in the file of labels, that are left out.
    train_split: the set's own name of the images to train on; where it has no such split, another word for the same
      is looked for, such as `training`.
    validation_split: the set's own name of the images to validate on. Empty: `validation`, or another word for it, such
      as `val` or `dev`, where the set has it and does not test on it; otherwise a part of the training images is kept.
    test_split: the set's own name of the images to test on. Empty: `test`, or another word for it, such as `testing`,
      where the set has it.
    validation: the fraction of the training images that is kept for validation where the set has no split for it. 0:
      there is no validation, and training uses all images.
    calibration: the fraction of the training images, without those kept for validation, that is kept for `evaluate
      --certify`: images that chose nothing. 0: none is kept.
    split_seed: chooses which images are kept; apart from the run's seed, so that runs of several seeds compare.
    fine: the fraction of the training images, without those kept for validation, that keep their whole labels. They are
      drawn by `split_seed`; neither other fractions nor `partial_labels` change the draw.
    fine_per_label: in place of a fraction, how many training images of each label keep their whole labels; all, of a
      label with fewer. 0: `fine` says it.
    coarse: the fraction of the training images, disjoint from `fine`, whose labels are cut; with `fine_per_label`, 1 is
      all the others. Images in neither part are left out.
    coarse_level: the number of levels, from the top, that a cut label keeps.
    partial_labels: the use of training images with partial labels, which end above a leaf, cut or in the set itself.
      `direct`: the known part of the label is trained; `drop`: the images are left out; `pseudo`: they get the labels
      of the file `pseudo_labels`; `truth`: cut labels are restored. Images without any known label are among them.
    pseudo_labels: a file that `hierjax data pseudo-label` wrote.
    examples: how many training images `shapes` and `noise` draw; a sixth as many each to validate and to test.
    width: how many features a vector has that `noise` draws in place of an image; 0 for images.
    objects: the most objects, and so label paths, in one image of `shapes`.
    size: the one number for the size of images: `crop` is this, and `resize` a little more, so that the crop is the
      middle part which the authors of the pretrained weights read (without weights, 7/8). On a command line it replaces
      the `crop` and `resize` of a config file. 0: what `crop` and `resize` say.
    resize: the side of the squares that images are stored as; for `arrays`, that of the images in the files. 0: as
      `size`, or the pretrained weights, have it.
    fit: how an image becomes that square. `crop`: the shorter side is resized to it and the centre cropped. `stretch`:
      both sides are resized to it, for any ratio of the sides (Zuo et al. IV-A, as in Caffe). `pad`: the longer side
      is resized to it, and the rest of the square is grey; for long things, such as plankton.
    interpolation: of pixels where the side changes: `bilinear` or `bicubic`; empty: as the pretrained weights have it.
    crop: the side of the squares that the model reads. 0: as `size`, or the pretrained weights, have it.
    sides: the least and the most that the side of a training image, stored as `resize`, is resized to before the crop,
      at random; evaluation takes the middle (Koo et al., section 4.1: 256 to 512). With `fit = crop` it is the shorter
      side of the whole image, which is stored stretched and put right before the crop, so that crops reach its ends. ()
      for as it is stored.
    pad: zeros put around an image, in normalised space, before the random crop of training.
    mirror: whether training mirrors every other image, at random.
    crops: of training: `random`, anywhere in the padded image; or `ten`, one of the ten fixed ones of `decode.views`,
      each as probable: the centre, the corners, and their mirror images (Zuo et al. IV-A; READINGS Z16).
    crop_area: the least and the largest part of an image's area that training crops at random and resizes to `crop`;
      the ratio of the sides is from 3/4 to 4/3. (): no such crop.
    train_crop: the side that such crops are resized to, where it is smaller than `crop`: training is faster, and a
      network gains accuracy on images somewhat larger than those it was trained on (Touvron et al. 2019). 0: `crop`.
    jitter: three numbers j: training changes brightness, contrast and saturation by factors from 1 - j to 1 + j. (): it
      does not.
    rotate: the largest angle of a random rotation in training, in degrees.
    flip: whether training turns every other image upside down, at random.
    erase: the probability that training gives a box of an image the mean colour.
    mixup: a of the distribution Beta(a, a) of the weight of two images that training mixes; 0: it mixes none.
    cutmix: the same for a box of another image in an image; 0: none.
    label_smoothing: e: training drops the last node of a label with probability e, then the one before, and so on, and
      goes on to random nodes from there; see `hierjax.data.mixing.smoothed_paths`.
    mean: of each channel, of pixels from 0 to 1. (): as the pretrained weights have it.
    std: of each channel, of pixels from 0 to 1. (): as the pretrained weights have it.
    on_bad_image: `stop` the run, naming the file, or `skip` the image, which is then reported and never counts: its row
      of a batch has mask 0 and the pixels of another row.
    on_no_label: `stop` the run where images of a split have no label, naming the first, or `skip` these: they are left
      out of the split. Images that `partial_labels` drops or gives pseudo-labels do not stop a run.
    all_bytes: whether all bytes of the images tell that they have changed since a run began. Otherwise these are the
      sizes of all files, and bytes of a thousand images, which finds other files, but no single changed pixel.
    cache_mib: a set that takes no more MiB than this is decoded once, into memory. Images of a larger one are decoded
      for each batch, by `threads` threads, and no more than a few batches of it are in memory.
    cache_gib: decoded images are kept in `cache_folder`, where decoding takes more than half a second, so that the next
      run need not decode them. All sets there take at most so many GiB, and the least recently used go first; 0: none
      are kept. `hierjax data clear-cache` removes them.
    cache_folder: empty: `$XDG_CACHE_HOME/hierjax`, or `~/.cache/hierjax`.
    threads: threads that read images.
    balanced: whether training draws every end node equally often, instead of every image once an epoch.
  """

  name: str = "shapes"
  root: str = ""
  labels: str = ""
  levels: Sequence[str] = ()
  folders: Literal["auto", "labels"] = "auto"
  ignore: Sequence[str] = ()
  label_feature: str = "label"
  train_split: str = "train"
  validation_split: str = ""
  test_split: str = ""
  validation: float = 0.1
  calibration: float = 0.0
  split_seed: int = 0
  fine: float = 1.0
  fine_per_label: int = 0
  coarse: float = 0.0
  coarse_level: int = 1
  partial_labels: str = "direct"
  pseudo_labels: str = ""
  examples: int = 12_000
  width: int = 0
  objects: int = 1
  size: int = 0
  resize: int = 32
  fit: str = "crop"
  interpolation: Literal["", "bilinear", "bicubic"] = "bilinear"
  crop: int = 32
  sides: Sequence[int] = ()
  pad: int = 4
  mirror: bool = True
  crops: Literal["random", "ten"] = "random"
  crop_area: Sequence[float] = ()
  train_crop: int = 0
  jitter: Sequence[float] = ()
  rotate: float = 0.0
  flip: bool = False
  erase: float = 0.0
  mixup: float = 0.0
  cutmix: float = 0.0
  label_smoothing: float = 0.0
  mean: Sequence[float] = (0.5, 0.5, 0.5)
  std: Sequence[float] = (0.25, 0.25, 0.25)
  on_bad_image: str = "stop"
  on_no_label: str = "stop"
  all_bytes: bool = False
  cache_mib: int = 1024
  cache_gib: float = 32.0
  cache_folder: str = ""
  threads: int = 4
  balanced: bool = False

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    object.__setattr__(self, "mean", tuple(map(float, self.mean)))  # A config read back from JSON has lists.
    object.__setattr__(self, "std", tuple(map(float, self.std)))
    laws = {
      "validation": (0 <= self.validation < 1, "a fraction from 0 to below 1"),
      "calibration": (0 <= self.calibration < 1, "a fraction from 0 to below 1"),
      "split_seed": (self.split_seed >= 0, "0 or more"),
      "fine": (0 < self.fine <= 1, "a fraction above 0, up to 1"),
      "fine_per_label": (
        self.fine_per_label == 0 or (self.fine_per_label > 0 and self.fine == 1),
        "0 or more, and 0 where data.fine is below 1",
      ),
      "coarse": (
        0 <= self.coarse <= 1 - (0 if self.fine_per_label else self.fine) + 1e-9,
        "from 0 to 1"
        if self.fine_per_label
        else f"from 0 to 1 - data.fine, which is {1 - self.fine:g}: an image is in one part only",
      ),
      "coarse_level": (self.coarse_level >= 1, "1 or more levels"),
      "partial_labels": (self.partial_labels in PARTIAL_LABELS, f"one of {', '.join(PARTIAL_LABELS)}"),
      "width": (0 <= self.width <= _WIDEST, f"0 (images) or more, and at most {_WIDEST:,}"),
      "objects": (1 <= self.objects <= 3, "1, 2 or 3"),
      "size": (self.size in (0, self.crop), f"0, or data.crop, which is {self.crop}"),
      "resize": (1 <= self.resize <= MAX_SIDE, f"from 1 to {MAX_SIDE} pixels{_OR_WEIGHTS}"),
      "fit": (self.fit in FITS, " or ".join(FITS)),
      "interpolation": (self.interpolation in INTERPOLATIONS, f"{' or '.join(INTERPOLATIONS)}{_OR_WEIGHTS}"),
      "crop": (1 <= self.crop <= self.resize, f"from 1 to data.resize, which is {self.resize}"),
      "pad": (0 <= self.pad <= MAX_SIDE, f"from 0 to {MAX_SIDE} pixels"),
      "mean": (
        len(self.mean) > 0 and all(0 <= mean <= 1 for mean in self.mean),
        f"from 0 to 1, as pixels are here{_OR_WEIGHTS}",
      ),
      "std": (
        all(0 < std <= 1 for std in self.std) and len(self.std) == len(self.mean),
        "above 0 and at most 1, one for each mean",
      ),
      "on_bad_image": (self.on_bad_image in ON_BAD_IMAGE, " or ".join(ON_BAD_IMAGE)),
      "on_no_label": (self.on_no_label in ON_NO_LABEL, " or ".join(ON_NO_LABEL)),
      "cache_mib": (self.cache_mib >= 0, "0 or more"),
      "cache_gib": (self.cache_gib >= 0, "0 or more"),
      "threads": (self.threads >= 1, "1 or more"),
      "examples": (
        self.examples >= 6 and (self.name not in ("shapes", "noise") or self.examples <= self._most_drawn),
        f"6 or more, and at most {self._most_drawn:,}, so that they take 4 GiB of memory at most",
      ),
    }
    if self.crops == "ten":
      plain = not (self.pad or self.sides or self.crop_area)
      laws["crops"] = (plain, "random where data.pad, data.sides or data.crop_area are set")
    if self.sides:
      laws["sides"] = (
        len(self.sides) == 2 and self.crop <= self.sides[0] <= self.sides[1] <= MAX_SIDE,
        f"() or two sides in rising order, from data.crop = {self.crop} to {MAX_SIDE}",
      )
      laws["pad"] = (self.pad == 0, "0 where data.sides are given")
    values = dataclasses.asdict(self)
    for key, (holds, allowed) in laws.items():
      if not holds:
        raise UserError(f"config.data.{key} = {values[key]!r}: must be {allowed}")
    self.transform.check()

  @property
  def _most_drawn(self) -> int:
    """How many images of a size, or vectors, a set may draw."""
    return _MOST_DRAWN // max(4 * self.width or len(self.mean) * self.resize**2, 1)

  @property
  def is_pack(self) -> bool:
    """Whether `root` is what `hierjax data pack` wrote, in place of a folder of images."""
    return self.name == "folder" and bool(self.root) and (Path(self.root).expanduser() / PACK).is_file()

  @property
  def decoding(self) -> str:
    """What the pixels of a decoded image depend on; in the names of the cache."""
    usual = self.interpolation == "bilinear"  # as it was before there was another
    return f"{self.resize} {self.stored_fit}" if usual else f"{self.resize} {self.stored_fit} {self.interpolation}"

  @property
  def keeps_extents(self) -> bool:
    """Whether images are stored stretched, with their height and width, so that crops see all of them."""
    return bool(self.sides) and self.fit == "crop"

  @property
  def stored_fit(self) -> str:
    """How an image becomes the square that it is stored as."""
    return "stretch" if self.keeps_extents else self.fit

  @property
  def cache_place(self) -> CachePlace:
    """The cache of decoded images."""
    return CachePlace(self.cache_folder, int(self.cache_gib * 2**30))

  @property
  def split_rules(self) -> SplitRules:
    """The reading of the folders right below `root`."""
    named = tuple(filter(None, (self.validation_split, self.test_split)))
    return SplitRules(self.train_split, named, tuple(self.ignore), self.folders == "labels")

  def moved(self, root: str) -> DataConfig:
    """Returns the config of the set that lies in `root` now, and with it a file of labels that lay below the old root.

    Where no such file is below `root`, only the images have moved. A pack has the labels too.
    """
    packed = dataclasses.replace(self, root=root, labels="", levels=(), folders="auto", ignore=())
    if packed.is_pack:
      return packed
    old, labels = (Path(os.path.abspath(Path(path).expanduser())) for path in (self.root, self.labels))
    moved = self.labels
    if self.root and self.labels and labels.is_relative_to(old):
      new = Path(root).expanduser() / labels.relative_to(old)
      moved = str(new) if new.exists() else moved
    return dataclasses.replace(self, root=root, labels=moved)

  @property
  def transform(self) -> Transform:
    """The settings of preprocessing."""
    colour = tuple(self.jitter)
    photo = PhotoAugment(tuple(self.crop_area), self.train_crop, colour, self.rotate, self.flip, self.erase)
    return Transform(
      self.crop,
      self.pad,
      self.mirror,
      mean=tuple(self.mean),
      std=tuple(self.std),
      sides=tuple(self.sides),
      ten_crops=self.crops == "ten",
      photo=photo,
      mixing=Mixing(self.mixup, self.cutmix, self.label_smoothing),
    )
