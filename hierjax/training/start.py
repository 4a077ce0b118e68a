"""The weights that a new run starts from: fresh ones, or those of another run, to be fine-tuned."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from hierjax.errors import UserError
from hierjax.evaluation.run import Run
from hierjax.run_folder import RunFolder
from hierjax.types import Variables

Weights = dict[tuple[str, ...], Any]  # arrays, or shapes, by (collection, part, ..., name)


@dataclasses.dataclass(frozen=True)
class InitConfig:
  """The section `init` of a config: what a new run starts from. A run that goes on reads its own folder alone.

  Attributes:
    run: the folder of a run whose weights, the best on validation or else the last, are the initial values; '' for
      fresh ones.
    skip: regexes over names such as `head/output/kernel`: what one is found in keeps its fresh initial value. All else
      must be in both models, in one shape, batch statistics included.
  """

  run: str = ""
  skip: Sequence[str] = ()

  def __post_init__(self) -> None:
    """Raises UserError for a value that cannot be meant."""
    if isinstance(self.skip, str):
      raise UserError(f"config.init.skip = {self.skip!r}: must be a tuple of regexes, {(self.skip,)!r} say")
    if self.skip and not self.run:
      raise UserError(
        "config.init.run is empty, and config.init.skip is not: name the folder of the run to start from, or set "
        "config.init.skip to () to start afresh"
      )
    for pattern in self.skip:
      try:
        re.compile(pattern)
      except (re.error, TypeError) as error:
        raise UserError(f"config.init.skip: {pattern!r} is no regex ({error})") from None

  def skips(self, path: tuple[str, ...]) -> bool:
    """Returns whether a weight keeps its fresh value."""
    return any(re.search(pattern, _name(path)) for pattern in self.skip)


def start_weights(config: InitConfig, run: Run, shapes: Variables, mesh: Mesh) -> tuple[Weights, str]:
  """Returns the weights that `config` takes from another run, and what they are in words; none where it names no run.

  Args:
    config: the section `init`.
    run: the new run.
    shapes: those of its variables.
    mesh: the devices to put the weights on.

  Raises:
    UserError: there is no such run, or its model does not fit; both sides are shown.
  """
  if not config.run:
    return {}, ""
  folder = RunFolder(config.run)
  other = Run.from_folder(folder)
  step, saved = other.restored_variables(folder, mesh)
  remark = "" if other.tree == run.tree else f" It has another label tree: {_tree(other)}; here: {_tree(run)}."
  taken = matching(saved, shapes, config, remark)
  fresh = sorted(_name(path) for path in flatten_dict(shapes) if path not in taken)
  return taken, f"starting from step {step} of {config.run}; fresh are {', '.join(fresh) or 'none'}.{remark}"


def matching(saved: Variables, shapes: Variables, config: InitConfig, remark: str = "") -> Weights:
  """Returns the saved weights that are not skipped; `remark` is what an error says besides.

  Raises:
    UserError: the others are not those of `shapes` exactly, or a regex of `config.skip` is found in no name.
  """
  has, wants = flatten_dict(saved), flatten_dict(shapes)
  for pattern in config.skip:
    if not any(re.search(pattern, _name(path)) for path in has | wants):
      raise UserError(f"config.init.skip: {pattern!r} is found in no weight's name, here or in {config.run}")
  differing = {
    path: line for path in sorted(has | wants) if not config.skips(path) and (line := _difference(path, has, wants))
  }
  if differing:
    parts = dict.fromkeys(f"^{path[1]}/" for path in differing)
    raise UserError(
      f"config.init.run = {config.run!r}: its weights are not those of this model.{remark}\n"
      + "\n".join(differing.values())
      + f"\nconfig.init.skip names, by regexes, what starts afresh instead: {(*config.skip, *parts)!r} for all of these"
    )
  return {path: has[path] for path in wants if not config.skips(path)}


def started(fresh: Variables, taken: Weights) -> Variables:
  """Returns fresh variables with the weights that were taken in their places; jittable, and those are never drawn."""
  return unflatten_dict(flatten_dict(fresh, keep_empty_nodes=True) | taken)


def _name(path: tuple[str, ...]) -> str:
  return "/".join(path[1:])


def _difference(path: tuple[str, ...], has: Weights, wants: Weights) -> str:
  """Returns what differs about a weight in words; '' where nothing does."""
  name = f"  {_name(path)}" + ("" if path[0] == "params" else f" ({path[0]})")
  if path not in wants:
    return f"{name}: left over, it has shape {has[path].shape}"
  if path not in has:
    return f"{name}: missing, wants shape {wants[path].shape}"
  both = has[path].shape, wants[path].shape
  return "" if both[0] == both[1] else f"{name}: has shape {both[0]}, wants shape {both[1]}"


def _tree(run: Run) -> str:
  return f"{len(run.tree.leaves)} leaves on {run.tree.depth} levels"
