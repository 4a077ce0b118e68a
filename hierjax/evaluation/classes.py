"""By class: counts, recall, precision and the most frequent confusions, as a CSV file and in eval/SPLIT.json."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.scores import NodeScores, confusions
from hierjax.runs.folder import write_table
from hierjax.tree.label_tree import LabelTree

HEADER = (
  "class", "level", "is_leaf", "images", "predicted", "right", "recall", "precision", "confused_with",
  "confused_images", "confused_with_2", "confused_images_2", "confused_with_3", "confused_images_3",
)  # fmt: skip
PAIRS = 3
SHOWN = 5  # classes and pairs that are printed


def write_classes(evaluation: Path, facts: Facts) -> Path:
  """Writes NAME-classes.csv beside an evaluation, NAME.json: a row for each node that has images or predictions."""
  path = evaluation.with_name(f"{evaluation.stem}-classes.csv")
  write_table(path, HEADER, class_rows(facts.predictions, facts.table.tree))
  return path


def class_summary(facts: Facts) -> dict[str, Any]:
  """Returns the classes of the lowest recall and the most frequent confusions, as eval/SPLIT.json holds them.

  Returns:
    `lowest_recall`: of the nodes where labels end, by recall, then by falling number of images: `class`, `images`,
    `recall`, `precision` (None where nothing was predicted). `confusions`, by falling number of images: `label`,
    `predicted`, `images`, and `share`, of the images with this label. At most five each.
  """
  predictions, tree = facts.predictions, facts.table.tree
  scores = NodeScores.of(predictions, tree)
  ends = np.unique(predictions.labels[predictions.counted].max(axis=1)).tolist()
  ends = sorted((node for node in ends if node >= 0), key=lambda node: (scores.recall(node), -scores.labelled[node]))
  worst = [
    {
      "class": _cell(tree, node),
      "images": int(scores.labelled[node]),
      "recall": scores.recall(node),
      "precision": scores.precision(node),
    }
    for node in ends[:SHOWN]
  ]
  pairs = [
    {
      "label": _cell(tree, pair.label),
      "predicted": _cell(tree, pair.predicted),
      "images": len(pair.images),
      "share": pair.share,
    }
    for pair in confusions(predictions)[:SHOWN]
  ]
  return {"lowest_recall": worst, "confusions": pairs}


def class_rows(predictions: Predictions, tree: LabelTree) -> list[tuple[object, ...]]:
  """Returns the rows in the order of the tree; a share is '' where it has no images, and a pair where there is none.

  The pairs of a node are those of the labels that end there, the most frequent first.
  """
  scores = NodeScores.of(predictions, tree)
  pairs: dict[int, list[tuple[str, int]]] = defaultdict(list)
  for pair in confusions(predictions):
    if len(pairs[pair.label]) < PAIRS:
      pairs[pair.label].append((_cell(tree, pair.predicted), len(pair.images)))
  rows: list[tuple[object, ...]] = []
  for node in range(tree.num_nodes):
    counts = scores.labelled[node], scores.predicted[node], scores.right[node]
    if not (counts[0] or counts[1]):
      continue
    shares = ["" if share is None else f"{share:.6g}" for share in (scores.recall(node), scores.precision(node))]
    own = [cell for pair in pairs[node] for cell in pair]
    own += [""] * (2 * PAIRS - len(own))
    rows.append(
      (_cell(tree, node), tree.named_levels[tree.level[node]], int(tree.is_leaf(node)), *counts, *shares, *own)
    )
  return rows


def _cell(tree: LabelTree, node: int) -> str:
  return tree.path_text(node) if node >= 0 else "(no path)"
