"""The initial weights of a run: fresh ones, those of another run, or a pretrained backbone's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.merged import MergedBackbone, merged_names
from hierjax.nn.pretrained.files import shown
from hierjax.nn.pretrained.named import find_weights
from hierjax.nn.pretrained.restore import difference, listed
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.initial.extend import Carried, Weights, carried_over, leaked, node_changes
from hierjax.types import Variables


@checked
@dataclasses.dataclass(frozen=True)
class InitConfig:
  """The section `init` of a config: the initial weights of a new run. A run that resumes does not read it.

  Attributes:
    run: the folder of a run whose best weights on validation (or last weights) are the initial values; '' for fresh
      ones.
    skip: regexes over names such as `head/output/kernel`; a weight whose name has a match is fresh.
      All other weights, batch statistics included, must be in both models with the same shape.
    extend: whether `run` goes on with another tree (`hierjax train --extend`): the weights of the nodes that are in
      both trees are carried over, and those of the others are fresh.
    weights: the initial values of the backbone; '' for none. The other weights are fresh. `lite0`, `lite1` or `lite2`:
      of an installed package; `hf:timm/NAME` or `hf:timm/NAME@REVISION`: of the Hugging Face Hub or its cache; or a
      file that ends with .safetensors, .npz, .pth, .pt or .bin, by the names of hierjax, timm or torchvision.
    sha256: the checksum of that file; '' for any. The folder of a run has the one of the file that was read.
  """

  run: str = ""
  skip: Sequence[str] = ()
  extend: bool = False
  weights: str = ""
  sha256: str = ""

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range, or values that contradict each other."""
    if self.run and self.weights:
      raise UserError(
        f"config.init.run = {self.run!r} and config.init.weights = {self.weights!r}: a run starts from one of "
        "them; set the other to ''"
      )
    if self.extend and not self.run:
      raise UserError("config.init.extend = True: name the run to extend, config.init.run")
    if self.skip and not (self.run or self.weights):
      raise UserError(
        "config.init.run is empty, and config.init.skip is not: name the folder of the run to start from (or a file of "
        "weights, config.init.weights), or set config.init.skip to () for fresh weights"
      )
    for pattern in self.skip:
      try:
        re.compile(pattern)
      except (re.error, TypeError) as error:
        raise UserError(f"config.init.skip: {pattern!r} is not a valid regex ({error})") from None

  @property
  def source(self) -> str:
    """The config's key and value that name the weights."""
    return f"config.init.run = {self.run!r}" if self.run else f"config.init.weights = {self.weights!r}"

  def skips(self, path: tuple[str, ...]) -> bool:
    """Returns whether a weight keeps its fresh value."""
    if self.weights and path[1] != "backbone":
      return True
    return any(re.search(pattern, _name(path)) for pattern in self.skip)


def start_weights(config: InitConfig, run: Run, shapes: Variables, mesh: Mesh) -> tuple[Weights, str]:
  """Returns the initial weights that are read from a run or a file, and a line about them; ({}, '') for fresh weights.

  Args:
    config: the section `init`.
    run: the new run.
    shapes: those of its variables.
    mesh: the devices to put the weights on.

  Raises:
    UserError: there is no such run or file, or its weights have other names or shapes; the message lists both sides.
  """
  if config.weights:
    return _of_file(config, run, shapes, mesh)
  if not config.run:
    return {}, ""
  folder = RunFolder(config.run)
  other = Run.from_folder(folder)
  step, saved = other.restored_variables(folder, mesh)
  remark = "" if other.tree == run.tree else f" It has another label tree: {_tree(other)}; here: {_tree(run)}."
  if config.extend:
    wants = flatten_dict(shapes)
    taken = _matching(carried_over(flatten_dict(saved), wants, other, run), wants, config, remark)
    lines = [f"extending step {step} of {config.run}: {node_changes(other.tree, run.tree)}", *leaked(other, run)]
    return taken, "\n".join(lines)
  taken = matching(saved, shapes, config, remark)
  fresh = sorted(_name(path) for path in flatten_dict(shapes) if path not in taken)
  return taken, f"starting from step {step} of {config.run}; fresh are {', '.join(fresh) or 'none'}.{remark}"


def matching(saved: Variables, shapes: Variables, config: InitConfig, remark: str = "") -> Weights:
  """Returns the saved weights that are not skipped; `remark` is added to an error's message.

  Raises:
    UserError: their names and shapes are not exactly those of `shapes`, or a regex of `config.skip` matches no name.
  """
  return _matching(flatten_dict(saved), flatten_dict(shapes), config, remark)


def started(fresh: Variables, taken: Weights) -> Variables:
  """Returns fresh variables with the weights of `taken` in their places; jittable, and drawn without their values."""
  values = flatten_dict(fresh, keep_empty_nodes=True)
  parts = {path: part.over(values[path]) for path, part in taken.items() if isinstance(part, Carried)}
  return unflatten_dict(values | taken | parts)


def _matching(has: Weights, wants: Weights, config: InitConfig, remark: str = "") -> Weights:
  for pattern in config.skip:
    if not any(re.search(pattern, _name(path)) for path in has | wants):
      where = config.run or config.weights
      raise UserError(f"config.init.skip: {pattern!r} matches no weight's name, here or in {where}")
  differing = {
    path: line for path in sorted(has | wants) if not config.skips(path) and (line := _difference(path, has, wants))
  }
  if differing:
    depth = 2 if config.run else 3  # of a file, all are the backbone's
    parts = dict.fromkeys(f"^{'/'.join(path[1:depth])}/" for path in differing)
    raise UserError(
      f"{config.source}: its weights are not those of this model.{remark}\n"
      + listed(list(differing.values()))
      + f"\nto give these weights fresh values, set config.init.skip = {(*config.skip, *parts)!r}"
    )
  return {path: has[path] for path in wants if not config.skips(path)}


def _of_file(config: InitConfig, run: Run, shapes: Variables, mesh: Mesh) -> tuple[Weights, str]:
  """Returns the backbone's weights of a file, by hierjax's names or others', and a line about them."""
  arrays = find_weights(config.weights, run.config.backbone).arrays()
  wants, backbone = flatten_dict(shapes), run.method.module.backbone
  if isinstance(backbone, MergedBackbone):
    names = partial(merged_names, shared=run.config.merged["shared"], branches=list(backbone.branches))
    arrays = {own: array for name, array in arrays.items() for own in names(name)}
  paths = {_name(path): path for path in wants}
  saved = {paths.get(name, ("params", *shown(name).split("/"))): array for name, array in arrays.items()}
  taken = jax.device_put(_matching(saved, wants, config), devices.replicated(mesh))
  fresh = sorted({_name(path) if path[1] == "backbone" else path[1] for path in wants if path not in taken})
  return taken, f"starting from {len(taken)} arrays of {config.weights}; fresh are {', '.join(fresh) or 'none'}."


def _name(path: tuple[str, ...]) -> str:
  return "/".join(path[1:])


def _difference(path: tuple[str, ...], has: Weights, wants: Weights) -> str:
  """Returns a line on how a weight's name or shape differs; '' where it does not."""
  name = _name(path) + ("" if path[0] == "params" else f" ({path[0]})")
  return difference(name, *(side[path].shape if path in side else None for side in (has, wants)))


def _tree(run: Run) -> str:
  return f"{len(run.tree.leaves)} leaves on {run.tree.depth} levels"
