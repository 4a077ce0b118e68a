"""The members of an ensemble: runs on one tree, of any heads, and their answers for the same images."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from hierjax.data.augment import Transform, eval_batch
from hierjax.data.source import Source
from hierjax.data.sources.frozen import FrozenFeatures
from hierjax.errors import UserError
from hierjax.functional.decoding import decode
from hierjax.functional.distributions import of_nodes, split_levels
from hierjax.inference.frozen import read_by, reads_features
from hierjax.inference.images import check_single_path, distinct_names, same_images
from hierjax.inference.loaded_run import LoadedRun, batches_of
from hierjax.inference.pipeline import view_distributions
from hierjax.inference.purpose import Purpose
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run, asked_split
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions, Distribution, Examples, Leaf, Method, Prediction, Variables

JOIN = "+"  # between the run folders that are one member
_ROUNDING = 1e-3  # how far a level's probabilities may sum from 1


@dataclasses.dataclass(frozen=True)
class Ensemble:
  """Members whose probabilities are averaged.

  Attributes:
    members: the parts of each, as numbers into `parts`: a run, or several that cover the tree together, such as a
      network for the coarse labels and one for the fine ones.
    parts: the runs of all members. A tree is that of `whole`, or its top levels.
    names: of the members, which differ.
    mesh: the devices to use.
  """

  members: tuple[tuple[int, ...], ...]
  parts: tuple[LoadedRun, ...]
  names: tuple[str, ...]
  mesh: Mesh

  @classmethod
  def of(cls, loaded: LoadedRun) -> Ensemble:
    """Returns the ensemble of one run."""
    return cls(((0,),), (loaded,), (loaded.folder.path.name,), loaded.mesh)

  @property
  def whole(self) -> LoadedRun:
    """The first part with all levels of the tree: its labels count."""
    return max(self.parts, key=lambda part: part.run.tree.depth)

  @property
  def tree(self) -> LabelTree:
    """The tree that the members cover."""
    return self.whole.run.tree

  def parts_of(self, subset: Sequence[int]) -> Float[np.ndarray, "m"]:
    """Returns 1 for the parts of some of the members, by number, and 0 for all others."""
    found = np.zeros(len(self.parts), np.float32)
    found[[part for member in subset for part in self.members[member]]] = 1
    return found

  @property
  def name(self) -> str:
    """The name of the one member; or the number of members and the name of the first."""
    count = len(self.members)
    return self.names[0] if count == 1 else f"{count} runs, {self.names[0]} and others"

  @property
  def runs(self) -> list[tuple[RunFolder, int]]:
    """The folder of each part and the step of its weights."""
    return [(part.folder, part.step) for part in self.parts]

  def for_purpose(self, purpose: Purpose) -> Ensemble:
    """Returns the ensemble that decodes for a purpose; runs of upper levels alone decode as before.

    Raises:
      UserError: as `Purpose.of_run` does.
    """
    depth = self.tree.depth
    runs = [purpose.of_run(part.run) if part.run.tree.depth == depth else part.run for part in self.parts]
    parts = (dataclasses.replace(part, run=run) for part, run in zip(self.parts, runs, strict=True))
    return dataclasses.replace(self, parts=tuple(parts))

  def at_temperature(self, temperature: float) -> Ensemble:
    """Returns the ensemble whose runs give their probabilities at one temperature."""
    parts = (dataclasses.replace(part, run=part.run.at_temperature(temperature)) for part in self.parts)
    return dataclasses.replace(self, parts=tuple(parts))

  def about(self) -> list[dict[str, Any]]:
    """Returns the runs of each member, with their steps, as plain data."""
    return [
      {"runs": [str(self.parts[i].folder.path) for i in member], "steps": [self.parts[i].step for i in member]}
      for member in self.members
    ]


@dataclasses.dataclass(frozen=True)
class Images:
  """The images of a split, as each part of an ensemble reads them.

  Attributes:
    split: the name of the split.
    source: those of `Ensemble.whole`.
    readers: runs of different data sections and their images, `whole` first.
    reader_of: the number of the reader of each part.
  """

  split: str
  source: Source
  readers: tuple[tuple[Run, Source], ...]
  reader_of: tuple[int, ...]

  @classmethod
  def of(cls, loaded: LoadedRun, split: str, source: Source) -> Images:
    """Returns the images of a split as one run reads them."""
    return cls(split, source, ((loaded.run, source),), (0,))


@struct.dataclass
class Answered:
  """The answers of the parts of an ensemble for a batch of images.

  Attributes:
    labels: `i32[b p l]`, the label paths, in the tree of the ensemble.
    mask: `f32[b]`, 0 for padding and for images that a part cannot read.
    distributions: of each part, in its own tree, without the head's step; see `functional.combine.mean_of_members`.
    own: of each part, the paths of its own decoding: `Prediction` without probabilities.
  """

  labels: Leaf
  mask: Leaf
  distributions: tuple[Distribution, ...]
  own: tuple[Prediction, ...]


def open_ensemble(arguments: Sequence[str], mesh: Mesh, data_root: str = "", views: int = 0) -> Ensemble:
  """Opens runs by their folders.

  Args:
    arguments: a member each: a folder, or several that are joined by JOIN.
    mesh: the devices to use.
    data_root: where the data set of all is now; '' for where their configs say.
    views: of each image that are averaged, 1 or 10; 0 for what each config says.

  Raises:
    UserError: a folder cannot be used or is named twice, the trees differ, or a member does not cover the tree.
  """
  texts = [[text] if Path(text).is_dir() else text.split(JOIN) for text in arguments]
  folders = [RunFolder(text) for member in texts for text in member]
  names = distinct_names(folders)
  runs = [Run.from_folder(folder, data_root, views) for folder in folders]
  numbers = iter(range(len(folders)))
  members = tuple(tuple(next(numbers) for _ in member) for member in texts)
  _check_trees(folders, runs)
  _check_cover(folders, runs, members)
  parts = [
    LoadedRun(folder, run, *run.restored_variables(folder, mesh), mesh)
    for folder, run in zip(folders, runs, strict=True)
  ]
  return Ensemble(members, tuple(parts), tuple(JOIN.join(names[i] for i in member) for member in members), mesh)


def _short_checksum(tree: LabelTree) -> str:
  """Returns the part of a tree's checksum that messages show."""
  return tree.checksum[:12]


