"""A run for other people: a new run folder with what `predict` needs of it, and no folder of this machine."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hierjax.config import flatten
from hierjax.errors import UserError
from hierjax.nn.pretrained.named import is_name
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.choices import FILE as CHOICES
from hierjax.runs.choices import read_choices
from hierjax.runs.folder import RunFolder, check_new_folder, whole_folder, write_whole
from hierjax.runs.run import Run

FILES = ("config.json", "tree.json", "data.json", CHOICES, "README.md", "checkpoints/**")  # all that is published
_PLACES = ("data.root", "data.labels", "data.cache_folder", "init.run")
_FOREIGN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # package.module:Thing
_NAMED = ("backbone", "neck", "head", "decode", "metrics", "loggers", "merged")  # keys whose values may name code


def publish(folder: RunFolder, out: Path, mesh: Mesh, card: str) -> int:
  """Writes the weights that count, config, tree, checksums and choices of a run to a new folder; returns their step.

  The new folder is a run's, so every command that needs no training images takes it. Folders of the config are left
  empty: they are of this machine.

  Args:
    folder: of the run.
    out: a new folder.
    mesh: the devices to read the weights with.
    card: the contents of README.md.

  Raises:
    UserError: the folder is not that of a run that can be used, the run reads features of another one, or names code
      of others.
  """
  check_new_folder(out)
  run = Run.from_folder(folder)
  if len(run.example_shape) != 3:
    raise UserError(f"{folder.path}: this run reads features that another one makes; `hierjax export` has both in one")
  config = _without_places(folder.config())
  if foreign := foreign_names(config):
    raise UserError(
      f"{folder.path}: its config names code of others, {foreign[0]}, which whoever loads the run would have to trust: "
      "`hierjax export` writes a function without any"
    )
  step, variables = run.restored_variables(folder, mesh)
  with whole_folder(out) as unfinished:
    published = RunFolder(unfinished)
    published.begin(config, folder.tree(), folder.data_checksum())
    if read_choices(folder):
      write_whole(unfinished / CHOICES, (folder.path / CHOICES).read_text(encoding="utf-8"))
    model = {"params": variables["params"], "collections": {k: v for k, v in variables.items() if k != "params"}}
    with contextlib.closing(Checkpoints(published.checkpoints, select_best=False, create=True)) as checkpoints:
      checkpoints.save(step, model, {"step": np.int32(step)})
    write_whole(unfinished / "README.md", card)
  return step


def foreign_names(config: Mapping[str, Any]) -> list[str]:
  """Returns the names `package.module:Thing` in a config, whose modules would be imported."""
  sections = {key: value for key, value in config.items() if key in _NAMED}
  return [text for text in _texts(sections) if _FOREIGN.fullmatch(text)]


def _texts(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, Mapping):
    for item in value.values():
      yield from _texts(item)
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _texts(item)


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config without the folders and files that it names."""
  kept: dict[str, Any] = json.loads(json.dumps(config))
  for key in _PLACES:
    section, _, name = key.partition(".")
    if flatten(kept).get(key):
      kept[section][name] = ""
  tree, init = kept["tree"], kept["init"]
  if "/" in str(tree.get("source", "")):
    tree["source"] = Path(tree["source"]).name
  if init.get("weights") and not is_name(init["weights"]):
    init |= {"weights": "", "sha256": ""}
  if not (init.get("weights") or init.get("run")):
    init |= {"skip": [], "extend": False}
  return kept
