"""Figure 7 of Guo et al. (2018): predicted paths beside their images, right and wrong, in four groups."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.asked import batches, check_images, check_single_path
from hierjax.evaluation.runner import predict_views
from hierjax.evaluation.tables import percent, table
from hierjax.functional.metrics import path_is_right, share_of_right_nodes
from hierjax.functional.paths import ends, single_path
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run, asked_split
from hierjax.tree.label_tree import STOP, UNKNOWN
from hierjax.types import Examples, Leaf, Method, Prediction, Variables

MOST = 20  # images a group: more would be taller than a PNG file of matplotlib's can be


@struct.dataclass
class Judged:
  """What a run says of n images of a tree of l levels, and how right that is.

  Attributes:
    counted: `bool[n]`, whether any of the label is known.
    right: `bool[n]`, whether the best path is right, as path accuracy counts it.
    some_right: `bool[n]`, whether any of its nodes is.
    labels: `i32[n l]`, the label paths.
    paths: `i32[n l]`, the best paths.
    probability: `f32[n l]`, of their nodes.
    stop: `f32[n]`, the probability that a path which came this far ends here.
  """

  counted: Leaf
  right: Leaf
  some_right: Leaf
  labels: Leaf
  paths: Leaf
  probability: Leaf
  stop: Leaf

  @functools.cached_property
  def groups(self) -> dict[str, np.ndarray]:
    """`bool[n]` by name: every image that counts is right, partly wrong or wholly wrong.

    Wholly wrong means at the top level, and so everywhere below it. A path that ends too early or too late is partly
    wrong.
    """
    return {
      "right": self.counted & self.right,
      "partly wrong": self.counted & ~self.right & self.some_right,
      "wholly wrong": self.counted & ~self.right & ~self.some_right,
    }


@dataclasses.dataclass(frozen=True)
class PathSheet:
  """A split of a run's images, and those that were chosen to be shown.

  Attributes:
    run: the run that was asked.
    split: the name of the images' split.
    source: the images.
    judged: what the run says of each.
    chosen: `i64[...]` by group of Fig. 7, the images to show: a is right, b partly wrong, c right, and d wholly wrong
      in the categories of c.
  """

  run: Run
  split: str
  source: Source
  judged: Judged
  chosen: Mapping[str, np.ndarray]

  def sizes(self) -> dict[str, int]:
    """Returns how many images there are to choose from, by group."""
    right, partly, wrong = self.judged.groups.values()
    categories = self.source.nodes[:, 0]
    shared = np.isin(categories, np.intersect1d(categories[right], categories[wrong]))
    masks = {"a": right, "b": partly, "c": right & shared, "d": wrong & shared}
    return {group: int(mask.sum()) for group, mask in masks.items()}


@dataclasses.dataclass(frozen=True)
class Said:
  """A line of a predicted path: a node, or that the path ends above a leaf.

  Attributes:
    name: of the node.
    probability: of the node; or, for an end, of ending there, having come this far.
    right: None where the label does not say.
  """

  name: str
  probability: float
  right: bool | None


def find_paths(
  folder: RunFolder, mesh: Mesh, *, split: str = "", each: int = 4, seed: int = 0, data_root: str = ""
) -> PathSheet:
  """Asks a run about all images of a split, and chooses some of each group at random.

  Args:
    folder: of the run; any head will do.
    mesh: the devices to use.
    split: `train`, `validation` or `test`; '' for the split that the run is judged on.
    each: how many images to show of each group, 1 to MOST.
    seed: chooses them; 0 or more.
    data_root: where the data set is now; '' for where the config says.

  Raises:
    UserError: the data are no images, or have several label paths each, or the folder, the data or an argument cannot
      be used.
  """
  if not 1 <= each <= MOST:
    raise UserError(f"--each {each}: choose from 1 to {MOST}")
  if seed < 0:
    raise UserError(f"--seed {seed}: must be 0 or more")
  run = Run.from_folder(folder, data_root)
  split, source = asked_split(run, split)
  check_images(source)
  check_single_path(run, source)
  judged = ask_all(run, folder, source, mesh)
  chosen = choose(judged, source.nodes[:, 0], each, np.random.default_rng(seed))
  return PathSheet(run, split, source, judged, chosen)


def ask_all(run: Run, folder: RunFolder, source: Source, mesh: Mesh) -> Judged:
  """Returns what a run says of all images of a source, and how right that is."""

  @jax.jit
  def see(method: Method, variables: Variables, examples: Examples) -> Judged:
    prediction = predict_views(method, variables, examples, run.preprocess, run.options)
    return judge(prediction, single_path(examples.paths), examples.mask)

  _, variables = run.restored_variables(folder, mesh)
  found = [jax.device_get(see(run.method, variables, examples)) for examples in batches(run, source, mesh)]
  return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(source)], *found)


def judge(prediction: Prediction, labels: Int[Array, "b l"], mask: Float[Array, "b"]) -> Judged:
  """Returns how right the best paths of a batch are; `mask` is 0 where there is no image."""
  best = prediction.paths[:, 0]
  probability = jnp.take_along_axis(prediction.node_prob, jnp.maximum(best, 0), axis=1)
  return Judged(
    counted=(ends(labels) >= 0) & (mask > 0),
    right=path_is_right(best, labels),
    some_right=share_of_right_nodes(best, labels) > 0,
    labels=labels,
    paths=best,
    probability=jnp.where(best >= 0, probability, 0.0),
    stop=prediction.stop_prob[:, 0],
  )


def choose(
  judged: Judged, categories: Int[np.ndarray, "n"], each: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Returns random images for the groups of Fig. 7, at most `each`.

  An image of c and the one of d in its place are of one category, and the categories differ as long as there are more.
  What c has is in a only where there is nothing else.

  Args:
    judged: what is said of all images.
    categories: the node that each label ends at.
    each: how many a group.
    rng: draws them.
  """
  right, partly, wrong = (rng.permutation(np.flatnonzero(mask)) for mask in judged.groups.values())
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


def said(found: PathSheet, image: int) -> list[Said]:
  """Returns the predicted path of an image, line by line."""
  judged, tree = found.judged, found.run.tree
  label, nodes = judged.labels[image].tolist(), [node for node in judged.paths[image].tolist() if node >= 0]
  lines = [
    Said(tree.names[node], float(p), None if true == UNKNOWN else node == true)
    for node, p, true in zip(nodes, judged.probability[image], label, strict=False)
  ]
  if 0 < len(nodes) < tree.depth and not tree.is_leaf(nodes[-1]):
    true = label[len(nodes)]
    right = True if true == STOP else False if true >= 0 else None
    lines.append(Said("ends here", float(judged.stop[image]), right))
  return lines


def describe(found: PathSheet) -> str:
  """Returns how many images are right, partly wrong and wholly wrong, as text for a terminal."""
  total = int(found.judged.counted.sum())
  rows: list[tuple[str, ...]] = [("path", "images", "share")]
  for name, mask in found.judged.groups.items():
    count = int(mask.sum())
    rows.append((name, f"{count:,}", percent(count / total if total else None)))
  return f"{total:,} images of {found.split}\n{table(rows)}"
