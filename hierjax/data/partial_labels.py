"""Training labels that stop above the leaf: images that have such, and what is made of them (Guo et al. 2018, 4.2)."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Bool, Int

from hierjax.data.config import DataConfig
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.source import View, has_label
from hierjax.data.splits import fine_and_coarse
from hierjax.errors import UserError
from hierjax.tree.label_tree import PAD, LabelTree, ShortLabels


@dataclasses.dataclass(frozen=True)
class PartlyLabelled:
  """Training images, S_fine and S_coarse together, and as much of their labels as is known.

  Attributes:
    images: them, with the labels that the set has for them.
    known: `i32[n p]`, their labels as far as they are known, as `Source.nodes`.
    coarse: `bool[n]`, which are in S_coarse: a label of theirs ends above a leaf.
  """

  images: View
  known: Int[np.ndarray, "n p"]
  coarse: Bool[np.ndarray, "n"]

  @property
  def fine_checksum(self) -> str:
    """SHA-256 of which images of the set S_fine are, and of their labels."""
    fine = ~self.coarse
    digest = hashlib.sha256(np.ascontiguousarray(self.images.indices[fine], "<i8").tobytes())
    digest.update(np.ascontiguousarray(self.known[fine], "<i4").tobytes())
    return digest.hexdigest()

  def coarse_images(self) -> View:
    """Returns S_coarse, with its labels as far as they are known."""
    return View(self.images.source, self.images.indices[self.coarse], self.known[self.coarse])


def partly_labelled(images: View, config: DataConfig, tree: LabelTree) -> PartlyLabelled:
  """Divides training images at random, by `config.fine` and `config.coarse`, and cuts the labels of the coarse part.

  Raises:
    UserError: a class has no example that keeps its whole label, or `config.coarse_level` leaves nothing to cut.
  """
  known, used = images.nodes, np.arange(len(images))
  if config.fine < 1:
    fine, coarse = fine_and_coarse(len(images), config.fine, config.coarse, config.split_seed)
    _check_classes(images.nodes[:, 0], fine, config, tree)
    known = np.where(coarse[:, None], climb(known, tree, _top(config, tree)), known)
    used = np.flatnonzero(fine | coarse)
  known = known[used]
  return PartlyLabelled(View(images.source, images.indices[used], images.nodes[used]), known, _ends_early(known, tree))


def to_train_on(images: View, config: DataConfig, tree: LabelTree) -> View:
  """Returns the training images as `config.coarse_images` says.

  Raises:
    UserError: as `partly_labelled`, or `config.pseudo_labels` cannot be read or is of other images.
  """
  found = partly_labelled(images, config, tree)
  if config.coarse_images == "truth":
    return found.images
  if config.coarse_images == "drop":
    fine = ~found.coarse
    return View(images.source, found.images.indices[fine], found.known[fine])
  nodes = found.known.copy()
  if config.coarse_images == "pseudo":
    labels = PseudoLabels.load(config.pseudo_labels)
    coarse = found.coarse_images()
    nodes[found.coarse, 0] = labels.nodes_of(coarse, tree, found.fine_checksum)
  return View(images.source, found.images.indices, nodes)


def climb(nodes: Int[np.ndarray, "n p"], full_tree: LabelTree, tree: LabelTree) -> Int[np.ndarray, "n p"]:
  """Returns end nodes in `tree`, the top levels of `full_tree`: each node itself, or its lowest ancestor there.

  Of the paths of an image that become one, the first is kept.
  """
  nodes = nodes.copy()
  while (below := nodes >= tree.num_nodes).any():
    nodes[below] = full_tree.parent[nodes[below]]
  for p in range(1, nodes.shape[1]):
    nodes[(nodes[:, :p] == nodes[:, p, None]).any(axis=1), p] = PAD
  return nodes


def check_short_labels(config: DataConfig, short_labels: ShortLabels) -> None:
  """Raises UserError where labels are to be filled in below their end, and that end means that the path stops there."""
  if short_labels == "stop" and (config.coarse > 0 or config.coarse_images != "direct"):
    raise UserError(
      "config.tree.short_labels = 'stop' says that nothing follows a label that ends above a leaf, while "
      "config.data.coarse and config.data.coarse_images speak of labels whose rest is not known: set it to 'unknown'"
    )


def _top(config: DataConfig, tree: LabelTree) -> LabelTree:
  if config.coarse_level >= tree.depth:
    raise UserError(
      f"config.data.coarse_level = {config.coarse_level}: the tree has {tree.depth} levels, so a coarse label has at "
      f"most {tree.depth - 1}"
    )
  return tree.truncated(config.coarse_level)


def _ends_early(nodes: Int[np.ndarray, "n p"], tree: LabelTree) -> Bool[np.ndarray, "n"]:
  """Returns which images have a path that ends above a leaf, or of which nothing is known."""
  inner = np.diff(tree.child_offsets) > 0
  return ((nodes >= 0) & inner[np.maximum(nodes, 0) + 1]).any(axis=1) | ~has_label(nodes)


def _check_classes(
  ends: Int[np.ndarray, "n"], fine: Bool[np.ndarray, "n"], config: DataConfig, tree: LabelTree
) -> None:
  classes = np.intersect1d(ends, tree.leaves)
  absent = np.setdiff1d(classes, ends[fine])
  if len(absent):
    others = len(absent) - 1
    more = f" (nor any of {others} other class{'es' if others > 1 else ''})" if others else ""
    raise UserError(
      f"config.data.fine = {config.fine}: of the {int((ends == absent[0]).sum())} training images of "
      f"{tree.path_text(int(absent[0]))!r} none keeps its whole label{more}; raise config.data.fine, or try another "
      "config.data.split_seed"
    )
