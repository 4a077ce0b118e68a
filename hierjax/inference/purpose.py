"""The purpose of answers: a cost to minimise, a level, or some nodes alone."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from hierjax.config import checked
from hierjax.errors import UserError, did_you_mean
from hierjax.functional.costs import COSTS
from hierjax.runs.run import Run
from hierjax.tree.label_finder import LabelFinder, split_path
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions

_SHOWN = 5


@checked
@dataclasses.dataclass(frozen=True)
class Purpose:
  """What answers are for. The defaults ask for the best path.

  Attributes:
    minimise: a cost of `hierjax.functional.costs.COSTS`: the answer has the smallest expected one; '': none.
    level: answers are nodes of this level, 1 for the top one, or shorter paths; 0: of any level.
    rank: the same by the level's name; '': none.
    only: a file with a label a line, or labels: paths end at these nodes or below; empty: anywhere. A label is a path
      `animal/dog`, an id, or a name that only one node has. Empty lines and those that start with # are passed over.
  """

  minimise: str = ""
  level: int = 0
  rank: str = ""
  only: str | Path | tuple[str, ...] = ""

  def __post_init__(self) -> None:
    """Raises UserError for an unknown cost, or for settings that do not go together."""
    if self.minimise and self.minimise not in COSTS:
      hint = did_you_mean(self.minimise, COSTS)
      raise UserError(f"--minimise {self.minimise}: choose from {', '.join(COSTS)}{hint}")
    if self.level < 0:
      raise UserError(f"--level {self.level}: the top level is 1")
    if sum(map(bool, (self.minimise, self.level, self.rank))) > 1:
      raise UserError("--minimise, --level and --rank each say which node is the answer: give one of them")

  def __bool__(self) -> bool:
    return self != Purpose()

  @property
  def name(self) -> str:
    """The part of the names of files in eval/ that tells such results from others; '' for the best path."""
    level = self.rank or (f"level{self.level}" if self.level else "")
    return "".join(f"-{part}" for part in (self.minimise, level.replace("/", "_"), "only" if self.only else "") if part)

  def options(self, options: DecodeOptions, tree: LabelTree) -> DecodeOptions:
    """Returns the options of decoding for the purpose.

    Raises:
      UserError: the tree has no such level.
    """
    if self.minimise:
      return dataclasses.replace(options, rule=self.minimise)
    level = self._level_of(tree)
    return dataclasses.replace(options, rule="level", level=level) if level else options

  def _level_of(self, tree: LabelTree) -> int:
    names = tree.named_levels
    if self.level > tree.depth:
      raise UserError(f"--level {self.level}: the tree has {tree.depth} levels: {', '.join(names)}")
    if self.rank and self.rank not in names:
      hint = did_you_mean(self.rank, names)
      raise UserError(f"--rank {self.rank}: no level has this name{hint}; the levels are {', '.join(names)}")
    return names.index(self.rank) + 1 if self.rank else self.level

  def nodes(self, tree: LabelTree) -> tuple[int, ...] | None:
    """Returns the nodes of `only` and all below them; None for all nodes of the tree.

    Raises:
      UserError: the file cannot be read, or holds no label, or a label is not in the tree.
    """
    if not self.only:
      return None
    places = dict.fromkeys(_labelled_nodes(self.only, tree))
    kept = np.zeros(tree.num_nodes, bool)
    for node in range(tree.num_nodes):  # breadth-first: a parent comes before its children
      kept[node] = node in places or (tree.parent[node] >= 0 and kept[tree.parent[node]])
    return tuple(np.flatnonzero(kept).tolist())

  def conditions(self, tree: LabelTree) -> dict[str, Any]:
    """Returns the purpose as plain data, a condition of a chosen threshold; nothing for the best path."""
    if not self:
      return {}
    nodes = self.nodes(tree)
    only = None if nodes is None else hashlib.sha256(np.array(nodes, np.int32).tobytes()).hexdigest()[:16]
    return {"purpose": {"minimise": self.minimise, "level": self._level_of(tree), "only": only}}

  def of_run(self, run: Run) -> Run:
    """Returns the run that decodes for the purpose.

    Raises:
      UserError: its head is a multi-label one; or as `options` does.
    """
    if self and run.method.module.head.multilabel:
      raise UserError(
        "--minimise, --level, --rank and --only: a multi-label head answers with all paths that pass its thresholds, "
        "and has no probability that a path ends at a node; leave them out"
      )
    return dataclasses.replace(run, options=self.options(run.options, run.tree))


def _labelled_nodes(only: str | Path | tuple[str, ...], tree: LabelTree) -> list[int]:
  finder, found, faults = LabelFinder(tree), [], []
  for place, text in _lines(only):
    try:
      found.append(finder.node(split_path(text)))
    except KeyError as error:
      faults.append(f"{place}: {error.args[0]}")
  if faults:
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    raise UserError("--only: " + "; ".join(faults[:_SHOWN]) + more)
  if not found:
    raise UserError(f"--only {only}: no labels; give a name or a path a line")
  return found


def _lines(only: str | Path | tuple[str, ...]) -> list[tuple[str, str]]:
  """Returns the place and the text of each label."""
  if isinstance(only, tuple):
    return [(f"label {number}", text) for number, text in enumerate(only, 1)]
  try:
    lines = Path(only).read_text(encoding="utf-8-sig").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"--only {only}: this file cannot be read as text ({error})") from None
  kept = [(f"{only}:{number}", line.strip()) for number, line in enumerate(lines, 1)]
  return [(place, text) for place, text in kept if text and not text.startswith("#")]
