"""Figure 4 of Zuo et al. (2016): regions of test images, and the training regions whose features are nearest.

A region is a cell of one scale of a `ContextNeck`. Regions are compared in the context map (the paper's hrnn6) and in
the pooled map that the recurrences read (its conv5), by chi-square distance (READINGS Z15).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Float32, Int

from hierjax.data.source import Source, View
from hierjax.errors import UserError
from hierjax.evaluation.tables import table
from hierjax.inference.images import same_images, sample
from hierjax.inference.loaded_run import LoadedRun
from hierjax.nn.classifier import Classifier
from hierjax.nn.layers.pyramid import window
from hierjax.nn.necks.context import ContextNeck
from hierjax.nn.necks.context import grid as cells_of
from hierjax.report.plots.canvas import Box, NodeNames
from hierjax.runs.run import Run, judged_split
from hierjax.types import Examples, Inputs, Leaf, Method, Variables

NEAREST = 5
LAYERS = ("context map", "pooled map")
MOST_QUERIES = 100  # more would be taller than a PNG file of matplotlib's can be
Maps = tuple[Float32[Array, "b s c"], ...]
_EPSILON = 1e-10


@struct.dataclass
class Nearest:
  """The nearest regions to each of q queries, nearest first.

  Attributes:
    distance: `f32[q k]`, inf where there are fewer.
    image: `i32[q k]`, the number of the image, -1 where there are fewer.
    cell: `i32[q k]`, the cell of its region, row after row.
  """

  distance: Leaf
  image: Leaf
  cell: Leaf

  @classmethod
  def none(cls, queries: int, count: int) -> Nearest:
    """Returns what is known before the search."""
    whole = (queries, count)
    return cls(np.full(whole, np.inf, np.float32), np.full(whole, -1, np.int32), np.zeros(whole, np.int32))

  def updated(
    self, distance: Float[Array, "q b s"], images: Int[Array, "b"], mask: Float[Array, "b"], most: int = 1
  ) -> Nearest:
    """Returns the nearest of these regions and those of further images.

    Args:
      distance: from each query to each cell of each image.
      images: their numbers.
      mask: 0 for an image that does not count.
      most: the number of regions of an image that count, the nearest ones.
    """
    negated, cells = jax.lax.top_k(-distance, min(most, distance.shape[2]))  # of equal ones, the first come first
    nearest = jnp.where(mask[None, :, None] > 0, -negated, jnp.inf)
    numbers = jnp.where(jnp.isinf(nearest), -1, jnp.broadcast_to(images[None, :, None], nearest.shape))
    further = Nearest(nearest, numbers, cells)
    every = jax.tree.map(lambda kept, new: jnp.concatenate([kept, new.reshape(len(kept), -1)], axis=1), self, further)
    order = jax.lax.top_k(-every.distance, self.distance.shape[1])[1]
    return jax.tree.map(lambda values: jnp.take_along_axis(values, order, axis=1), every)


@dataclasses.dataclass(frozen=True)
class Grid:
  """The regions of a scale.

  Attributes:
    index: of the scale among the neck's.
    rows: regions from top to bottom.
    columns: regions from left to right.
    height: of the map that they are pooled from.
    width: of that map.
    layers: those of LAYERS that differ: without recurrences, as on a scale of one cell, the context map is the pooled.
    most: of an image, so many may be among the neighbours of a query.
  """

  index: int
  rows: int
  columns: int
  height: int
  width: int
  layers: tuple[str, ...]
  most: int = 1

  def box(self, cell: int) -> Box:
    """Returns where a region is in the image: the window of the map that it pools (READINGS Z10), scaled up.

    What the trunk sees from that window reaches further; that is not drawn.
    """
    row, column = divmod(cell, self.columns)
    top, bottom = window(row, self.rows, self.height)
    left, right = window(column, self.columns, self.width)
    return Box(top / self.height, left / self.width, bottom / self.height, right / self.width)


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """The answer for q regions of test images.

  Attributes:
    run: the run.
    split: what the test images are called: test, or validation.
    queries: the q images.
    cells: `i64[q]`, the region of each.
    searched: the training images that were searched.
    grid: the regions.
    found: the nearest regions by layer, of another run with its name before it; `image` numbers those of `searched`.
  """

  run: Run
  split: str
  queries: Source
  cells: np.ndarray
  searched: Source
  grid: Grid
  found: Mapping[str, Nearest]

  @functools.cached_property
  def names(self) -> NodeNames:
    """Names of nodes for captions."""
    return NodeNames(self.run.tree)

  def same_label(self, query: int, image: int) -> bool:
    """Returns whether a searched image has the label of a query's; where they have several, whether they share one."""
    return bool((np.intersect1d(self.queries.nodes[query], self.searched.nodes[image]) >= 0).any())

  def answers(self, layer: str, query: int) -> list[tuple[int, int, float]]:
    """Returns the image, cell and distance of each region found, nearest first."""
    nearest = self.found[layer]
    columns = (nearest.image[query], nearest.cell[query], nearest.distance[query])
    return [row for row in zip(*(column.tolist() for column in columns), strict=True) if row[0] >= 0]

  def hits(self, layer: str, query: int) -> tuple[int, int]:
    """Returns how many of the regions found have the query's label, and how many there are."""
    images = [image for image, _, _ in self.answers(layer, query)]
    return sum(self.same_label(query, image) for image in images), len(images)


