"""Figure 5 of Zuo et al. (2016): the images that one run has right and another wrong, and the other way round."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.asked import check_single_path, distinct_names, same_images
from hierjax.evaluation.runner import predict_views
from hierjax.evaluation.tables import table
from hierjax.functional.metrics import path_is_right
from hierjax.functional.paths import ends, single_path
from hierjax.report.plots.canvas import GREY, NodeNames, Page, frame, seen_images
from hierjax.runs.devices import put_batch
from hierjax.runs.folder import RunFolder, write_table
from hierjax.runs.run import Run, judged_split
from hierjax.types import Examples, Leaf, Method, Variables

COLUMNS = 6
HEADER = (
  "only_right", "place", "image", "label", "gain",
  "first_predicted", "first_probability", "first_label_probability",
  "second_predicted", "second_probability", "second_label_probability",
)  # fmt: skip

_LEAST = 1e-300  # the smallest p-value that is shown: soon below it, floats end

# The page, in inches.
_MARGIN, _HEAD, _CAPTION, _GAP = 0.3, 1.15, 0.32, 0.2
_SIDE, _STEP, _ROW, _LINE = 1.6, 1.8, 2.1, 0.15  # an image, the way to the next one, across and down; a line under it


@struct.dataclass
class Answers:
  """What a run says of n images.

  Attributes:
    counted: `bool[n]`, whether any of the label is known.
    right: `bool[n]`, whether the best path is right, as path accuracy counts it.
    end: `i32[n]`, the last node of that path.
    probability: `f32[n]`, of `end`.
    label_probability: `f32[n]`, of the true end node.
  """

  counted: Leaf
  right: Leaf
  end: Leaf
  probability: Leaf
  label_probability: Leaf


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two runs on the images of one split.

  Attributes:
    names: of the runs, which differ.
    run: the first of them that reads images, or else the first; it says how they look in a picture.
    split: the name of the images' split.
    source: the images, or the precomputed features of them, as `run` has them.
    answers: of each run.
  """

  names: tuple[str, str]
  run: Run
  split: str
  source: Source
  answers: tuple[Answers, Answers]

  @property
  def counted(self) -> np.ndarray:
    """`bool[n]`, the images that count for both."""
    return self.answers[0].counted & self.answers[1].counted

  def counts(self) -> np.ndarray:
    """Returns how many images the first run has right or wrong (rows), and the second right or wrong (columns)."""
    first, second = (a.right[self.counted] for a in self.answers)
    return np.array([[(x & y).sum() for y in (second, ~second)] for x in (first, ~first)])

  def won(self, by: int) -> np.ndarray:
    """Returns the images that one run has right and the other wrong, the largest gain in probability first."""
    own, other = self.answers[by], self.answers[1 - by]
    images = np.flatnonzero(self.counted & own.right & ~other.right)
    return images[np.argsort(-self.gain(by)[images], kind="stable")]

  def gain(self, by: int) -> np.ndarray:
    """Returns how much more probability a run gives to the true end node of each image than the other."""
    return self.answers[by].label_probability - self.answers[1 - by].label_probability


def compare(folder: RunFolder, other: RunFolder, mesh: Mesh, data_root: str = "") -> Comparison:
  """Asks two runs about the images that runs are judged on.

  Each sees them as its own config says: its crop, its views.

  Args:
    folder: of the first run.
    other: of the second.
    mesh: the devices to use.
    data_root: where the data set of both is now; '' for where their configs say.

  Raises:
    UserError: the runs have different trees or data, or images with several label paths, or one cannot be used.
  """
  runs = Run.from_folder(folder, data_root), Run.from_folder(other, data_root)
  first_name, second_name = distinct_names((folder, other))
  if runs[0].tree != runs[1].tree:
    raise UserError(f"{folder.path} and {other.path} have different label trees, so their answers cannot be compared")
  split = judged_split(runs[0]) or "test"
  first, second = (run.source(split) for run in runs)
  if first is None or second is None or judged_split(runs[1]) != split or not same_images(runs, first, second):
    raise UserError(f"{folder.path} and {other.path} are not judged on the same images, so they cannot be compared")
  for run, source in zip(runs, (first, second), strict=True):
    check_single_path(run, source, "runs are compared on a single one")
  answers = _answers(runs[0], folder, first, mesh), _answers(runs[1], other, second, mesh)
  run, source = (runs[1], second) if len(first.shape) == 1 else (runs[0], first)
  return Comparison((first_name, second_name), run, split, source, answers)


def _answers(run: Run, folder: RunFolder, source: Source, mesh: Mesh) -> Answers:
  """Returns what a run says of each image of a set, in its order."""

  @jax.jit
  def answer(method: Method, variables: Variables, examples: Examples) -> Answers:
    prediction = predict_views(method, variables, examples, run.preprocess, run.options)
    best, paths = prediction.paths[:, 0], single_path(examples.paths)
    end, true = ends(best), ends(paths)

    def probability(node: jax.Array) -> jax.Array:
      found = jnp.take_along_axis(prediction.node_prob, jnp.maximum(node, 0)[:, None], axis=1)[:, 0]
      return jnp.where(node >= 0, found, 0.0)

    counted = (true >= 0) & (examples.mask > 0)
    return Answers(counted, path_is_right(best, paths), end, probability(end), probability(true))

  _, variables = run.restored_variables(folder, mesh)
  with contextlib.closing(run.eval_batches(source)) as batches:
    found = [jax.device_get(answer(run.method, variables, put_batch(examples, mesh))) for examples in batches]
  return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(source)], *found)


