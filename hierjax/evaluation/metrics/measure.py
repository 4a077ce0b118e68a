"""All metrics of predictions with their intervals, as plain data: what eval/SPLIT.json holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from hierjax.errors import UserError
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.intervals import intervals_of, values_of
from hierjax.evaluation.metrics.scored import score
from hierjax.evaluation.metrics.tree_table import TreeTable
from hierjax.functional.multilabel import multilabel_metrics
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.given import given_nodes
from hierjax.tree.label_tree import PAD, LabelTree
from hierjax.types import Batch, Prediction

_THRESHOLD = 0.5  # of the nodes of predictions of several paths

_multilabel_metrics = jax.jit(multilabel_metrics, static_argnames="thresholds")


def metrics(prediction: Prediction, labels: Any, tree: LabelTree, count_root: bool = False) -> dict[str, Any]:
  """Returns the metrics of anybody's predictions by name, as `hierjax evaluate` does of a run.

  Args:
    prediction: of n images: `Prediction.from_leaf_probs`, `from_node_probs` or `from_nodes`, or what a model predicts.
    labels: the node at which the label of each image ends, by number or by id, path or name (-1, None or '' for none);
      or the label paths, `i32[n l]`. Of predictions of several paths an image: a list of nodes an image.
    tree: the tree.
    count_root: whether hierarchical precision and recall count the root as a node of every path.

  Returns:
    `num_examples`, `level_names`, `level_sizes`, each metric of `METRICS` that the predictions have what it takes for,
    and their 95% intervals over images by name, `intervals`. Of predictions of several paths: `path_f1`,
    `node_f1` and `end_f1`, at a threshold of 0.5, without intervals.

  Raises:
    UserError: there are not as many labels as predictions, or the tree lacks one.
  """
  count = len(prediction.paths)
  if len(labels) != count:
    raise UserError(f"{len(labels):,} labels for {count:,} predictions: give one an image, in the same order")
  about = {"num_examples": count, "level_names": list(tree.named_levels)}
  about["level_sizes"] = np.diff(tree.level_offsets).tolist()
  if prediction.node_score is not None:
    return about | _of_several(prediction, labels, tree)
  return about | measured(facts_of(prediction, label_paths(labels, tree), tree, count_root))


def facts_of(
  prediction: Prediction, labels: Int[np.ndarray, "n l"], tree: LabelTree, count_root: bool = False
) -> Facts:
  """Returns the facts about predictions for images with these label paths."""
  table = TreeTable.of(tree)
  return Facts(score(jax.tree.map(np.asarray, prediction), labels, table), table, count_root)


def label_paths(labels: Any, tree: LabelTree) -> Int[np.ndarray, "n l"]:
  """Returns the label paths of nodes that are given by number or by name; label paths as they are.

  Raises:
    UserError: they are neither.
  """
  if len(labels) and not isinstance(labels[0], str) and np.ndim(labels[0]) == 1:
    found = np.asarray(labels, np.int32)
    if found.shape[1:] != (tree.depth,):
      raise UserError(f"label paths of {found.shape[1]} levels; the tree has {tree.depth}: `tree.encode` makes them")
    return found
  return tree.encode(given_nodes(labels, tree))


def _of_several(prediction: Prediction, labels: Sequence[Any], tree: LabelTree) -> dict[str, Any]:
  ends = [given_nodes(list(nodes), tree) for nodes in labels]
  padded = np.full((len(ends), max([1, *map(len, ends)])), PAD, np.int32)
  for row, nodes in zip(padded, ends, strict=True):
    row[: len(nodes)] = nodes
  batch = Batch(jnp.zeros((len(ends), 1)), jnp.asarray(tree.encode(padded)), jnp.ones(len(ends)))
  of_arrays = jax.tree.map(jnp.asarray, prediction)
  found = _multilabel_metrics(of_arrays, batch, tree_arrays(tree), thresholds=(_THRESHOLD,))
  values = {name: float(np.asarray(value.value())) for name, value in found.items()}
  return {name: None if np.isnan(value) else value for name, value in values.items()}


def measured(facts: Facts) -> dict[str, Any]:
  """Returns each metric of `METRICS` by name, and all 95% intervals by name under `intervals`.

  A metric is a number, or a list of one a level; None where nothing counts. An interval is a list of two numbers.
  """
  values, intervals = values_of(facts), intervals_of(facts)
  return {
    **{name: _plain(value) for name, value in values.items()},
    "intervals": {name: _plain_ends(ends) for name, ends in intervals.items()},
  }


def _plain(value: np.ndarray) -> Any:
  numbers = [None if np.isnan(one) else float(one) for one in np.atleast_1d(value)]
  return numbers if value.ndim else numbers[0]


def _plain_ends(ends: np.ndarray) -> Any:
  if ends.ndim > 1:
    return [_plain_ends(one) for one in ends]
  return None if np.isnan(ends).any() else ends.tolist()
