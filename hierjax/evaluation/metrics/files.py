"""Anybody's predictions and labels in files: CSV or npz, and a CSV file of labels, matched by the images' names."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from hierjax.errors import UserError
from hierjax.tree.given import RowError, given_nodes, node_named
from hierjax.tree.label_finder import LabelFinder
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.readers.label_rows import read_label_table
from hierjax.tree.readers.tables import Row, read_rows
from hierjax.types import Prediction

PATH_COLUMNS = ("path", "predicted", "prediction", "predicted_path", "node")
ARRAYS = ("leaf_probs", "node_probs", "nodes")


@dataclasses.dataclass(frozen=True)
class Given:
  """The predictions of a file beside their labels.

  Attributes:
    prediction: of n images.
    labels: `i32[n l]`, their label paths.
    images: their names; numbers, where the file has none.
    unused: how many images of the labels have no prediction.
  """

  prediction: Prediction
  labels: Int[np.ndarray, "n l"]
  images: Sequence[str]
  unused: int


def read_given(predictions: str | Path, labels: str | Path, tree: LabelTree) -> Given:
  """Reads predictions and labels.

  Args:
    predictions: a CSV file with a header: the image, and either a column a leaf or a column a node with probabilities,
      or a column `path` with the predicted node or path, as `hierjax predict --csv` writes; with a column `rank`, rank
      1 counts. Or an npz file with `leaf_probs` f[n leaves], `node_probs` f[n nodes] or `nodes` [n], and perhaps
      `images` [n] and `names`, the leaf or node of each column.
    labels: a CSV file of images and labels, as `data.labels` reads it; it has a label for each image of predictions.
    tree: the tree.

  Raises:
    UserError: a file cannot be read, or a row of it is wrong; the message has the file and the line.
  """
  lines = _read_labels(labels, tree)
  if Path(predictions).suffix.lower() == ".npz":
    prediction, images = _read_npz(Path(predictions), tree)
    places = [f"{predictions}: image {i}" for i in range(len(prediction.paths))]
  else:
    prediction, images, numbers = _read_csv(Path(predictions), tree)
    places = [f"{predictions}:{number}" for number in numbers]
  if images is None:
    if len(places) != len(lines):
      raise UserError(
        f"{predictions} has {len(places):,} predictions and no array `images`, and {labels} has {len(lines):,} images: "
        "without names there must be as many, in the same order"
      )
    images = list(lines)
  ends = _ends(images, places, lines, labels)
  return Given(prediction, tree.encode(ends), images, len(lines) - len(set(map(_key, images))))


def _ends(images: Sequence[str], places: Sequence[str], lines: dict[str, int], labels: str | Path) -> np.ndarray:
  """Returns the node at which the label of each image ends."""
  seen: dict[str, str] = {}
  for image, place in zip(images, places, strict=True):
    key = _key(image)
    if key not in lines:
      raise UserError(f"{place}: {image!r} has no label in {labels}")
    if seen.setdefault(key, place) != place:
      raise UserError(f"{place}: {image!r} has a prediction already, at {seen[key]}")
  return np.asarray([lines[_key(image)] for image in images], np.int32)


def _key(image: str) -> str:
  return os.path.normpath(image.replace("\\", "/"))


def _read_labels(path: str | Path, tree: LabelTree) -> dict[str, int]:
  """Returns the node at which the label of each image ends; ROOT for images without a label."""
  finder, found = LabelFinder(tree), dict[str, int]()
  for row in read_label_table(path).rows:
    if row.fault and not row.only_image:
      raise UserError(f"{path}:{row.line}: {row.fault}")
    try:
      node = finder.node(row.label) if row.label else ROOT
    except KeyError as error:
      raise UserError(f"{path}:{row.line}: {error.args[0]}") from None
    if found.setdefault(_key(row.image), node) != node:
      raise UserError(
        f"{path}:{row.line}: {row.image!r} has a second label; metrics of one path an image need one label an image"
      )
  return found


def _read_csv(path: Path, tree: LabelTree) -> tuple[Prediction, list[str], list[int]]:
  rows = read_rows(path)
  if len(rows) < 2 or len(rows[0].cells) < 2:
    raise UserError(f"{path}: must have a header, the image and its prediction, and a row an image below it")
  header = rows[0].cells
  words = [cell.casefold() for cell in header]
  image = words.index("image") if "image" in words else 0
  column = next((i for i, word in enumerate(words) if word in PATH_COLUMNS and i != image), None)
  body = rows[1:]
  if column is not None and "rank" in words:
    body = [row for row in body if _cell(row, words.index("rank")) in ("1", "")]
  for row in body:
    if len(row.cells) != len(header):
      raise UserError(f"{path}:{row.line}: {len(row.cells)} cells, and the header has {len(header)}")
  images, lines = [row.cells[image] for row in body], [row.line for row in body]
  if column is not None:
    return Prediction.from_nodes(_node_cells(path, body, column, tree), tree), images, lines
  names = [cell for i, cell in enumerate(header) if i != image]
  numbers = np.stack([_numbers(path, row, image) for row in body])
  try:
    return _of_columns(numbers, names, tree), images, lines
  except RowError as error:
    raise UserError(f"{path}:{lines[error.row]}: {error.reason}") from None
  except UserError as error:
    raise UserError(f"{path}:{rows[0].line}: {error}") from None


def _cell(row: Row, column: int) -> str:
  return row.cells[column] if column < len(row.cells) else ""


def _node_cells(path: Path, rows: Sequence[Row], column: int, tree: LabelTree) -> list[int]:
  finder, found = LabelFinder(tree), []
  for row in rows:
    text = _cell(row, column)
    try:
      found.append(node_named(text, finder) if text else ROOT)
    except UserError as error:
      raise UserError(f"{path}:{row.line}: {error}") from None
  return found


def _numbers(path: Path, row: Row, image: int) -> np.ndarray:
  cells = [cell for i, cell in enumerate(row.cells) if i != image]
  try:
    return np.asarray(list(map(float, cells)), np.float32)
  except ValueError:
    bad = next(cell for cell in cells if not _is_number(cell))
    raise UserError(f"{path}:{row.line}: {bad!r} is no number; a column `path` holds predicted nodes") from None


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _of_columns(probs: Any, names: Sequence[str], tree: LabelTree) -> Prediction:
  """Returns the prediction of probabilities whose columns are all leaves, or all nodes."""
  if len(names) == tree.num_nodes and len(tree.leaves) < tree.num_nodes:
    return Prediction.from_node_probs(probs, tree, names=names)
  return Prediction.from_leaf_probs(probs, tree, names)


def _read_npz(path: Path, tree: LabelTree) -> tuple[Prediction, list[str] | None]:
  arrays = _arrays(path)
  kinds = [name for name in ARRAYS if name in arrays]
  if len(kinds) != 1:
    raise UserError(f"{path}: must have one of the arrays {', '.join(ARRAYS)}; it has {', '.join(arrays) or 'none'}")
  values = arrays[kinds[0]]
  names = [str(name) for name in arrays["names"].ravel()] if "names" in arrays else None
  try:
    if kinds == ["nodes"]:
      nodes = values.tolist() if values.dtype.kind in "US" else values
      prediction = Prediction.from_nodes(given_nodes(nodes, tree), tree)
    elif kinds == ["leaf_probs"]:
      prediction = Prediction.from_leaf_probs(values, tree, names)
    else:
      prediction = Prediction.from_node_probs(values, tree, names=names)
  except UserError as error:
    raise UserError(f"{path}: {kinds[0]}: {error}") from None
  if "images" not in arrays:
    return prediction, None
  images = [str(image) for image in arrays["images"].ravel()]
  if len(images) != len(prediction.paths):
    raise UserError(f"{path}: {len(images):,} images and {len(prediction.paths):,} predictions")
  return prediction, images


def _arrays(path: Path) -> dict[str, np.ndarray]:
  """Returns the arrays of an npz file; Python objects in it are not read."""
  try:
    if not zipfile.is_zipfile(path):
      raise UserError(f"{path}: is no npz file; `numpy.savez` writes one")
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files if name in (*ARRAYS, "images", "names")}
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError, NotImplementedError) as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f"{path}: cannot be read as an npz file of numbers and texts ({error})") from None