def _check_trees(folders: Sequence[RunFolder], runs: Sequence[Run]) -> None:
  whole = max(range(len(runs)), key=lambda i: runs[i].tree.depth)
  tree = runs[whole].tree
  for folder, run in zip(folders, runs, strict=True):
    if run.tree != tree.truncated(run.tree.depth):
      raise UserError(
        f"{folders[whole].path} (tree {_short_checksum(tree)}) and {folder.path} (tree {_short_checksum(run.tree)}) "
        "have different label trees, so their probabilities cannot be averaged"
      )


def _check_cover(folders: Sequence[RunFolder], runs: Sequence[Run], members: Sequence[Sequence[int]]) -> None:
  depth = max(run.tree.depth for run in runs)
  for member in members:
    own = max(runs[i].tree.depth for i in member)
    if own < depth:
      text = JOIN.join(str(folders[i].path) for i in member)
      raise UserError(
        f"{text} has levels that do not cover the tree, {own} of {depth}: join it by {JOIN} to a run that has the last"
      )


def open_images(ensemble: Ensemble, split: str) -> Images:
  """Returns the images of a split; '' for test, or else validation.

  Raises:
    UserError: the set has no such split, or the parts do not have the same images there, or images have several label
      paths.
  """
  whole = ensemble.whole
  name, source = asked_split(whole.run, split)
  for part in ensemble.parts:
    check_single_path(part.run, source, "an ensemble predicts one path an image")
  readers, reader_of = [(whole.run, read_by(whole, source))], []
  for part in ensemble.parts:
    alike = (i for i, reader in enumerate(readers) if part is whole or _reads_images_of(part, *reader))
    found = next(alike, None)
    if found is None:
      shares = (part.run.data, part.run.tree_config) == (whole.run.data, whole.run.tree_config)
      own = source if shares else part.run.source(name)
      if own is None or not (shares or same_images((whole.run, part.run), source, own)):
        raise UserError(f"{whole.folder.path} and {part.folder.path} have not the same images in their split {name!r}")
      found = len(readers)
      readers.append((part.run, read_by(part, own)))
    reader_of.append(found)
  return Images(name, source, tuple(readers), tuple(reader_of))