@dataclasses.dataclass(frozen=True)
class NeighbourQuery:
  """The regions whose neighbours are searched.

  Attributes:
    scale: one of the neck's, by its cells a side: `3` or `3x3`, `2x3` where rows and columns differ; '' for 3, as in
      the paper, or the finest where there is no such scale.
    queries: the number of regions, each of another image.
    seed: chooses the regions, and the images that are searched where there are more; 0 or more.
    searched: at most this many training images.
    every: whether every region of an image counts: as a query, of as few images as `queries` takes; and as a neighbour,
      so that several may be of one training image.
  """

  scale: str = ""
  queries: int = 6
  seed: int = 0
  searched: int = 5000
  every: bool = False

  def __post_init__(self) -> None:
    """Raises UserError for a value out of range."""
    if not 1 <= self.queries <= MOST_QUERIES:
      raise UserError(f"--queries {self.queries}: choose from 1 to {MOST_QUERIES}")
    if self.searched < 1:
      raise UserError(f"--searched {self.searched}: at least 1 training image")
    if self.seed < 0:
      raise UserError(f"--seed {self.seed}: must be 0 or more")


def find_neighbours(
  loaded: LoadedRun, wanted: NeighbourQuery = NeighbourQuery(), against: LoadedRun | None = None
) -> Neighbours:
  """Returns the training regions that are nearest to random regions of random test images.

  Of each training image only the nearest region counts, so that neighbours are of different images, unless the search
  is of every region, as in Fig. 4. Images without a known label are left out, and so are those that cannot be read,
  where the config skips them. Training images are read once, a batch at a time.

  With another run, its layer takes the place of this one's second: the context map, or of a neck without recurrences
  the pooled map. In Fig. 4 these are C-HLSTM's hrnn6 and SPP-net's conv5.

  Raises:
    UserError: the run has no context neck or no such scale, its data cannot be used, or no query can be read; or the
      other run has other images or labels.
  """
  run = loaded.run
  grid = find_grid(run, wanted.scale)
  rng = np.random.default_rng(wanted.seed)
  split = judged_split(run) or "test"
  count, places = wanted.queries, grid.rows * grid.columns
  queries = sample(run, split, -(-count // places) if wanted.every else count, rng)
  training = sample(run, "train", wanted.searched, rng)
  if wanted.every:
    rows = np.repeat(np.arange(len(queries)), places)[:count]
    queries = View(queries.source, queries.indices[rows], queries.nodes[rows])
    grid = dataclasses.replace(grid, most=NEAREST)
  cells = np.arange(len(queries)) % places if wanted.every else rng.integers(places, size=len(queries))
  if against is not None:
    _check_same(loaded, against, split)
    grid = dataclasses.replace(grid, layers=grid.layers[:1])
  mask, maps = _wanted_regions(loaded, grid, queries, cells)
  kept = np.flatnonzero(mask)
  if not len(kept):
    raise UserError(f"--seed {wanted.seed}: none of the {split} images that it chooses can be read; try another")
  queries, cells = View(queries.source, queries.indices[kept], queries.nodes[kept]), cells[kept]
  nearest = _search(loaded, grid, training, tuple(x[kept] for x in maps))
  found = dict(zip(grid.layers, nearest, strict=True))
  if against is not None:
    found |= _of_another(against, grid, (split, queries, cells), training)
  return Neighbours(run, split, queries, cells, training, grid, found)


def _wanted_regions(
  loaded: LoadedRun, grid: Grid, queries: View, cells: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
  """Returns which queries can be read, and the features of their regions, one array a layer."""
  maps_of = _region_maps(loaded.run, grid)
  mask, *maps = loaded.collect(
    jax.jit(lambda method, variables, examples: (examples.mask, *maps_of(method, variables, examples))), queries
  )
  return mask, tuple(x[np.arange(len(cells)), cells] for x in maps)


def _check_same(loaded: LoadedRun, against: LoadedRun, split: str) -> None:
  """Raises UserError where two runs have not the same tree, or other images to train on or in a split."""
  text = f"--against {against.folder.path}"
  if loaded.run.tree != against.run.tree:
    raise UserError(f"{text}: its label tree is not that of {loaded.folder.path}")
  for name in (split, "train"):
    own, other = loaded.run.source(name), against.run.source(name)
    if own is None or other is None or not same_images((loaded.run, against.run), own, other):
      raise UserError(f"{text}: its {name} images are not those of {loaded.folder.path}")


def _of_another(
  against: LoadedRun, grid: Grid, asked: tuple[str, View, np.ndarray], training: View
) -> dict[str, Nearest]:
  """Returns the nearest regions in the layer of another run, whose own grid has as many cells."""
  split, queries, cells = asked
  images, others = against.run.source(split), against.run.source("train")
  assert images is not None and others is not None  # `_check_same` refuses it
  own = find_grid(against.run, f"{grid.rows}x{grid.columns}")
  own = dataclasses.replace(own, layers=own.layers[:1], most=grid.most)
  seen = View(images, queries.indices, queries.nodes)
  searched = View(others, training.indices, training.nodes)
  _, maps = _wanted_regions(against, own, seen, cells)
  (found,) = _search(against, own, searched, maps)
  return {f"{against.folder.path.name}: {own.layers[0]}": found}


def _search(loaded: LoadedRun, grid: Grid, training: View, wanted: tuple[np.ndarray, ...]) -> tuple[Nearest, ...]:
  """Returns the nearest regions of training images, of each layer, for the wanted regions."""

  @jax.jit
  def update(found: tuple[Nearest, ...], examples: Examples, maps: Maps) -> tuple[Nearest, ...]:
    return tuple(
      kept.updated(_distances(jnp.asarray(x), y), examples.draw[:, 1], examples.mask, grid.most)
      for kept, x, y in zip(found, wanted, maps, strict=True)
    )

  found = tuple(Nearest.none(len(wanted[0]), NEAREST) for _ in wanted)
  maps_of = _region_maps(loaded.run, grid)
  with contextlib.closing(loaded.map(jax.jit(maps_of), training)) as batches:
    for examples, maps in batches:
      found = update(found, examples, maps)
  nearest: tuple[Nearest, ...] = jax.device_get(found)
  return nearest


def find_grid(run: Run, scale: str) -> Grid:
  """Returns the regions of a scale; raises UserError where the run's neck has none, or not at that scale."""
  neck = run.method.module.neck
  if not isinstance(neck, ContextNeck):
    raise UserError(
      f"config.neck.name = {run.config.neck['name']!r}: this run has no regions to compare; a run whose neck is "
      "`context` has"
    )
  sizes = [cells_of(scale) for scale in neck.scales]
  names = [str(rows) if rows == columns else f"{rows}x{columns}" for rows, columns in sizes]
  scale = scale or ("3" if "3" in names else names[-1])
  index = next((i for i, (rows, columns) in enumerate(sizes) if scale in (names[i], f"{rows}x{columns}")), None)
  if index is None:
    raise UserError(f"--scale {scale}: the scales of this run, in cells a side, are {', '.join(names)}")
  height, width = _map_size(run)
  layers = LAYERS if neck.cell != "none" and sizes[index] != (1, 1) else LAYERS[1:]
  return Grid(index, *sizes[index], height, width, layers)


def _map_size(run: Run) -> tuple[int, int]:
  shape = (1, run.data.crop, run.data.crop, len(run.data.mean))
  backbone = jax.eval_shape(
    lambda v, x: run.method.module.apply(v, x, method=lambda module, x: module.backbone(x, train=False)),
    run.variable_shapes,
    jax.ShapeDtypeStruct(shape, jnp.float32),
  )
  return backbone.stages[-1].shape[1:3]


def _region_maps(run: Run, grid: Grid) -> Callable[[Method, Variables, Examples], Maps]:
  """Returns the function that gives the features of each region of each image, one array a layer of the grid."""

  def maps(method: Method, variables: Variables, examples: Examples) -> Maps:
    inputs = run.preprocess(examples).inputs
    both: Any = method.module.apply(variables, inputs, grid.index, method=_context_and_pooled)
    found = dict(zip(LAYERS, both, strict=True))
    return tuple(found[layer].reshape(len(inputs), -1, found[layer].shape[-1]) for layer in grid.layers)

  return maps


def _context_and_pooled(module: Classifier, inputs: Inputs, scale: int) -> tuple[Array, ...]:
  assert isinstance(module.neck, ContextNeck)
  pooled, context = module.neck.regions(module.backbone(inputs, train=False), scale)
  return context, pooled


def _distances(queries: Float[Array, "q c"], regions: Float[Array, "b s c"]) -> Float32[Array, "q b s"]:
  flat = chi_square(queries, regions.reshape(-1, regions.shape[-1]))
  return flat.reshape(len(queries), *regions.shape[:2])


def neighbours_table(answer: Neighbours) -> str:
  """Returns how many of the regions found have the label of their query, by layer, as text for a terminal."""
  rows: list[tuple[str, ...]] = [("nearest regions", "same label", "of")]
  for layer in answer.found:
    hits = np.array([answer.hits(layer, query) for query in range(len(answer.cells))]).sum(axis=0)
    rows.append((layer, *map(str, hits.tolist())))
  return f"{len(answer.cells)} regions, {len(answer.searched):,} training images\n{table(rows)}"


def chi_square(x: Float[Array, "q c"], y: Float[Array, "m c"]) -> Float32[Array, "q m"]:
  """Returns the chi-square distance of each row of `x` to each row of `y`: sum (x - y)^2 / (|x| + |y| + 1e-10).

  Features may be negative, hence the absolute values (READINGS Z15). It works in float32, row after row of `x`, so no
  array is larger than `y` or the result.
  """
  y = y.astype(jnp.float32)

  def to_all(row: Float32[Array, "c"]) -> Float32[Array, "m"]:
    return (jnp.square(row[None] - y) / (jnp.abs(row)[None] + jnp.abs(y) + _EPSILON)).sum(axis=1)

  return jax.lax.map(to_all, x.astype(jnp.float32))
