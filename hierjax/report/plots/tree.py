"""The label tree with the recall of each node, and the table beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Line
from matplotlib.patheffects import withStroke

from hierjax.errors import UserError
from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.scores import NodeScores
from hierjax.report.plots.canvas import NodeNames, Page, printable
from hierjax.report.plots.style import FAMILY, GREY, INK, RECALL, RECALL_NAMES, recall_colour
from hierjax.runs.folder import RunFolder, write_table
from hierjax.tree.label_tree import ROOT, LabelTree

HEADER = ("node", "level", "images", "recall", "predicted", "precision", "drawn")
MOST_LEAVES = 400  # rows of a picture

# The page, in inches.
_MARGIN, _HEAD, _ROW, _COLUMN, _NAMES, _FOOT = 0.3, 1.0, 0.2, 1.9, 2.6, 0.5


@dataclasses.dataclass(frozen=True)
class ScoredTree:
  """A label tree and how often its nodes are predicted, wrongly and rightly.

  Attributes:
    name: of the run.
    split: the name of the images' split.
    tree: the tree.
    scores: by node.
    images: that count.
    levels: how many levels are drawn.
    inside: the node at which the picture begins; ROOT for all.
  """

  name: str
  split: str
  tree: LabelTree
  scores: NodeScores
  images: int
  levels: int
  inside: int = ROOT

  @classmethod
  def of(cls, name: str, split: str, predictions: Predictions, tree: LabelTree) -> ScoredTree:
    """Returns the tree with the scores of predictions."""
    return cls(name, split, tree, NodeScores.of(predictions, tree), int(predictions.counted.sum()), tree.depth)

  def shown(self, node: int) -> list[int]:
    """Returns the children of a node that are drawn: those with images or predictions, the most images first."""
    if node != ROOT and self.tree.level[node] + 1 >= self.levels:
      return []
    children = [c for c in self.tree.children(node) if self.scores.labelled[c] + self.scores.predicted[c] > 0]
    return sorted(children, key=lambda child: -int(self.scores.labelled[child]))

  def rows(self, node: int) -> int:
    """Returns the rows that a node takes, with all that is drawn below it."""
    return sum(map(self.rows, self.shown(node))) or 1


def narrowed(found: ScoredTree, levels: int = 0, inside: int = ROOT) -> ScoredTree:
  """Returns what is drawn of a tree: some levels of it, or one node and what is below.

  Args:
    found: the tree.
    levels: how many levels; 0 for as many as have room.
    inside: the node at which the picture begins; ROOT for all.

  Raises:
    UserError: it has more than MOST_LEAVES rows.
  """
  first = 1 if inside == ROOT else int(found.tree.level[inside]) + 1
  found = dataclasses.replace(found, inside=inside, levels=levels or found.tree.depth)
  while not levels and found.levels > first and found.rows(inside) > MOST_LEAVES:
    found = dataclasses.replace(found, levels=found.levels - 1)
  if (rows := found.rows(inside)) > MOST_LEAVES:
    raise UserError(f"--levels {found.levels}: {rows:,} rows, and {MOST_LEAVES} have room; give fewer, or --node")
  return found


def draw_tree(folder: RunFolder, found: ScoredTree, kind: str = "png", suffix: str = "") -> Path:
  """Writes pictures/tree.png and, beside it, tree.csv with all nodes; returns the picture's path.

  Circles and lines are as large as the number of images, and coloured by recall.
  The names end with `suffix`, see `images_suffix`.
  """
  pictures = folder.path / "pictures"
  places = _places(found)
  write_table(pictures / f"tree{suffix}.csv", HEADER, _tree_rows(found, places))
  columns, rows = max(column for column, _ in places.values()), found.rows(found.inside)
  page = Page(2 * _MARGIN + max(5.5, columns * _COLUMN + _NAMES), _HEAD + rows * _ROW + _FOOT + _MARGIN)
  _heading(page, found)
  axes = page.plot(_MARGIN, _HEAD, page.width - 2 * _MARGIN, rows * _ROW)
  axes.set_axis_off()
  axes.set(xlim=(-0.12, (page.width - 2 * _MARGIN) / _COLUMN - 0.12), ylim=(rows - 0.5, -0.5))
  for node in places:
    _draw_node(axes, found, places, node)
  _legend(page, _HEAD + rows * _ROW + 0.25)
  return page.save(pictures / f"tree{suffix}.{kind}")


def _places(found: ScoredTree) -> dict[int, tuple[int, float]]:
  """Returns the column and the row of each node that is drawn; an inner one stands in the middle of those below it."""
  places: dict[int, tuple[int, float]] = {}
  free = iter(range(MOST_LEAVES))

  def put(node: int, column: int) -> float:
    below = [put(child, column + 1) for child in found.shown(node)]
    places[node] = column, (below[0] + below[-1]) / 2 if below else float(next(free))
    return places[node][1]

  put(found.inside, 0)
  return places


def _size(found: ScoredTree, node: int) -> float:
  """Returns the square root of a node's share of the images."""
  own = found.images if node == ROOT else int(found.scores.labelled[node])
  return float(np.sqrt(own / max(found.images, 1)))


