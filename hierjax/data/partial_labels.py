"""Partial labels, which end above a leaf: the images that have them, and their use in training (Guo et al., 4.2)."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Bool, Int

from hierjax.data.config import DataConfig
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.source import View, has_label
from hierjax.data.splits import with_partial_labels, with_whole_labels
from hierjax.errors import UserError
from hierjax.tree.label_tree import PAD, LabelTree, ShortLabels


@dataclasses.dataclass(frozen=True)
class PartialLabels:
  """Training images with their labels as far as they are known: S_fine and S_coarse of the paper together.

  Attributes:
    images: the images, with the labels that the set has for them.
    known: `i32[n p]`, the labels as far as they are known, as `Source.nodes`.
    partial: `bool[n]`, whether an image is in S_coarse: one of its labels is partial, or none is known.
  """

  images: View
  known: Int[np.ndarray, "n p"]
  partial: Bool[np.ndarray, "n"]

  @property
  def fine_checksum(self) -> str:
    """SHA-256 of the numbers of the images of S_fine in the set, and of their labels."""
    fine = ~self.partial
    digest = hashlib.sha256(np.ascontiguousarray(self.images.indices[fine], "<i8").tobytes())
    digest.update(np.ascontiguousarray(self.known[fine], "<i4").tobytes())
    return digest.hexdigest()

  def partial_images(self) -> View:
    """Returns S_coarse, with its labels as far as they are known."""
    return View(self.images.source, self.images.indices[self.partial], self.known[self.partial])


def known_labels(images: View, config: DataConfig, tree: LabelTree) -> PartialLabels:
  """Divides training images at random, by `config.fine` or `fine_per_label` and `coarse`, and cuts labels of S_coarse.

  Raises:
    UserError: a class has no example that keeps its whole label, or the tree has no level below `config.coarse_level`.
  """
  known, used = images.nodes, np.arange(len(images))
  if config.fine < 1 or config.fine_per_label:
    fine = with_whole_labels(images.nodes[:, 0], config.fine, config.fine_per_label, config.split_seed)
    coarse = with_partial_labels(fine, config.coarse, config.split_seed)
    _check_classes(images.nodes[:, 0], fine, config, tree)
    known = np.where(coarse[:, None], nodes_in_top_levels(known, tree, _top_levels(config, tree)), known)
    used = np.flatnonzero(fine | coarse)
  known = known[used]
  return PartialLabels(View(images.source, images.indices[used], images.nodes[used]), known, _ends_early(known, tree))


def to_train_on(images: View, config: DataConfig, tree: LabelTree) -> View:
  """Returns the training images, those with partial labels treated as `config.partial_labels` says.

  Raises:
    UserError: as `known_labels`, or `config.pseudo_labels` cannot be read or is of other images.
  """
  found = known_labels(images, config, tree)
  if config.partial_labels == "truth":
    return found.images
  if config.partial_labels == "drop":
    fine = ~found.partial
    return View(images.source, found.images.indices[fine], found.known[fine])
  nodes = found.known.copy()
  if config.partial_labels == "pseudo":
    labels = PseudoLabels.load(config.pseudo_labels)
    nodes[found.partial, 0] = labels.nodes_of(found.partial_images(), tree, found.fine_checksum)
  return View(images.source, found.images.indices, nodes)


def nodes_in_top_levels(nodes: Int[np.ndarray, "n p"], full_tree: LabelTree, tree: LabelTree) -> Int[np.ndarray, "n p"]:
  """Returns end nodes in `tree`, the top levels of `full_tree`: each node itself, or its lowest ancestor there.

  Where several paths of an image get the same end node, the first is kept.
  """
  nodes = nodes.copy()
  while (below := nodes >= tree.num_nodes).any():
    nodes[below] = full_tree.parent[nodes[below]]
  for p in range(1, nodes.shape[1]):
    nodes[(nodes[:, :p] == nodes[:, p, None]).any(axis=1), p] = PAD
  return nodes


def check_short_labels(config: DataConfig, short_labels: ShortLabels) -> None:
  """Raises UserError where `data` has settings for partial labels, and `tree.short_labels = stop` excludes them."""
  if short_labels == "stop" and (config.coarse > 0 or config.partial_labels != "direct"):
    raise UserError(
      "config.tree.short_labels = 'stop': a label that ends above a leaf is then complete, while config.data.coarse "
      "and config.data.partial_labels are for labels whose rest is unknown; set config.tree.short_labels = 'unknown'"
    )


def _top_levels(config: DataConfig, tree: LabelTree) -> LabelTree:
  if config.coarse_level >= tree.depth:
    raise UserError(
      f"config.data.coarse_level = {config.coarse_level}: the tree has {tree.depth} levels, so a partial label has at "
      f"most {tree.depth - 1}"
    )
  return tree.truncated(config.coarse_level)


def _ends_early(nodes: Int[np.ndarray, "n p"], tree: LabelTree) -> Bool[np.ndarray, "n"]:
  """Returns whether an image has a partial label, or no known label."""
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
