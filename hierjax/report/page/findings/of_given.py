"""Findings of anybody's predictions, from files; with photographs where their folder is given."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hierjax.data.images.read_image import BadImageError, read_image
from hierjax.errors import UserError
from hierjax.evaluation.likely_nodes import likely_nodes
from hierjax.evaluation.metrics.files import Given
from hierjax.evaluation.metrics.measure import facts_of
from hierjax.report.page.findings.findings import About, Findings, Pixels
from hierjax.report.page.findings.provenance import of_page, tree_text
from hierjax.tree.label_tree import LabelTree

_SIDE = 160  # pixels of a photograph


@dataclasses.dataclass(frozen=True)
class GivenFiles:
  """The files of anybody's predictions.

  Attributes:
    predictions: of them.
    labels: of the labels.
    tree: as it was named.
    images: the folder of the images; '' for none.
  """

  predictions: str
  labels: str
  tree: str
  images: str = ""


def findings_of_given(files: GivenFiles, given: Given, tree: LabelTree) -> Findings:
  """Returns the findings of predictions from files.

  Raises:
    UserError: there is no folder of images, or none of the images is in it.
  """
  facts = facts_of(given.prediction, given.labels, tree)
  node_prob = given.prediction.node_prob
  here = _found(files, given.images) if files.images else []
  return Findings(
    about=_about(files, given, tree, sum(here)),
    facts=facts,
    shortened=facts.predictions,
    likely=None if node_prob is None else likely_nodes(np.asarray(node_prob), tree),
    numbers=np.arange(len(given.labels)),
    name_of=lambda row: given.images[row],
    pictures=functools.partial(_pictures, Path(files.images), given.images) if files.images else None,
    side=_SIDE if files.images else 0,
  )


def _found(files: GivenFiles, names: Sequence[str]) -> list[bool]:
  """Returns which images are in the folder."""
  folder = Path(files.images)
  if not folder.is_dir():
    raise UserError(f"--images {folder}: there is no such folder")
  here = [_file(folder, name) is not None for name in names]
  if not any(here):
    raise UserError(f"--images {folder}: none of the {len(names):,} images is in it, such as {names[0]!r}")
  return here


def _file(folder: Path, name: str) -> Path | None:
  """Returns the file of an image; None where there is none, or where its name leads out of the folder."""
  root, path = folder.resolve(), (folder / name.replace("\\", "/")).resolve()
  return path if path.is_relative_to(root) and path.is_file() else None


def _pictures(folder: Path, names: Sequence[str], rows: Sequence[int]) -> list[Pixels | None]:
  return [_picture(_file(folder, names[row])) for row in rows]


def _picture(path: Path | None) -> Pixels | None:
  try:
    return None if path is None else read_image(path, _SIDE)
  except BadImageError:
    return None


def _about(files: GivenFiles, given: Given, tree: LabelTree, pictures: int) -> About:
  notes = []
  if given.unused:
    notes.append(f"{given.unused:,} images of {files.labels} have no prediction, and count nowhere.")
  if files.images and pictures < len(given.images):
    notes.append(
      f"{len(given.images) - pictures:,} of the images are not in {files.images}: they have no picture here."
    )
  return About(
    name=Path(files.predictions).name,
    images=Path(files.labels).name,
    things="photographs" if files.images else "images",
    provenance=[
      ("predictions", f"{files.predictions}; sha256 {_checksum(files.predictions)}"),
      ("labels", f"{files.labels}; sha256 {_checksum(files.labels)}"),
      ("label tree", f"{files.tree}: {tree_text(tree)}"),
      ("training", "not known: the predictions are from files"),
      *of_page(),
    ],
    notes=notes,
  )


def _checksum(path: str) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
