"""The CSV files beside the page: nodes, confusions, calibration and images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hierjax.evaluation.calibration import BINS, Calibration
from hierjax.evaluation.scores import NodeScores, confusions, distances
from hierjax.report.page.findings.findings import Findings, Place
from hierjax.runs.folder import write_table
from hierjax.tree.label_tree import LabelTree

NODES = ("node", "level", "images", "recall", "predicted", "precision")
CONFUSIONS = ("label", "predicted", "images", "share_of_label", "edges", "first_image")
CALIBRATION = ("level", "probability_up_to", "nodes", "mean_probability", "accuracy")
IMAGES = ("image", "label", "predicted", "probability", "right", "edges")

Cells = Iterator[tuple[object, ...]]


def write_tables(place: Place, found: Findings) -> None:
  """Writes four CSV files, eval/SPLIT-nodes.csv and so on."""
  for name, header, rows in (
    ("nodes", NODES, _node_cells(found)),
    ("confusions", CONFUSIONS, _confusion_cells(found)),
    ("calibration", CALIBRATION, _calibration_cells(found)),
    ("images", IMAGES, _image_cells(found)),
  ):
    write_table(place.folder / "eval" / f"{place.tables}-{name}.csv", header, rows)


def depth_first(tree: LabelTree) -> Iterator[int]:
  """Yields the nodes of a tree, each before those below it."""
  waiting = list(reversed(tree.children(-1)))
  while waiting:
    node = waiting.pop()
    yield node
    waiting += reversed(tree.children(node))


def _end(tree: LabelTree, node: int) -> str:
  return tree.path_text(node) if node >= 0 else ""


def _node_cells(found: Findings) -> Cells:
  tree, scores = found.tree, NodeScores.of(found.predictions, found.tree)
  for node in depth_first(tree):
    share = [_number(scores.recall(node)), _number(scores.precision(node))]
    yield (
      tree.path_text(node), int(tree.level[node]) + 1, int(scores.labelled[node]), share[0],
      int(scores.predicted[node]), share[1],
    )  # fmt: skip


def _confusion_cells(found: Findings) -> Cells:
  for pair in confusions(found.predictions):
    ends = [_end(found.tree, node) for node in (pair.label, pair.predicted)]
    yield *ends, len(pair.images), _number(pair.share), pair.edges, found.name_of(int(pair.images[0]))


def _calibration_cells(found: Findings) -> Cells:
  counts = Calibration.of(found.predictions)
  for level, number in np.argwhere(counts.nodes).tolist() if found.likely is not None else ():
    nodes = int(counts.nodes[level, number])
    shares = (counts.probability[level, number] / nodes, counts.right[level, number] / nodes)
    yield level + 1, _number((number + 1) / BINS), nodes, *map(_number, shares)


def _image_cells(found: Findings) -> Cells:
  tree, predictions, far = found.tree, found.predictions, distances(found.predictions)
  for row in np.flatnonzero(predictions.counted).tolist():
    path = [node for node in predictions.paths[row].tolist() if node >= 0]
    probability = float(predictions.end_probability[row]) if path and found.likely is not None else None
    yield (
      found.name_of(row), _end(tree, int(found.facts.label_ends[row])), tree.nodes_text(path),
      _number(probability), int(predictions.right[row]), int(far[row]),
    )  # fmt: skip


def _number(value: float | None) -> str:
  return "" if value is None else f"{value:.6f}"
