"""A run that extends another: the weights of the nodes that both label trees have.

A node is the same in both trees where its id is, or, where a tree has no ids, its path of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from hierjax.data.open_source import carved_parts
from hierjax.data.source import data_checksum, what_changed
from hierjax.errors import UserError, few
from hierjax.nn.heads.axes import Axis
from hierjax.runs.run import Run
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.types import Leaf

Weights = dict[tuple[str, ...], Any]  # arrays, or shapes, by (collection, part, ..., name)


@struct.dataclass
class Carried:
  """A weight of which some entries are carried over.

  Attributes:
    values: the weight `f32[...]` in its new shape.
    held: `bool[...]`, which entries of `values` are carried over; the others are arbitrary.
  """

  values: Leaf
  held: Leaf

  @property
  def shape(self) -> tuple[int, ...]:
    """The weight's shape."""
    found: tuple[int, ...] = self.values.shape
    return found

  def over(self, fresh: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns a fresh weight with the entries that are carried over."""
    return jnp.where(self.held, self.values, fresh)


def same_nodes(old: LabelTree, new: LabelTree) -> dict[int, int]:
  """Returns the node of the old tree for each node of the new one that it has too.

  A name that all labels begin with, which becomes the root's, is part of the paths: `cat` below the root `animal` is
  `animal/cat` beside `thing/cup`.
  """
  by_ids = old.ids is not None and new.ids is not None
  numbers = {key: node for node, key in enumerate(_keys(old, new, by_ids))}
  return {node: numbers[key] for node, key in enumerate(_keys(new, old, by_ids)) if key in numbers}


def _keys(tree: LabelTree, other: LabelTree, by_ids: bool) -> list[tuple[str, ...]]:
  ids = list(tree.ids) if by_ids and tree.ids is not None else [""] * tree.num_nodes
  is_top = tree.root_name in [other.names[node] for node in other.children(ROOT)]
  above = (tree.root_name,) if is_top else ()
  return [(own,) if own else (*above, *tree.path_names(node)) for node, own in enumerate(ids)]


def node_changes(old: LabelTree, new: LabelTree) -> str:
  """Returns which nodes two trees have in common, and which only one of them has, in words."""
  same = same_nodes(old, new)
  added = [new.path_text(node) for node in range(new.num_nodes) if node not in same]
  kept = set(same.values())
  gone = [old.path_text(node) for node in range(old.num_nodes) if node not in kept]
  return f"{len(same)} nodes carried over, {_listed(added)} new, {_listed(gone)} gone"


def _listed(names: list[str]) -> str:
  return f"{len(names)} ({few(names)})" if names else "none"


def carried_over(saved: Weights, shapes: Weights, old: Run, new: Run) -> Weights:
  """Returns the weights of a run for the label tree of another run, whose weights have `shapes`.

  A head's weight with an axis over the tree becomes a `Carried`; one that the other tree has no use for is left out.

  Raises:
    UserError: a head of one's own does not say what the entries of its weights stand for.
  """
  if old.tree == new.tree and old.method.tree.stop_at == new.method.tree.stop_at:
    return dict(saved)
  heads = [run.method.module.head for run in (old, new)]
  if not all(hasattr(head, "weight_axes") for head in heads):  # a head from outside of this package
    raise UserError(
      f"config.head.name = {new.config.head['name']!r}: to extend a run with another label tree, the head must have "
      "weight_axes(tree); see hierjax.nn.heads.axes"
    )
  before, after = (head.weight_axes(run.method.tree) for head, run in zip(heads, (old, new), strict=True))
  same = same_nodes(old.tree, new.tree)
  found = dict(saved)
  for path in saved.keys() | shapes.keys():
    name = "/".join(path[2:])
    if path[1] != "head" or name not in before.keys() | after.keys():
      continue
    if path in saved and path in shapes:
      found[path] = _carried(np.asarray(saved[path]), before[name], after[name], same)
    elif path in saved:
      del found[path]
    else:
      found[path] = Carried(np.zeros(shapes[path].shape, np.float32), np.zeros(shapes[path].shape, bool))
  return found


def _carried(value: np.ndarray, old: tuple[Axis, ...], new: tuple[Axis, ...], same: Mapping[Any, int]) -> Carried:
  held = np.ones([1] * value.ndim, bool)
  for axis, (before, after) in enumerate(zip(old, new, strict=True)):
    if before is None or after is None:
      continue
    places: dict[int | str, int] = {entry: place for place, entry in enumerate(before)}
    was = [same[e] if e in same else e if isinstance(e, str) or e < 0 else None for e in after]  # tokens, levels: as is
    found = np.array([-1 if e is None or e not in places else places[e] for e in was])
    value = np.take(value, np.maximum(found, 0), axis=axis)
    held = held & np.expand_dims(found >= 0, tuple(i for i in range(value.ndim) if i != axis))
  return Carried(value, np.broadcast_to(held, value.shape))


def leaked(old: Run, new: Run) -> list[str]:
  """Returns warnings where validation or calibration is another part of the images than in the run that is extended."""
  train = new.source("train")
  carved = carved_parts(new.data, new.opened.splits(new.data, new.tree))
  if not carved or train is None or what_changed(old.trained_on, data_checksum(train)) in ("", "contents"):
    return []
  return [
    f"warning: config.data.{name} = {fraction} keeps another part of the images for {name} than in "
    f"the run that is extended, which has trained on some of them: the accuracy on {name} will be too high; images "
    "in a folder or split of their own, for validation or test, show the true one"
    for name, fraction in carved.items()
  ]
