"""The files that `export` writes, read without Flax: a function of pixels, its weights, its tree and its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.numpy import load

from hierjax.config import read_json
from hierjax.errors import UserError
from hierjax.inference.answers import Answer
from hierjax.tree.label_finder import split_path
from hierjax.tree.label_tree import LabelTree

MODEL, WEIGHTS, ABOUT = "model.stablehlo", "weights.safetensors", "model.json"


class Exported(NamedTuple):
  """What a folder of `export` holds.

  Attributes:
    about: the contents of model.json.
    tree: the label tree, from the paths of its nodes.
    compute: `u8[b h w c] -> Answer`, for images of the shape in `about`.
  """

  about: Mapping[str, Any]
  tree: LabelTree
  compute: Callable[[UInt8[np.ndarray, "b h w c"]], Answer]


def is_export(folder: str | Path) -> bool:
  """Returns whether a folder is one that `export` wrote."""
  return (Path(folder).expanduser() / MODEL).is_file()


def open_export(folder: str | Path) -> Exported:
  """Returns what `export` wrote to a folder.

  Raises:
    UserError: a file is missing, or not as `export` wrote it, or of a version of JAX that this one does not read.
  """
  path = Path(folder).expanduser()
  about, files = _checked(path)
  try:
    call = jax.jit(jax.export.deserialize(bytearray(files[MODEL])).call)
    weights = jax.device_put(load(files[WEIGHTS]))
  except (ValueError, KeyError, SafetensorError) as error:
    raise UserError(f"{path / MODEL}: JAX {jax.__version__} does not read it ({error}); export the run again") from None
  return Exported(about, _tree(about["nodes"]), lambda images: Answer(**call(weights, images)))


def _checked(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
  """Returns what model.json says, and the contents of the other files; raises UserError where a checksum differs."""
  try:
    about = read_json(path / ABOUT, "what `export` writes")
    files = {name: (path / name).read_bytes() for name in (MODEL, WEIGHTS)}
  except FileNotFoundError as error:
    raise UserError(f"{path} is not whole: it has no {Path(error.filename).name}; export the run again") from None
  kept = about.pop("sha256", None)
  found = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
  found[ABOUT] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
  for name, checksum in found.items():
    if not isinstance(kept, dict) or kept.get(name) != checksum:
      raise UserError(f"{path / name}: it is not as `export` wrote it (its checksum differs); export the run again")
  return about, files


def _tree(nodes: Sequence[str]) -> LabelTree:
  """Returns the tree whose nodes, breadth-first, have these paths."""
  paths = [split_path(node) for node in nodes]
  number = {path: i for i, path in enumerate([(), *paths])}
  parents = [number[path[:-1]] for path in paths]
  return LabelTree.from_children([path[-1] for path in paths], np.bincount(parents, minlength=len(number)))