def _reads_images_of(part: LoadedRun, run: Run, source: Source) -> bool:
  """Returns whether a part reads the images that a reader has."""
  return run.data == part.run.data and not reads_features(part.run) and not isinstance(source, FrozenFeatures)


def answers_of(ensemble: Ensemble, images: Images) -> Generator[Answered, None, None]:
  """Yields the answers of all parts for each batch of images, in the order of the set; close it, or exhaust it.

  Raises:
    UserError: the probabilities of a level do not sum to 1.
  """
  first = 0
  with contextlib.closing(batches_of(images.readers, ensemble.mesh)) as batches:
    for read in batches:
      found = [
        _answer(part.run.method, part.variables, read[i], part.run.options, part.run.data.transform)
        for part, i in zip(ensemble.parts, images.reader_of, strict=True)
      ]
      mask = functools.reduce(jnp.minimum, [examples.mask for examples in read])
      for part, (_, _, sums, right) in zip(ensemble.parts, found, strict=True):
        name_of = lambda row, first=first: images.source.name_of(first + row)  # noqa: E731
        _check_sums(part, np.asarray(sums), np.asarray(right | (mask[:, None] == 0)), name_of)
      yield Answered(read[0].paths, mask, tuple(row[0] for row in found), tuple(row[1] for row in found))
      first += len(read[0].mask)


def distribution_shape(run: Run, variables: Variables) -> Distribution:
  """Returns the distribution of a run for one image, as shapes."""

  def distribution(inputs: Array) -> Distribution:
    return dataclasses.replace(run.method.distribution(variables, inputs, None, run.options), scorer=None)

  return jax.eval_shape(distribution, jax.ShapeDtypeStruct((1, *run.example_shape), jnp.float32))


@functools.partial(jax.jit, static_argnames="transform")
def _answer(
  method: Method, variables: Variables, examples: Examples, options: DecodeOptions, transform: Transform
) -> tuple[Distribution, Prediction, Float[Array, "b l"], Bool[Array, "b l"]]:
  """Returns a run's distribution and own paths, the sum of its probabilities at each level, and whether it is right.

  The sums of a head that follows the chain rule may be below 1: paths may end early, or may not have been found.
  """
  tree = method.tree
  found, _ = view_distributions(method, variables, lambda view: eval_batch(examples, transform, view), options)
  own = dataclasses.replace(decode(found, tree, options), node_prob=None, level_prob=None, node_score=None)
  chain = found.level_prob is None
  level_prob = of_nodes(found.node_prob, tree) if chain else found.level_prob
  sums = jnp.stack([block.sum(axis=1) for block in split_levels(level_prob, tree)], axis=1)
  right = (sums <= 1 + _ROUNDING) & ((sums >= 1 - _ROUNDING) | chain)
  return dataclasses.replace(found, scorer=None), own, sums, right


def _check_sums(
  part: LoadedRun, sums: Float[np.ndarray, "b l"], right: Bool[np.ndarray, "b l"], name_of: Callable[[int], str]
) -> None:
  if not right.all():
    row, level = np.argwhere(~right)[0].tolist()
    raise UserError(
      f"{part.folder.path}: its probabilities of level {level + 1} sum to {sums[row, level]:.4g} for "
      f"{name_of(row)}, not to 1"
    )
