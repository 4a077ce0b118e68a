"""The preparation of images that pretrained weights want."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hierjax.errors import UserError

CROP_FRACTION = 0.875  # of 256 pixels, 224: what most networks were evaluated with
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How the authors of weights prepare an image.

  Attributes:
    size: the side of the square that the network reads, in pixels.
    mean: of each channel, of pixels from 0 to 1.
    std: of each channel, of pixels from 0 to 1.
    interpolation: `bicubic` or `bilinear`.
    crop_fraction: the side of that square in relation to the shorter side of the resized image, above 0 to 1.
    other: what they do and hierjax does not, in words; ''.
  """

  size: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  interpolation: str = "bicubic"
  crop_fraction: float = CROP_FRACTION
  other: str = ""

  def text(self) -> str:
    """Returns it in words."""
    resize = resized(self.size, self.crop_fraction)
    other = f" ({self.other})" if self.other else ""
    return f"the middle {self.size} pixels of {resize}, {text_of(self.mean, self.std, self.interpolation)}{other}"


def text_of(mean: Sequence[float], std: Sequence[float], interpolation: str) -> str:
  """Returns the values of pixels in words."""
  texts = (", ".join(f"{value:.4g}" for value in values) for values in (mean, std))
  return "{}; mean {}; deviation {}".format(interpolation, *texts)


def resized(size: int, crop_fraction: float = CROP_FRACTION) -> int:
  """Returns the side of the square whose middle `size` pixels are read."""
  return max(size, round(size / crop_fraction))


class OfTimm(NamedTuple):
  """What timm's config.json says.

  Attributes:
    preprocessing: of images.
    classes: of the last layer; 0 for a network without one.
  """

  preprocessing: Preprocessing
  classes: int


def of_timm(about: Mapping[str, Any], where: str) -> OfTimm:
  """Returns the preparation of images by timm's `pretrained_cfg`, and the number of classes.

  Args:
    about: the content of a config.json.
    where: the file, for messages.

  Raises:
    UserError: it lacks a value, or has one of another kind.
  """
  config = about.get("pretrained_cfg", about)
  if not isinstance(config, Mapping):
    raise UserError(f"{where}: it has no pretrained_cfg, which says how images are prepared")
  found = {"crop_pct": CROP_FRACTION, "interpolation": "bicubic"} | dict(config)
  size = found.get("input_size")
  laws = {
    "input_size": isinstance(size, Sequence)
    and len(size) == 3
    and all(type(s) is int and 0 < s < 10_000 for s in size),
    "mean": _are_numbers(found.get("mean")),
    "std": _are_numbers(found.get("std")),
    "crop_pct": _is_number(found["crop_pct"]),
    "interpolation": isinstance(found["interpolation"], str),
  }
  if wrong := [key for key, holds in laws.items() if not holds]:
    raise UserError(f"{where}: it has no {wrong[0]}, or one of another kind: {found.get(wrong[0])!r}"[:300])
  classes = about.get("num_classes", found.get("num_classes", 0))
  interpolation = found["interpolation"] if found["interpolation"] in INTERPOLATIONS else "bicubic"
  mean, std = (tuple(map(float, found[key])) for key in ("mean", "std"))
  others = [f"resized by {found['interpolation']}"] if interpolation != found["interpolation"] else []
  if found.get("crop_mode", "center") == "squash":
    others.append("squeezed to a square: set config.data.fit = stretch")
  other = f"in the authors' evaluation {', and '.join(others)}" if others else ""
  preprocessing = Preprocessing(max(found["input_size"][1:]), mean, std, interpolation, float(found["crop_pct"]), other)
  return OfTimm(preprocessing, classes if type(classes) is int else 0)


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and 0 < value <= 1


def _are_numbers(values: Any) -> bool:
  return isinstance(values, Sequence) and len(values) == 3 and all(v == 0 or _is_number(v) for v in values)
