"""The values of a config that the pretrained weights say: their network, and how they want images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hierjax.errors import UserError
from hierjax.nn.pretrained.named import PretrainedWeights, find_weights
from hierjax.nn.pretrained.preprocessing import CROP_FRACTION, Preprocessing, resized, text_of
from hierjax.nn.registry import PRETRAINED
from hierjax.runs.folder import RunFolder
from hierjax.training.sections import resolved

Config = Mapping[str, Any]

_FROM_AUTHORS = ("mean", "std", "interpolation")  # of the section `data`


def with_weights(config: Config, saved: Config | None = None) -> tuple[dict[str, Any], list[str]]:
  """Returns a config in which no value is left for the pretrained weights to say, and lines about the weights.

  `backbone.name = pretrained` becomes their network, and the values of `data` that are empty or 0 theirs; `data.size`
  sets `crop` and `resize`. `init.weights` gets the revision, and `init.sha256` the checksum of the file.

  Args:
    config: with all its fields; see `hierjax.training.sections.resolved`.
    saved: the config of the run that is in the folder, if there is one. One that began with the same weights has all
      these values already, and the weights are not looked for.

  Raises:
    UserError: a value is left open and no weights say it, or values contradict each other, or the file is another one
      than `init.sha256` says.
  """
  config = resolved(config)
  if saved is not None and _same_weights(config, saved):
    return _as_saved(config, resolved(saved)), []
  name = config["init"]["weights"]
  if not name:
    return _filled(config, None), []
  backbone = config["backbone"]
  found = find_weights(name, None if backbone["name"] == PRETRAINED else backbone)
  theirs = found.backbone["name"] if found.backbone else backbone["name"]
  if backbone["name"] not in (PRETRAINED, theirs):
    raise UserError(
      f"config.backbone.name = {backbone['name']!r}: config.init.weights = {name!r} are of {theirs}; set "
      f"config.backbone.name to {PRETRAINED}, or name other weights"
    )
  config = _filled(config | {"init": config["init"] | _identity(config, found)}, found)
  return config, [*found.lines(), *_other_images(config["data"], found)]


def _other_images(data: Config, found: PretrainedWeights) -> list[str]:
  """Returns a line on the images of a run that are not as the weights' authors had them."""
  numbers = tuple(data["mean"]), tuple(data["std"]), data["interpolation"]
  here = f"the middle {data['crop']} pixels of {data['resize']}, {text_of(*numbers)}"
  same = found.preprocessing is None or here == dataclasses.replace(found.preprocessing, other="").text()
  return [] if same else [f"images as this run has them: {here}"]


def config_of_run(config: Config, folder: RunFolder) -> tuple[dict[str, Any], list[str]]:
  """Returns what `with_weights` does for a run in a folder, new or to go on with."""
  saved = folder.config() if (folder.path / "config.json").is_file() else None
  return with_weights(config, saved)


def _identity(config: Config, found: PretrainedWeights) -> dict[str, str]:
  """Returns the name of the weights with their revision, and their checksum."""
  wanted = config["init"]["sha256"]
  if wanted not in ("", found.sha256):
    raise UserError(
      f"config.init.sha256 = {wanted!r}: {found.file} has {found.sha256}, so it is another file; set it to '' to "
      "start from this one"
    )
  return {"weights": found.name, "sha256": found.sha256}


def _filled(config: Config, found: PretrainedWeights | None) -> dict[str, Any]:
  config = dict(config)
  if config["backbone"]["name"] == PRETRAINED:
    if found is None or not found.backbone:
      why = "config.init.weights is empty" if found is None else f"{found.file} does not say which network it is of"
      raise UserError(
        f"config.backbone.name = {PRETRAINED}: {why}; set config.init.weights to lite0 or hf:timm/NAME, or "
        "config.backbone.name to a network"
      )
    config = resolved(config | {"backbone": dict(found.backbone)})
  return config | {"data": _data(config["data"], found.preprocessing if found else None)}


def _data(data: Config, known: Preprocessing | None) -> dict[str, Any]:
  """Returns the section `data` without open values."""
  data = dict(data)
  for key in _FROM_AUTHORS:
    if not data[key] and known is not None:
      data[key] = vars(known)[key]
    elif not data[key]:
      usual = {
        "mean": "(0.485, 0.456, 0.406), as most networks trained on ImageNet",
        "std": "(0.229, 0.224, 0.225), as most networks trained on ImageNet",
        "interpolation": "bilinear or bicubic",
      }
      raise UserError(f"config.data.{key} = {data[key]!r}: no pretrained weights say it, so set it: {usual[key]}")
  return data | _sizes(data, known)


def _sizes(data: Config, known: Preprocessing | None) -> dict[str, int]:
  """Returns `size`, `crop` and `resize`."""
  size, crop, resize = (data[key] for key in ("size", "crop", "resize"))
  if size == 0 and crop > 0 and resize > 0:
    return {}
  if size == 0 and crop == 0 and known is None:
    raise UserError("config.data.size = 0: no pretrained weights say the size of images, so set it, such as 224")
  side = size or crop or (known.size if known else 0)
  stored = resized(side, known.crop_fraction if known else CROP_FRACTION)
  for key, value, wanted in (("crop", crop, side), ("resize", resize, stored)):
    if size and value not in (0, wanted):
      raise UserError(
        f"config.data.size = {size} makes data.{key} = {wanted}, and config.data.{key} = {value}: set data.{key} or "
        "data.size to 0"
      )
  return {"size": side, "crop": side, "resize": resize or stored}


def _same_weights(config: Config, saved: Config) -> bool:
  """Returns whether a run began with the weights that a config names; one without a revision is that of the run."""
  ours, theirs = config["init"]["weights"], resolved(saved)["init"]["weights"]
  return bool(ours) and (ours == theirs or ours == theirs.partition("@")[0])


def _as_saved(config: Config, saved: Config) -> dict[str, Any]:
  data, before = dict(config["data"]), saved["data"]
  data |= {key: before[key] for key in _FROM_AUTHORS if not data[key]}
  if data["size"] in (0, before["size"]):
    data |= {key: before[key] for key in ("size", "crop", "resize") if data[key] == 0}
  init = {"weights": saved["init"]["weights"], "sha256": config["init"]["sha256"] or saved["init"]["sha256"]}
  backbone = saved["backbone"] if config["backbone"]["name"] == PRETRAINED else config["backbone"]
  return dict(config) | {"data": data, "init": config["init"] | init, "backbone": backbone}
