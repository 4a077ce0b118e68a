"""What the page is made of: predictions beside their labels, pictures, and where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from hierjax.evaluation.likely_nodes import LikelyNodes
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.predictions import Predictions
from hierjax.tree.label_tree import LabelTree

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the files of a page go.

  Attributes:
    folder: for the page; its CSV files go to eval/ in it.
    page: the name of the page's file.
    tables: the beginning of the names of the CSV files.
  """

  folder: Path
  page: str
  tables: str


@dataclasses.dataclass(frozen=True)
class About:
  """What a page says of the predictions as such.

  Attributes:
    name: of the run, or of the file of predictions.
    images: what the images are, as in `the test split`.
    things: what one calls the images: `photographs`, or `images`.
    provenance: what the numbers depend on, and its value.
    config: the resolved config as text; '' where there is none.
    notes: sentences on what was left out or is not known.
    seen: whether the model was trained on these images.
  """

  name: str
  images: str
  things: str = "images"
  provenance: Sequence[tuple[str, str]] = ()
  config: str = ""
  notes: Sequence[str] = ()
  seen: bool = False


@dataclasses.dataclass(frozen=True)
class Findings:
  """The predictions for n images, from which the whole page is computed.

  Attributes:
    about: what they are.
    facts: the predictions beside their labels.
    shortened: the paths that a confidence threshold shortens, of the same images; see `functional.selective`.
    likely: the most probable nodes of each level; None for predictions without probabilities.
    numbers: `i64[n]`, the number of each image in its set.
    name_of: returns the name of the image of a row.
    pictures: returns the pixels of the images of some rows, None for those without; None where there are no pictures.
    side: of the pictures, in pixels, as the model sees them.
    curves: the lines of metrics.jsonl.
    thresholds: confidence thresholds that were chosen, by how.
  """

  about: About
  facts: Facts
  shortened: Predictions
  likely: LikelyNodes | None
  numbers: Int[np.ndarray, "n"]
  name_of: Callable[[int], str]
  pictures: Callable[[Sequence[int]], list[Pixels | None]] | None = None
  side: int = 0
  curves: Sequence[Mapping[str, Any]] = ()
  thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def predictions(self) -> Predictions:
    """The best paths beside the labels."""
    return self.facts.predictions

  @property
  def tree(self) -> LabelTree:
    """The label tree."""
    return self.facts.table.tree


def rows_of(table: Any, rows: Int[np.ndarray, "m"]) -> Any:
  """Returns some rows of a table: of a pytree of arrays with a row an image."""
  return jax.tree.map(lambda column: column[rows], table)


def arrows(tree: LabelTree, node: int) -> str:
  """Returns a path for people to read."""
  return " > ".join(tree.path_names(node)) if node >= 0 else "no path"
