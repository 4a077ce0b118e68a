"""Figure 1 of Dutt et al. (2017): a node's probability against the sum of its children's, adapted or not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.answers import Rows
from hierjax.functional.adaptation import adapted
from hierjax.functional.combine import mean_of_members
from hierjax.functional.distributions import split_levels
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.members import Answered, Ensemble, Images
from hierjax.report.plots.canvas import NodeNames, Page
from hierjax.report.plots.style import ACCENT, GREY, LIGHT
from hierjax.runs.folder import RunFolder, write_table
from hierjax.tree.label_tree import UNKNOWN, LabelTree

HEADER = ("image", "label", "in_node", "node_at_0", "children_at_0", "node_at_1", "children_at_1")
ALPHAS = (0.0, 1.0)

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _LEFT, _BOTTOM, _GAP = 0.3, 1.05, 0.3, 0.55, 0.55, 0.35
_SIDE = 3.6


@dataclasses.dataclass(frozen=True)
class Consistency:
  """The probabilities that an ensemble gives to a node, and to its children together.

  Attributes:
    name: of the ensemble.
    split: the name of the images' split.
    source: the images.
    tree: the label tree.
    node: the node.
    inside: `bool[n]`, whether an image's label is the node or below it.
    counted: `bool[n]`, whether that is known, and the image could be read.
    probability: `f32[n 2 2]`, by alpha of ALPHAS: of the node by its own level, and of its children by the next.
  """

  name: str
  split: str
  source: Source
  tree: LabelTree
  node: int
  inside: np.ndarray
  counted: np.ndarray
  probability: np.ndarray

  @classmethod
  def of(cls, masses: Rows, ensemble: Ensemble, images: Images, node: int) -> Consistency:
    """Returns the probabilities that a taker of `node_masses` has collected."""
    tree = ensemble.tree
    mask, probability = masses.values(len(images.source))
    label = tree.encode(images.source.nodes[:, 0])[:, tree.level[node]]
    counted = (mask > 0) & (label != UNKNOWN)
    return cls(ensemble.name, images.split, images.source, tree, node, label == node, counted, probability)


def find_node(tree: LabelTree, name: str) -> int:
  """Returns an inner node by its name, or by its path `animal/dog`; '' for the first of the top level.

  Raises:
    UserError: there is none of that name, or several, or it has no children.
  """
  inner = [node for node in range(tree.num_nodes) if not tree.is_leaf(node)]
  if not inner:
    raise UserError("--node: this tree has one level, so that no node has children to compare it with")
  if not name:
    return inner[0]
  found = [node for node in range(tree.num_nodes) if name in (tree.names[node], tree.path_text(node))]
  if len(found) != 1:
    some = ", ".join(tree.path_text(node) for node in (found or inner)[:5])
    raise UserError(f"--node {name}: {len(found)} nodes are called that; name one by its path, such as {some}")
  if tree.is_leaf(found[0]):
    raise UserError(f"--node {name}: it is a leaf; name a node with children")
  return found[0]


def node_masses(ensemble: Ensemble, node: int) -> Rows:
  """Returns a taker of the probabilities that an ensemble gives to a node and to its children; see `Consistency.of`."""
  level = int(ensemble.tree.level[node])
  return Rows(functools.partial(_masses, ensemble.whole.run.method.tree, level, np.int32(node)))


@functools.partial(jax.jit, static_argnums=1)
def _masses(tree: TreeArrays, level: int, node: Int[Array, ""], answered: Answered) -> tuple[Array, Array]:
  """Returns the mask of a batch, and `f32[b a 2]`."""
  mean = mean_of_members(answered.distributions, tree)
  first, below, end = tree.level_offsets[level : level + 3]
  children = jnp.asarray(tree.parent)[below:end] == node
  found = []
  for alpha in ALPHAS:
    blocks = split_levels(adapted(mean, alpha, tree).level_prob, tree)
    own = jnp.take(blocks[level], node - first, axis=1)
    found.append(jnp.stack([own, jnp.where(children, blocks[level + 1][:, : len(children)], 0.0).sum(axis=1)], axis=1))
  return answered.mask, jnp.stack(found, axis=1)


def draw_consistency(out: RunFolder, found: Consistency, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/consistency.png and, beside it, consistency.csv, with a row for each image; returns its path.

  A dot is an image: coloured where it is of the node. On the diagonal, both levels say the same.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = out.path / "pictures"
  write_table(pictures / f"consistency{suffix}.csv", HEADER, _consistency_rows(found))
  page = Page(2 * _MARGIN + len(ALPHAS) * (_LEFT + _SIDE) + _GAP, _HEAD + _CAPTION + _SIDE + _BOTTOM + _MARGIN / 2)
  width, node = page.width - 2 * _MARGIN, NodeNames(found.tree)(found.node)
  page.text(_MARGIN, 0.25, f"{node}: its probability, and that of its children", width=width, size=13.0, bold=True)
  about = f"{found.name}: {int(found.counted.sum()):,} images of {found.split}; on the diagonal, both levels agree"
  page.text(_MARGIN, 0.52, about, width=width, size=9.0, colour=GREY)
  inside = int((found.inside & found.counted).sum())
  for left, colour, text in ((0.06, ACCENT, f"{inside:,} images of {node}"), (width / 2, LIGHT, "other images")):
    page.dot(_MARGIN + left, 0.8, colour, "o")
    page.text(_MARGIN + left + 0.12, 0.8, text, width=width / 2 - 0.3, size=9.0)
  for number, alpha in enumerate(ALPHAS):
    title = "As predicted" if alpha == 0 else f"Adapted, alpha = {alpha:g}"
    page.text(_left(number), _HEAD, title, width=_SIDE, size=10.0, bold=True)
    _panel(page, found, number)
  return page.save(pictures / f"consistency{suffix}.{kind}")


def _left(number: int) -> float:
  return _MARGIN + _LEFT + number * (_SIDE + _LEFT + _GAP)


def _panel(page: Page, found: Consistency, number: int) -> None:
  """Draws the panel of an alpha, by its number in ALPHAS."""
  left, top, probability = _left(number), _HEAD + _CAPTION, found.probability[:, number]
  axes = page.plot(left, top, _SIDE, _SIDE)
  axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, zorder=1)
  size = min(12.0, max(5.0, 20_000 / len(probability)))  # square points
  for inside, colour in ((False, LIGHT), (True, ACCENT)):
    x, y = probability[found.counted & (found.inside == inside)].T
    axes.scatter(x, y, s=size, c=colour, linewidths=0, alpha=0.6, zorder=2 + inside, clip_on=False)
  axes.set(xlim=(0, 1), ylim=(0, 1))
  page.text(left, top + _SIDE + 0.3, "probability of the node at its own level", width=_SIDE, align="center")
  page.side_text(left - 0.4, top, "sum over its children at the next level", height=_SIDE)


def _consistency_rows(found: Consistency) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns, of the images that count."""
  for image in np.flatnonzero(found.counted).tolist():
    numbers = (f"{p:.6f}" for p in found.probability[image].ravel().tolist())
    label = found.tree.path_text(int(found.source.nodes[image, 0]))
    yield found.source.name_of(image), label, int(found.inside[image]), *numbers
