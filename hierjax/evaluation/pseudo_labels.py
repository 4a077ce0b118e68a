"""Pseudo-labels: a run fills in what is missing of its training images' labels (Guo et al. 2018, 4.2; READINGS G7)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from hierjax.data.augment import check_views
from hierjax.data.open_source import open_partial_labels
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.source import View
from hierjax.errors import UserError
from hierjax.evaluation.asked import batches, check_single_path
from hierjax.evaluation.runner import predict_views
from hierjax.evaluation.tables import percent
from hierjax.functional.paths import ends
from hierjax.runs.folder import RunFolder, write_whole
from hierjax.runs.run import Run, check_reads
from hierjax.types import Examples, Method, Variables


@dataclasses.dataclass(frozen=True)
class Labelled:
  """What was written, and how right it is.

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


def write_pseudo_labels(
  folder: RunFolder,
  mesh: Mesh,
  out: Path | None = None,
  *,
  min_confidence: float = 0.0,
  free: bool = False,
  data_root: str = "",
) -> Labelled:
  """Predicts the missing part of every training label that ends above a leaf, and writes a file for another run.

  Args:
    folder: the run's; it learnt from whole labels, and should have learnt from no others.
    mesh: the devices to use.
    out: the file; None for pseudo_labels.npz in the run's folder.
    min_confidence: 0 to 1; a prediction that is less probable, given what is known, is no pseudo-label: the image keeps
      the label that it has.
    free: whether what is known is ignored, so that the prediction may contradict it, and then replaces it.
    data_root: where the data set is now; '' for where the config says.

  Raises:
    UserError: no label ends above a leaf, images have several label paths, or the folder or the data cannot be used.
  """
  if not 0 <= min_confidence <= 1:
    raise UserError(f"--min-confidence {min_confidence}: must be from 0 to 1")
  run = Run.from_folder(folder, data_root)
  found = open_partial_labels(run.data, run.tree, run.full_tree())
  _check(run, found.images, found.partial)
  coarse = found.partial_images()
  nodes, probability = _predicted(run, folder, coarse, mesh, free)
  known = coarse.nodes[:, 0]
  labelled = (nodes >= 0) & (probability >= min_confidence)
  labels = PseudoLabels(
    rows=coarse.indices,
    known=known,
    nodes=np.where(labelled, nodes, known),
    probability=probability,
    tree=run.tree.checksum,
    fine=found.fine_checksum,
    file=str(out or folder.path / "pseudo_labels.npz"),
  )
  write_whole(Path(labels.file), labels.to_bytes())
  true = found.images.nodes[found.partial, 0]
  judged = labelled & np.isin(true, run.tree.leaves)
  return Labelled(Path(labels.file), labelled, judged, judged & (nodes == true))


def _check(run: Run, images: View, coarse: Bool[np.ndarray, "n"]) -> None:
  check_reads(run.config, run.example_shape, images.shape)
  check_views(run.options.views, images.shape, run.data.crop)
  check_single_path(run, images, "pseudo-labels are of a single one each")
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


def _predicted(
  run: Run, folder: RunFolder, coarse: View, mesh: Mesh, free: bool
) -> tuple[Int[np.ndarray, "m"], Float[np.ndarray, "m"]]:
  """Returns where the best path of each image ends, below 0 for one that cannot be read, and its probability."""
  options = dataclasses.replace(run.options, restrict="tree")
  known_levels = 0 if free else run.tree.depth  # of labels that say UNKNOWN where they end

  @jax.jit
  def see(method: Method, variables: Variables, examples: Examples) -> tuple[Int[Array, "b"], Float[Array, "b"]]:
    prediction = predict_views(method, variables, examples, run.preprocess, options, known_levels)
    nodes = jnp.where(examples.mask > 0, ends(prediction.paths[:, 0]), -1)
    probability = jnp.take_along_axis(prediction.node_prob, jnp.maximum(nodes, 0)[:, None], axis=1)[:, 0]
    return nodes, jnp.where(nodes >= 0, probability, 0.0)

  _, variables = run.restored_variables(folder, mesh)
  parts = [jax.device_get(see(run.method, variables, examples)) for examples in batches(run, coarse, mesh)]
  nodes, probability = (np.concatenate(rows)[: len(coarse)] for rows in zip(*parts, strict=True))
  return nodes, probability


def describe(found: Labelled) -> str:
  """Returns how many images were labelled, and how many of them rightly, as text for a terminal."""
  total, labelled, judged = len(found.labelled), int(found.labelled.sum()), int(found.judged.sum())
  lines = [f"{labelled:,} of {total:,} training images whose labels end above a leaf have a pseudo-label"]
  if labelled < total:
    lines.append(f"{total - labelled:,} keep the label that they have")
  if judged:
    lines.append(
      f"{percent(int(found.right.sum()) / judged)} of {judged:,} are right: the data set has whole labels for them"
    )
  return "\n".join(lines)
