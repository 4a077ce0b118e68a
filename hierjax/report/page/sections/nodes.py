"""The label tree with the counts of each node, and the confusions at each level, as compact data."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.scores import NodeScores, known_part
from hierjax.report.page.findings.findings import Findings
from hierjax.tree.label_tree import LabelTree

MOST_PAIRS = 30_000  # of a label's and a predicted node; the most frequent ones of all levels


def tree_data(found: Findings) -> dict[str, Any]:
  """Returns the tree: names breadth-first, the number of children of the root and each node, and counts a node."""
  tree, scores = found.tree, NodeScores.of(found.predictions, found.tree)
  return {
    "root": tree.root_name,
    "levels": list(tree.named_levels),
    "names": list(tree.names),
    "children": np.diff(tree.child_offsets).tolist(),
    "labelled": scores.labelled.tolist(),
    "predicted": scores.predicted.tolist(),
    "right": scores.right.tolist(),
    **_pair_data(found.predictions, tree),
  }


def _pair_data(predictions: Predictions, tree: LabelTree) -> dict[str, Any]:
  pairs = level_pairs(predictions, tree)
  order = np.argsort(-pairs[:, 2], kind="stable")[:MOST_PAIRS]
  return {"pairs": pairs[order].ravel().tolist(), "pairsLeftOut": len(pairs) - len(order)}


def level_pairs(predictions: Predictions, tree: LabelTree) -> np.ndarray:
  """Returns `i64[m 3]`: a label's node, the wrong node predicted at its level, -1 for none, and for how many images."""
  labels, paths = predictions.labels[predictions.counted], known_part(predictions)[predictions.counted]
  wrong = (labels >= 0) & (labels != paths)
  keys = labels[wrong].astype(np.int64) * (tree.num_nodes + 1) + np.maximum(paths[wrong], -1) + 1
  found, counts = np.unique(keys, return_counts=True)
  label, predicted = np.divmod(found, tree.num_nodes + 1)
  return np.stack([label, predicted - 1, counts], axis=1)
