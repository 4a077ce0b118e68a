"""Pseudo-labels: a run fills in what is missing of its training images' labels (Guo et al. 2018, 4.2; READINGS G7)."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hierjax.data.augment import check_views
from hierjax.data.open_source import open_partial_labels
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.source import View
from hierjax.errors import UserError
from hierjax.evaluation.tables import percent
from hierjax.functional.paths import ends
from hierjax.inference.frozen import read_by
from hierjax.inference.images import check_single_path
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Stages, finish, view_distributions
from hierjax.runs.folder import write_whole
from hierjax.runs.inputs import check_reads
from hierjax.runs.run import Run
from hierjax.types import Examples, Method, Variables


@dataclasses.dataclass(frozen=True)
class Labelled:
  """The pseudo-labels that were written, and their accuracy.

  Attributes:
    file: where it is.
    labelled: `bool[m]`, which of the images whose labels ended above a leaf have a pseudo-label.
    judged: `bool[m]`, which of these the set has a whole label for: those that were cut.
    right: `bool[m]`, which of these agree with it.
  """

  file: Path
  labelled: Bool[np.ndarray, "m"]
  judged: Bool[np.ndarray, "m"]
  right: Bool[np.ndarray, "m"]


@dataclasses.dataclass(frozen=True)
class PseudoLabelRule:
  """Which predictions become pseudo-labels.

  Attributes:
    min_confidence: 0 to 1. A prediction that is less probable, given the known label, is no pseudo-label: the image
      keeps its label.
    free: whether the known label is ignored in prediction, so that the pseudo-label may contradict and replace it.
  """

  min_confidence: float = 0.0
  free: bool = False

  def __post_init__(self) -> None:
    """Raises UserError for a confidence that is no probability."""
    if not 0 <= self.min_confidence <= 1:
      raise UserError(f"--min-confidence {self.min_confidence}: must be from 0 to 1")


def write_pseudo_labels(
  loaded: LoadedRun, out: Path | None = None, rule: PseudoLabelRule = PseudoLabelRule()
) -> Labelled:
  """Predicts the missing part of every training label that ends above a leaf, and writes a file for another run.

  Args:
    loaded: a run that learnt from whole labels; it should have learnt from no others.
    out: the file; None for pseudo_labels.npz in the run's folder.
    rule: which predictions become pseudo-labels.

  Raises:
    UserError: no label ends above a leaf, images have several label paths, or the data cannot be used.
  """
  run = loaded.run
  found = open_partial_labels(run.data, run.tree, run.full_tree())
  _check(run, found.images, found.partial)
  coarse = found.partial_images()
  images = View(read_by(loaded, found.images), np.flatnonzero(found.partial), coarse.nodes)
  nodes, probability = _predicted(loaded, images, rule.free)
  known = coarse.nodes[:, 0]
  labelled = (nodes >= 0) & (probability >= rule.min_confidence)
  labels = PseudoLabels(
    rows=coarse.indices,
    known=known,
    nodes=np.where(labelled, nodes, known),
    probability=probability,
    tree=run.tree.checksum,
    fine=found.fine_checksum,
    file=str(out or loaded.folder.path / "pseudo_labels.npz"),
  )
  write_whole(Path(labels.file), labels.to_bytes())
  true = found.images.nodes[found.partial, 0]
  judged = labelled & np.isin(true, run.tree.leaves)
  return Labelled(Path(labels.file), labelled, judged, judged & (nodes == true))


def _check(run: Run, images: View, coarse: Bool[np.ndarray, "n"]) -> None:
  check_reads(run.config.data["name"], run.config.backbone["name"], run.example_shape, images.shape)
  check_views(run.options.views, images.shape, run.data.crop)
  check_single_path(run, images, "pseudo-labels complete one path an image")
  if run.tree_config.short_labels == "stop":
    raise UserError(
      "this run's config.tree.short_labels = 'stop' says that nothing follows a label that ends above a leaf, so there "
      "is nothing to label"
    )
  if not coarse.any():
    raise UserError(
      f"there is nothing to label: no training image of {run.data.name!r} has a label that ends above a leaf, and "
      f"this run's config.data.coarse = {run.data.coarse} cuts none"
    )


def _predicted(loaded: LoadedRun, coarse: View, free: bool) -> tuple[Int[np.ndarray, "m"], Float[np.ndarray, "m"]]:
  """Returns the end of each image's best path, below 0 for an image that cannot be read, and its probability."""
  run = loaded.run
  stages = Stages(dataclasses.replace(run.options, restrict="tree"))
  known_levels = 0 if free else run.tree.depth  # of labels that are UNKNOWN below their end

  @jax.jit
  def ends_of(method: Method, variables: Variables, examples: Examples) -> tuple[Int[Array, "b"], Float[Array, "b"]]:
    see = functools.partial(run.preprocess, examples)
    found, _ = view_distributions(method, variables, see, stages.options, known_levels)
    prediction = finish(found, stages, method.tree)
    nodes = jnp.where(examples.mask > 0, ends(prediction.paths[:, 0]), -1)
    probability = jnp.take_along_axis(prediction.node_prob, jnp.maximum(nodes, 0)[:, None], axis=1)[:, 0]
    return nodes, jnp.where(nodes >= 0, probability, 0.0)

  nodes, probability = loaded.collect(ends_of, coarse)
  return nodes, probability


def pseudo_label_summary(found: Labelled) -> str:
  """Returns the number and the accuracy of the pseudo-labels as text for a terminal."""
  total, labelled, judged = len(found.labelled), int(found.labelled.sum()), int(found.judged.sum())
  lines = [f"{labelled:,} of {total:,} training images whose labels end above a leaf have a pseudo-label"]
  if labelled < total:
    lines.append(f"{total - labelled:,} keep the label that they have")
  if judged:
    lines.append(
      f"accuracy {percent(int(found.right.sum()) / judged)} on the {judged:,} for which the data set has a whole label"
    )
  return "\n".join(lines)
