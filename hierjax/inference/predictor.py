"""Label paths for image files, from a run's folder alone."""

from __future__ import annotations

import collections
import functools
import html
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hierjax.config import checked
from hierjax.data.images.read_image import BadImageError, to_grey
from hierjax.errors import UserError
from hierjax.inference.answers import HEADER, Answer, Row, paths_of, without_path
from hierjax.inference.image_inputs import ImageInput, as_images
from hierjax.inference.purpose import Purpose
from hierjax.inference.trained_model import AnswerSettings, TrainedModel
from hierjax.runs import devices
from hierjax.runs.folder import write_table
from hierjax.runs.run import Run
from hierjax.tree.label_finder import split_path
from hierjax.tree.readers.folders import IMAGE_SUFFIXES, walk

_BATCH = 32
_FEW = (1, 8)  # batches for fewer images; each is compiled when it is first wanted
_AHEAD = 4 * _BATCH  # images in memory


def find_images(inputs: Sequence[str]) -> list[Path]:
  """Returns the files named, and the images in the folders named and below, in order.

  Folders are walked as those of a data set: what is hidden is passed over, and links are followed. Folders that cannot
  be read, and the number of files that are passed over, are printed on stderr.

  Raises:
    UserError: the folders hold no image.
  """
  found: list[Path] = []
  for name in inputs:
    if not name:  # which is "." to Path
      raise UserError("one of the images to predict has an empty name: name files, or folders of images")
    path = Path(name).expanduser()
    if path.is_dir():
      folders = list(walk(path, _tell))
      found += sorted(Path(folder.path, image) for folder in folders for image in folder.images)
      passed_over = sum((folder.passed_over for folder in folders), Counter())
      if passed_over:
        counts = ", ".join(f"{count:,} {what}" for what, count in passed_over.items())
        print(f"{path}: passed over {counts}", file=sys.stderr)
    else:
      found.append(path)  # one that is not there gets a row that says so
  if not found:
    raise UserError(f"no images in {', '.join(inputs)} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
  return found


def _tell(kind: str, path: str, name: str, message: str) -> None:
  if kind == "unreadable":
    print(f"{path} {message}", file=sys.stderr)


class Answers(list[Row]):
  """The rows of the answers for images, shown as a table in notebooks."""

  def _repr_html_(self) -> str:
    """Returns the rows as an HTML table; all text is escaped."""
    head = "".join(f"<th>{name}</th>" for name in ("image", "path", "probability", "error"))
    cells = [(row.image, " > ".join(split_path(row.path)), row.cells()[2], row.error) for row in self]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


@checked
class Predictor:
  """A trained run that predicts label paths for images; it is loaded once, and compiled once a batch size."""

  def __init__(
    self, workdir: str | Path, top: int = 1, alpha: str = "", threshold: str = "", purpose: Purpose = Purpose()
  ):
    """Opens a run's folder.

    A run on precomputed features reads images through the run that made the features. Files are made grey for a run
    whose images have one channel.

    Args:
      workdir: the run's folder.
      top: the number of paths of each image.
      alpha: of classifier adaptation: a number as text, or `chosen`; '' for none.
      threshold: the confidence threshold: a number as text, `chosen` or `certified`; '' for none. The answer is the
        deepest node that is at least as probable.
      purpose: what the answers are for: `Purpose(minimise="edges")`, `Purpose(level=2)`, `Purpose(only=("dog",))`.

    Raises:
      UserError: the folder is not that of a run, or has no checkpoint, or nothing makes the features that it reads; or
        its images are neither grey nor RGB; or alpha or threshold is out of range, or has not been chosen.
    """
    model = TrainedModel.open(workdir, devices.data_mesh(), AnswerSettings(top, alpha, threshold, purpose))
    self.tree = model.run.tree
    self._eye = model.eye
    self._answer = functools.partial(jax.jit(model.answer), model.run.method, model.weights)
    self._may_abstain = model.may_abstain
    self._why = {"rule": model.rule, "threshold": model.stages.threshold}

  def __call__(self, images: Any) -> Answers:
    """Returns the best paths of images, in order; see `rows`.

    Args:
      images: one image or many: files, bytes of image files, PIL images, arrays `u8[h w c]` or a batch `u8[b h w c]`,
        or a list of these; see `image_inputs.as_images`. A plain string is one file.
    """
    return Answers(self.rows(images))

  def rows(self, images: Any) -> Iterator[Row]:
    """Yields the best paths of each image, in order; one that cannot be read gets one row with the reason.

    For a multi-label head, the paths are all that pass its thresholds, at most as many as its beam or `top`; where none
    passes, a row without a path. An image whose path is shortened to nothing by the threshold gets such a row, too.
    Paths that the threshold made equal appear once.

    Args:
      images: as in `__call__`.
    """
    inputs = as_images(images)
    every = _read_ahead(inputs, self._eye)
    batch = next((size for size in _FEW if len(inputs) <= size), _BATCH)
    for start in range(0, len(inputs), batch):
      pixels = list(itertools.islice(every, batch))
      good = [p for p in pixels if isinstance(p, np.ndarray)]
      found = self._answer(_pad(good, batch)) if good else ()
      answers = zip(*jax.device_get(found), strict=True)
      for image, own in zip(inputs[start:], pixels, strict=False):
        if isinstance(own, str):
          yield Row(image.name, error=own)
        else:
          answer = Answer(*next(answers))
          rows = list(paths_of(image.name, self.tree, answer, self._why))
          yield from rows or [without_path(image.name, self.tree, answer, self._why)] * self._may_abstain


def _read(image: ImageInput, run: Run) -> np.ndarray | str:
  """Returns the pixels of an image, or the reason why there are none."""
  try:
    pixels = image.pixels(run.data.resize, run.data.fit, run.data.interpolation)
  except BadImageError as error:
    return str(error)
  return to_grey(pixels) if len(run.data.mean) == 1 else pixels


def _read_ahead(images: Sequence[ImageInput], run: Run) -> Iterator[np.ndarray | str]:
  """Yields `_read` of each image, in order; threads read the next ones while a batch is predicted."""
  pool, waiting = ThreadPoolExecutor(run.data.threads), collections.deque[Future[np.ndarray | str]]()
  try:
    for image in images:
      waiting.append(pool.submit(_read, image, run))
      if len(waiting) > _AHEAD:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


def _pad(images: Sequence[np.ndarray], batch: int) -> np.ndarray:
  return np.stack([*images, *([np.zeros_like(images[0])] * (batch - len(images)))])


def write_csv(path: str, rows: Iterable[Row]) -> None:
  """Writes rows below HEADER, whole or not at all."""
  write_table(Path(path), HEADER, (row.cells() for row in rows))