def mcnemar(first_only: int, second_only: int) -> float:
  """Returns the two-sided p-value of McNemar's exact test.

  That is how probable so uneven a split of the images that only one run has right is, were each as likely to go to
  either run: twice the lower tail of a binomial distribution with probability 1/2, and at most 1.
  """
  n, term, tail = first_only + second_only, 1, 0
  for i in range(min(first_only, second_only) + 1):
    tail += term
    term = term * (n - i) // (i + 1)
  return min(1.0, 2 * tail / 2**n)


def describe(found: Comparison) -> str:
  """Returns the 2 x 2 counts and McNemar's p-value as text for a terminal."""
  counts = found.counts()
  first, second = found.names
  rows: list[tuple[str, ...]] = [("", f"{second} right", f"{second} wrong")]
  for name, row in zip((f"{first} right", f"{first} wrong"), counts.tolist(), strict=True):
    rows.append((name, *(f"{n:,}" for n in row)))
  first_only, second_only = int(counts[0, 1]), int(counts[1, 0])
  p = mcnemar(first_only, second_only)
  shown = f"p = {p:.3g}" if p >= _LEAST else f"p < {_LEAST:g}"
  test = f"McNemar's exact test, {first_only:,} against {second_only:,}: {shown}"
  return f"{counts.sum():,} images of {found.split}\n{table(rows)}\n{test}"


def draw_comparison(folder: RunFolder, found: Comparison) -> Path:
  """Writes pictures/compare.png and, beside it, compare.csv, which says what is on it; returns the PNG's path.

  Above a dashed line are two rows of images that only the first run has right, below it one of those that only the
  second has right: those with the largest gain in the probability of the true end node. Under each image is what the
  first run says, and below that what the second does; what is right is in bold.
  """
  pictures = folder.path / "pictures"
  shown = (found.won(0)[: 2 * COLUMNS], found.won(1)[:COLUMNS])
  write_table(pictures / "compare.csv", HEADER, _rows(found, shown))
  heights = [_CAPTION + -(-len(images) // COLUMNS) * _ROW for images in shown]
  page = Page(2 * _MARGIN + COLUMNS * _STEP - _GAP, _HEAD + sum(heights) + _GAP + _MARGIN / 2)
  width = page.width - 2 * _MARGIN
  _head(page, found, width)
  below = _HEAD + heights[0]
  _section(page, _HEAD, found, 0, shown[0])
  page.rule(_MARGIN, below, width)
  _section(page, below + _GAP, found, 1, shown[1])
  page.save(pictures / "compare.png")
  return pictures / "compare.png"


def _head(page: Page, found: Comparison, width: float) -> None:
  first, second = found.names
  page.text(_MARGIN, 0.25, f"{first} against {second}", width=width, size=13.0, bold=True)
  about = (
    f"{found.split.capitalize()} images with the largest gain in the probability of the label",
    f"Under each, with its probability: what {first} says, then what {second} says; what is right is bold",
  )
  for line, text in enumerate(about):
    page.text(_MARGIN, 0.54 + 0.19 * line, text, width=width, size=9.0, colour=GREY)


def _section(page: Page, top: float, found: Comparison, by: int, images: np.ndarray) -> None:
  name, count = found.names[by], len(found.won(by))
  title = f"Only {name} is right: {len(images)} of {count:,} such images" if count else f"Nowhere is only {name} right"
  page.text(_MARGIN, top, title, width=page.width - 2 * _MARGIN, size=10.0, bold=True)
  names = NodeNames(found.run.tree)
  pixels = seen_images(found.source, images, found.run.data.crop)
  for place, (image, own) in enumerate(zip(images.tolist(), pixels, strict=True)):
    row, column = divmod(place, COLUMNS)
    left, above = _MARGIN + column * _STEP, top + _CAPTION + row * _ROW
    frame(page.image(left, above, _SIDE, own), _SIDE, GREY, line=0.5)
    for line, said in enumerate(found.answers):
      under, right = above + _SIDE + 0.05 + line * _LINE, bool(said.right[image])
      text, ending = names(int(said.end[image])), f" ({said.probability[image]:.2f})"
      page.text(left, under, text, width=_SIDE, size=7.5, bold=right, align="center", ending=ending)


def _rows(found: Comparison, shown: Sequence[np.ndarray]) -> Iterator[tuple[object, ...]]:
  """Yields the rows of the CSV file, as HEADER names their columns."""
  tree = found.run.tree
  for by, images in enumerate(shown):
    for place, image in enumerate(images.tolist(), 1):
      label = tree.path_text(int(found.source.nodes[image, 0]))
      said = [
        (tree.path_text(int(a.end[image])), f"{a.probability[image]:.6f}", f"{a.label_probability[image]:.6f}")
        for a in found.answers
      ]
      gain = f"{found.gain(by)[image]:.6f}"
      yield found.names[by], place, found.source.describe(image), label, gain, *said[0], *said[1]