def _draw_node(axes: Axes, found: ScoredTree, places: dict[int, tuple[int, float]], node: int) -> None:
  (x, y), size = places[node], _size(found, node)
  colour = recall_colour(None if node == ROOT else found.scores.recall(node))
  if node != found.inside:
    left, above = places[int(found.tree.parent[node])]
    bend = [(left, above), (left + 0.5, above), (left + 0.5, y), (x, y)]
    line = Line(bend, [Line.MOVETO, Line.CURVE4, Line.CURVE4, Line.CURVE4])
    width = 0.7 + 9 * size
    axes.add_patch(PathPatch(line, fill=False, edgecolor=colour, linewidth=width, alpha=0.42, zorder=1, clip_on=False))
  axes.scatter([x], [y], s=(5 + 15 * size) ** 2, c=colour, edgecolors="white", linewidths=0.8, zorder=3, clip_on=False)
  _name(axes, found, (x, y), node)


def _name(axes: Axes, found: ScoredTree, place: tuple[int, float], node: int) -> None:
  """Puts the name and the recall of a node: beside it, or above it where lines go on to the right."""
  (x, y), inner = place, bool(found.shown(node))
  share = None if node == ROOT else found.scores.recall(node)
  name = "all labels" if node == ROOT else NodeNames(found.tree)(node)
  name = name if len(name) < 36 else f"{name[:34]}…"
  text = printable(name if share is None else f"{name}  {share:.0%}")
  side = (5 + 15 * _size(found, node)) / 2 + 4  # points
  axes.annotate(
    text, (x, y), xytext=(-side / 2, side) if inner else (side, 0), textcoords="offset points", fontsize=8,
    fontfamily=FAMILY, color=INK, fontweight="bold" if inner else "normal", va="bottom" if inner else "center",
    annotation_clip=False, parse_math=False, zorder=4, path_effects=[withStroke(linewidth=2.4, foreground="white")],
  )  # fmt: skip


def _heading(page: Page, found: ScoredTree) -> None:
  width = page.width - 2 * _MARGIN
  title = "The label tree" if found.inside == ROOT else " > ".join(found.tree.path_names(found.inside))
  page.text(_MARGIN, 0.25, f"{title}: images and recall", width=width, size=13.0, bold=True)
  about = f"{found.name}: {found.images:,} images of {found.split}; sizes are of images, colours and numbers of recall"
  page.text(_MARGIN, 0.52, about, width=width, size=9.0, colour=GREY)


def _legend(page: Page, top: float) -> None:
  for i, (colour, name) in enumerate(zip(RECALL, RECALL_NAMES, strict=True)):
    left = _MARGIN + 0.06 + i * 0.95
    page.dot(left, top, colour, "o")
    page.text(left + 0.12, top, name, width=0.75, colour=GREY)


def _tree_rows(found: ScoredTree, places: dict[int, tuple[int, float]]) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  number = lambda share: "" if share is None else f"{share:.6f}"  # noqa: E731
  for node in range(found.tree.num_nodes):
    recall, precision = number(found.scores.recall(node)), number(found.scores.precision(node))
    counts = int(found.scores.labelled[node]), recall, int(found.scores.predicted[node]), precision
    yield found.tree.path_text(node), int(found.tree.level[node]) + 1, *counts, int(node in places)
