"""Conversion of other libraries' weights to those of a backbone: names, memory layout, and a check of all shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from hierjax.errors import UserError
from hierjax.nn.pretrained.files import read_weights, shown
from hierjax.nn.pretrained.name_maps import LEAVES, OTHERS, PREFIX, ROWS, VECTORS, Layer, Network

Shape = tuple[int, ...]

MOST_LINES = 40  # of a message


def restore(file: str | Path, network: Network, backbone: nn.Module) -> dict[str, np.ndarray]:
  """Returns the weights of a file under hierjax's names, `f32[...]`.

  `backbone/...` are the backbone's, batch statistics included, all of them in its own shapes; `classifier/kernel` and
  `classifier/bias`, if the file has them, are the original's last layer: logits = pooled @ kernel + bias.

  Args:
    file: as in `read_weights`; its names are those of torchvision, timm, open_clip or CBAM's authors.
    network: which network it is of, of NETWORKS.
    backbone: that network here.

  Raises:
    UserError: the file cannot be read, or its weights are not the backbone's; both sides are shown.
  """
  return converted(file, read_weights(file), network, backbone)


def converted(
  file: str | Path, arrays: Mapping[str, np.ndarray], network: Network, backbone: nn.Module
) -> dict[str, np.ndarray]:
  """Returns what `restore` does, of a file that has been read: `arrays` are `read_weights(file)`."""
  found: dict[str, tuple[str, np.ndarray]] = {}  # by our name: the original's, and the array
  lines = []
  for name, array in arrays.items():
    _refuse_others(file, name)
    ours, kind = _renamed(name, network.layers)
    if not ours and _is_left_out(name, network):
      continue
    if not ours:
      lines.append(difference(shown(name), array.shape, None))
    elif ours in found:
      raise UserError(f"{file}: {shown(found[ours][0])} and {shown(name)} are both {ours}")
    else:
      found[ours] = shown(name), _laid_out(array, kind)
  has = {ours: array.shape for ours, (_, array) in found.items()}
  wants = _wanted(backbone, has)
  for ours in sorted(has | wants):
    label = f"{ours} ({found[ours][0]})" if ours in found else ours
    lines.append(difference(label, has.get(ours), wants.get(ours)))
  if lines := [line for line in lines if line]:
    raise UserError(f"{file}: its weights are not those of {network.backbone}.\n{listed(lines)}")
  return {ours: found[ours][1] for ours in wants}


def left_out(names: Iterable[str], network: Network) -> list[str]:
  """Returns those names in a file that `restore` leaves out: of parts beside the network, such as CLIP's text tower."""
  return [name for name in names if not _renamed(name, network.layers)[0] and _is_left_out(name, network)]


def imported_summary(weights: Mapping[str, np.ndarray], network: Network, file: str | Path) -> str:
  """Returns how many weights `file` has got from `restore`, and the lines of a config that use them."""
  of_backbone = [array.size for name, array in weights.items() if name.startswith("backbone/")]
  counted = f"{file} has {sum(of_backbone):,} numbers in {len(of_backbone)} arrays of {network.backbone}"
  if "classifier/bias" in weights:
    counted += f", and its classifier of {weights['classifier/bias'].size:,} classes, which stays unused"
  section = ", ".join([f"name={network.backbone!r}", *(f"{key}={value!r}" for key, value in network.settings.items())])
  lines = [f"{counted}; in a config:", f"  config.backbone = dict({section})", f'  config.init.weights = "{file}"']
  if "top" in network.settings:
    lines.append('or without fc6 and fc7: no `top` there, and\n  config.init.skip = ("^backbone/top/",)')
  return "\n".join(lines)


def difference(name: str, has: Shape | None, wants: Shape | None) -> str:
  """Returns a line on how a weight's shapes differ, None being no such weight; '' where they are equal."""
  if wants is None:
    return f"  {name}: left over, it has shape {has}"
  if has is None:
    return f"  {name}: missing, wants shape {wants}"
  return "" if has == wants else f"  {name}: has shape {has}, wants shape {wants}"


def listed(lines: list[str]) -> str:
  """Returns lines as one text; of many, the first and the number of the others."""
  more = len(lines) - MOST_LINES
  return "\n".join(lines if more <= 0 else [*lines[:MOST_LINES], f"  and {more} more"])


def _is_left_out(name: str, network: Network) -> bool:
  return bool(network.others and re.fullmatch(f"{PREFIX}(?:{network.others})", name))


def _refuse_others(file: str | Path, name: str) -> None:
  for pattern, kind in OTHERS:
    if re.match(PREFIX + pattern, name):
      raise UserError(f"{file}: {shown(name)} is a name of {kind}: hierjax would compute other numbers with them")


def _renamed(name: str, layers: tuple[Layer, ...]) -> tuple[str, str]:
  """Returns the name here, and how it is laid out; two '' where there is no such weight.

  The latter is the kind of layer for a kernel, `vector` or `rows` for arrays of one or two axes, else ''.
  """
  layer_name, _, leaf = name.rpartition(".")
  for layer in layers:
    match = re.fullmatch(f"{PREFIX}(?:{layer.original})", layer_name)
    if match and leaf in LEAVES[layer.kind]:
      ours = f"{match.expand(layer.ours)}/{LEAVES[layer.kind][leaf]}"
      of_leaf = {"kernel": layer.kind, **dict.fromkeys(VECTORS, "vector"), **dict.fromkeys(ROWS, "rows")}
      return (ours if ours.startswith("classifier/") else f"backbone/{ours}"), of_leaf.get(ours.rpartition("/")[2], "")
  return "", ""


def _laid_out(array: np.ndarray, kind: str) -> np.ndarray:
  """Returns a kernel with its inputs before its outputs; as it is where it has no such form, which the check finds."""
  if kind == "vector":
    return array.reshape(-1)
  if kind == "rows":
    return array[0] if array.ndim == 3 and len(array) == 1 else array
  if kind == "maps" and array.ndim == 2 and array.shape[1] % 49 == 0:
    array = array.reshape(len(array), -1, 7, 7)  # PyTorch flattens channels, rows, columns
  if kind == "conv":
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
  if kind and array.ndim == 4:  # a convolution whose kernel covers the whole input
    return array.transpose(2, 3, 1, 0).reshape(-1, len(array))
  return array.T if kind and array.ndim == 2 else array


def _wanted(backbone: nn.Module, has: Mapping[str, Shape]) -> dict[str, Shape]:
  """Returns the shapes that the weights must have; those of a classifier, of any number of classes, if there is one."""
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  features, variables = jax.eval_shape(backbone.init_with_output, jax.random.key(0), images)
  wants = {"/".join(("backbone", *path[1:])): leaf.shape for path, leaf in flatten_dict(variables).items()}
  of_classifier = {name: shape for name, shape in has.items() if name.startswith("classifier/")}
  if of_classifier:
    classes = next(shape[-1] if shape else 0 for _, shape in sorted(of_classifier.items()))
    wants |= {"classifier/kernel": (features.pooled.shape[1], classes), "classifier/bias": (classes,)}
  return wants
