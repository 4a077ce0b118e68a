"""Figure 5 of Guo et al. (2018): the states of the LSTM after each step, and how well they tell labels apart."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from hierjax.data.source import View
from hierjax.errors import UserError
from hierjax.evaluation.tables import percent, table
from hierjax.inference.images import check_single_path, sample
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.run import Run, asked_split
from hierjax.types import Examples, Method, Variables

FEWEST, MOST = 5, 10_000  # images: fewer make no map, more take minutes a step
NONE = -1  # in place of an image's number
_PERPLEXITY, _COMPONENTS = 30.0, 50  # van der Maaten and Hinton 2008 use 5 to 50, and 30


@dataclasses.dataclass(frozen=True)
class Step:
  """The states after one step of the path, of the m images whose predicted path has a node there.

  Attributes:
    images: `i64[m]`, their numbers among those of `States`, rising.
    states: `f32[m w]`, the LSTM's h, from which the node of this step is predicted.
    nearest: `i64[m]`, the image whose state is nearest to that of each, by Euclidean distance; NONE for a single one.
    places: `f32[m 2]`, the map; None for fewer than FEWEST different states.
  """

  images: np.ndarray
  states: np.ndarray
  nearest: np.ndarray
  places: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class States:
  """The answer for n images.

  Attributes:
    run: the run.
    split: what the images are called.
    source: the images.
    paths: `i32[n l]`, the path that the LSTM predicts for each, and is fed.
    steps: one a level of the tree.
  """

  run: Run
  split: str
  source: View
  paths: np.ndarray
  steps: tuple[Step, ...]

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """`i32[n]`, the node that each image's label ends at."""
    return self.source.nodes[:, 0]

  @functools.cached_property
  def tops(self) -> np.ndarray:
    """`i32[n]`, the top-level label of each image."""
    return self.run.tree.encode(self.labels)[:, 0]

  def same_label(self, step: Step, whole: bool) -> np.ndarray:
    """`bool[m]`, whether the image with the nearest state has the same label: the whole of it, or its top level.

    The mean is the accuracy of a nearest-neighbour classifier, leave-one-out, that is given all other labels.
    """
    labels = self.labels if whole else self.tops
    return (step.nearest != NONE) & (labels[step.images] == labels[step.nearest])


@dataclasses.dataclass(frozen=True)
class StateSample:
  """The images whose states are drawn.

  Attributes:
    split: `train`, `validation` or `test`; '' for the split on which runs are judged.
    images: at most this many, FEWEST to MOST.
    seed: chooses the images; 0 or more.
  """

  split: str = ""
  images: int = 2000
  seed: int = 0

  def __post_init__(self) -> None:
    """Raises UserError for a value out of range."""
    if not FEWEST <= self.images <= MOST:
      raise UserError(f"--images {self.images}: choose from {FEWEST} to {MOST}")
    if self.seed < 0:
      raise UserError(f"--seed {self.seed}: must be 0 or more")


def find_states(loaded: LoadedRun, wanted: StateSample = StateSample()) -> States:
  """Returns the states of a run's LSTM for random images, fed the paths that it predicts itself, and maps of them.

  The paths are greedy. Images without a known label are left out, and so are those that cannot be read, where the
  config skips them.

  Raises:
    UserError: the head has no states, or the data cannot be used.
  """
  run = loaded.run
  if not run.method.module.head.has_states:
    raise UserError(
      f"config.head.name = {run.config.head['name']!r}: this head has no states to draw; `path_rnn` has, one a step"
    )
  split, _ = asked_split(run, wanted.split)
  source = sample(run, split, wanted.images, np.random.default_rng(wanted.seed))
  check_single_path(run, source)
  kept, paths, states = _states_of(loaded, source)
  if not len(kept):
    raise UserError(f"--seed {wanted.seed}: none of the {split} images that it chooses can be read; try another")
  source = View(source.source, source.indices[kept], source.nodes[kept])
  bar = tqdm(range(run.tree.depth), desc="t-SNE", unit=" steps", delay=2, leave=False, disable=None)
  return States(run, split, source, paths, tuple(_step(paths[:, t], states[:, t]) for t in bar))


def _states_of(loaded: LoadedRun, source: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the images that can be read, the greedy path of each, and the states after each of its steps."""
  run = loaded.run
  greedy = dataclasses.replace(run.options, beam=1, views=1)

  @jax.jit
  def states_of(method: Method, variables: Variables, examples: Examples) -> tuple[Array, Array, Array]:
    inputs = run.preprocess(examples).inputs
    paths = method.predict(variables, inputs, None, greedy).paths[:, 0]
    states: Any = method.module.apply(variables, inputs, paths, method="states")
    return examples.mask, paths, states

  mask, paths, states = loaded.collect(states_of, source)
  kept = np.flatnonzero(mask)
  return kept, paths[kept], states[kept]


def _step(nodes: Int[np.ndarray, "n"], states: Float[np.ndarray, "n w"]) -> Step:
  images = np.flatnonzero(nodes >= 0)
  own = states[images]
  nearest = images[nearest_other(own)] if len(images) > 1 else np.full(len(images), NONE)
  return Step(images, own, nearest, tsne(own))


def nearest_other(states: Float[np.ndarray, "m w"]) -> Int[np.ndarray, "m"]:
  """Returns for each of two or more vectors the number of the nearest other one, by Euclidean distance."""
  search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(states)
  return search.kneighbors(return_distance=False)[:, 0]


def tsne(states: Float[np.ndarray, "m w"]) -> Float32[np.ndarray, "m 2"] | None:
  """Returns a map of vectors in which near ones are near, the same one each time; None for fewer than FEWEST.

  t-SNE (van der Maaten and Hinton 2008) of their first 50 principal components, with a perplexity of 30, or of a third
  of the other vectors where those are fewer than 90. Equal vectors count once towards FEWEST.
  """
  if len(np.unique(states, axis=0)) < FEWEST:
    return None
  count, width = states.shape
  states = PCA(min(_COMPONENTS, count, width), random_state=0).fit_transform(states)
  perplexity = min(_PERPLEXITY, (count - 1) / 3)
  with threadpool_limits(1, "openmp"):  # more threads add up in any order, and the map is chaotic
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(states)


def states_table(found: States) -> str:
  """Returns how well the states of each step tell labels apart, as text for a terminal."""
  rows: list[tuple[str, ...]] = [("step", "images", "top label", "whole label")]
  for number, step in enumerate(found.steps, 1):
    rows.append((str(number), f"{len(step.images):,}", *(percent(rate) for rate in rates(found, step))))
  about = f"{len(found.source):,} images of {found.split}; how often the nearest other state is one of the same label:"
  fewer = [str(number) for number, step in enumerate(found.steps, 1) if step.places is None]
  left_out = f"\nno map of step {', '.join(fewer)}: fewer than {FEWEST} different states" if fewer else ""
  return f"{about}\n{table(rows)}{left_out}"


def rates(found: States, step: Step) -> tuple[float | None, float | None]:
  """Returns how often the nearest other state has the same top label, and the same whole label; None without one."""
  if len(step.images) < 2:
    return None, None
  top, whole = (float(found.same_label(step, whole).mean()) for whole in (False, True))
  return top, whole
