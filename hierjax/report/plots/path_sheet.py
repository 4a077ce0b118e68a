"""Figure 7 of Guo et al. (2018): the choice of images that are right, partly right and wholly wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.predictions import Predictions, predictions_of_run
from hierjax.evaluation.tables import percent, table
from hierjax.inference.images import check_images, check_single_path
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.run import Run, asked_split
from hierjax.tree.label_tree import STOP, UNKNOWN

MOST = 20  # images a group: more would be taller than a PNG file of matplotlib's can be


@dataclasses.dataclass(frozen=True)
class PathSheet:
  """A split of a run's images, and those that were chosen to be shown.

  Attributes:
    run: the run.
    split: the name of the images' split.
    source: the images.
    predictions: for all of them.
    chosen: `i64[...]` by group of Fig. 7, the images to show: a is right, b partly right, c right, and d wholly wrong
      in the categories of c.
  """

  run: Run
  split: str
  source: Source
  predictions: Predictions
  chosen: Mapping[str, np.ndarray]

  def sizes(self) -> dict[str, int]:
    """Returns how many images there are to choose from, by group."""
    right, partly, wrong = self.predictions.groups.values()
    categories = self.source.nodes[:, 0]
    shared = np.isin(categories, np.intersect1d(categories[right], categories[wrong]))
    masks = {"a": right, "b": partly, "c": right & shared, "d": wrong & shared}
    return {group: int(mask.sum()) for group, mask in masks.items()}


@dataclasses.dataclass(frozen=True)
class PathLine:
  """A line of a predicted path: a node, or that the path ends above a leaf.

  Attributes:
    name: of the node.
    probability: of the node; or, for an end, of ending there, having come this far.
    right: None where the label does not say.
  """

  name: str
  probability: float
  right: bool | None


def find_paths(loaded: LoadedRun, split: str = "", each: int = 4, seed: int = 0) -> PathSheet:
  """Predicts all images of a split, and chooses some of each group at random.

  Args:
    loaded: the run; any head with one path an image.
    split: `train`, `validation` or `test`; '' for the split on which runs are judged.
    each: the number of images of each group, 1 to MOST.
    seed: chooses them; 0 or more.

  Raises:
    UserError: the data are no images, or have several label paths each, or an argument is out of range.
  """
  if not 1 <= each <= MOST:
    raise UserError(f"--each {each}: choose from 1 to {MOST}")
  if seed < 0:
    raise UserError(f"--seed {seed}: must be 0 or more")
  run = loaded.run
  split, source = asked_split(run, split)
  check_images(source)
  check_single_path(run, source)
  predictions = predictions_of_run(loaded, split, source)
  chosen = choose_groups(predictions, source.nodes[:, 0], each, np.random.default_rng(seed))
  return PathSheet(run, split, source, predictions, chosen)


def choose_groups(
  predictions: Predictions, categories: Int[np.ndarray, "n"], each: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Returns random images for the groups of Fig. 7, at most `each`.

  An image of c and the one of d in its place are of one category, and the categories differ as long as there are more.
  What c has is in a only where there is nothing else.

  Args:
    predictions: for all images.
    categories: the node that each label ends at.
    each: how many a group.
    rng: draws them.
  """
  right, partly, wrong = (rng.permutation(np.flatnonzero(mask)) for mask in predictions.groups.values())
  n = len(categories)
  # One number for "the i-th right image of a category", and the same for "the i-th wrong one".
  numbers = [categories[images].astype(np.int64) * n + _turns(categories[images]) for images in (right, wrong)]
  shared, first, second = np.intersect1d(numbers[0], numbers[1], return_indices=True)
  order = rng.permutation(len(shared))
  order = order[np.argsort(shared[order] % n, kind="stable")][:each]
  pairs = right[first[order]], wrong[second[order]]
  fresh = right[np.argsort(np.isin(right, pairs[0]), kind="stable")]
  return {"a": fresh[:each], "b": partly[:each], "c": pairs[0], "d": pairs[1]}


def _turns(values: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
  """Returns how often each value has come before."""
  order = np.argsort(values, kind="stable")
  turns = np.empty(len(values), np.int64)
  turns[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order])
  return turns


def path_lines(found: PathSheet, image: int) -> list[PathLine]:
  """Returns the predicted path of an image, line by line."""
  predictions, tree = found.predictions, found.run.tree
  label, nodes = predictions.labels[image].tolist(), [node for node in predictions.paths[image].tolist() if node >= 0]
  lines = [
    PathLine(tree.names[node], float(p), None if true == UNKNOWN else node == true)
    for node, p, true in zip(nodes, predictions.probability[image], label, strict=False)
  ]
  if 0 < len(nodes) < tree.depth and not tree.is_leaf(nodes[-1]):
    true = label[len(nodes)]
    right = True if true == STOP else False if true >= 0 else None
    lines.append(PathLine("ends here", float(predictions.stop[image]), right))
  return lines


def groups_table(found: PathSheet) -> str:
  """Returns how many images are right, partly right and wholly wrong, as text for a terminal."""
  total = int(found.predictions.counted.sum())
  rows: list[tuple[str, ...]] = [("path", "images", "share")]
  for name, mask in found.predictions.groups.items():
    count = int(mask.sum())
    rows.append((name, f"{count:,}", percent(count / total if total else None)))
  return f"{total:,} images of {found.split}\n{table(rows)}"
