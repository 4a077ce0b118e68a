"""Figure 5 of Zuo et al. (2016): the images that one run has right and another wrong, and the other way round."""

from __future__ import annotations

import dataclasses

import numpy as np

from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.answers import fold
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.intervals import differences_of, values_of
from hierjax.evaluation.metrics.rows import AnsweredRows
from hierjax.evaluation.metrics.table import METRICS
from hierjax.evaluation.predictions import Predictions, predictions_taker
from hierjax.evaluation.tables import table, written
from hierjax.inference.images import check_single_path, distinct_names, same_images
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.members import Ensemble, Images
from hierjax.inference.pipeline import Stages
from hierjax.runs.run import Run, judged_split

_LEAST = 1e-300  # the smallest p-value that is shown: soon below it, floats end


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two runs on the images of one split.

  Attributes:
    names: of the runs, which differ.
    run: the first of them that reads images, or else the first; it says how they look in a picture.
    split: the name of the images' split.
    source: the images, or the precomputed features of them, as `run` has them.
    predictions: of each run.
    facts: about the same predictions, for metrics; None where they are not compared.
  """

  names: tuple[str, str]
  run: Run
  split: str
  source: Source
  predictions: tuple[Predictions, Predictions]
  facts: tuple[Facts, Facts] | None = None

  @property
  def counted(self) -> np.ndarray:
    """`bool[n]`, the images that count for both."""
    return self.predictions[0].counted & self.predictions[1].counted

  def counts(self) -> np.ndarray:
    """Returns how many images the first run has right or wrong (rows), and the second right or wrong (columns)."""
    first, second = (a.right[self.counted] for a in self.predictions)
    return np.array([[(x & y).sum() for y in (second, ~second)] for x in (first, ~first)])

  def won(self, by: int) -> np.ndarray:
    """Returns the images that one run has right and the other wrong, the largest gain in probability first."""
    own, other = self.predictions[by], self.predictions[1 - by]
    images = np.flatnonzero(self.counted & own.right & ~other.right)
    return images[np.argsort(-self.gain(by)[images], kind="stable")]

  def gain(self, by: int) -> np.ndarray:
    """Returns how much more probability a run gives to the true end node of each image than the other."""
    return self.predictions[by].label_probability - self.predictions[1 - by].label_probability


def compare(first: LoadedRun, second: LoadedRun) -> Comparison:
  """Returns the predictions of two runs for the images on which runs are judged.

  Each run reads them as its own config says: its crop, its views.

  Raises:
    UserError: the runs have different trees or data, or images with several label paths.
  """
  loaded = (first, second)
  names, split, (ours, theirs) = same_images_of(first, second)
  (rows, facts), (other, its_facts) = (
    _measured(one, split, source) for one, source in zip(loaded, (ours, theirs), strict=True)
  )
  shown = 1 if len(ours.shape) == 1 else 0
  return Comparison(names, loaded[shown].run, split, (ours, theirs)[shown], (rows, other), (facts, its_facts))


def same_images_of(first: LoadedRun, second: LoadedRun, split: str = "") -> tuple[tuple[str, str], str, list[Source]]:
  """Returns the names of two runs, a split, and its images as each reads them.

  Args:
    first: a run.
    second: another.
    split: its name; '' for the split on which both are judged.

  Raises:
    UserError: the runs have different trees or data, or images with several label paths.
  """
  runs = (first.run, second.run)
  names = distinct_names((first.folder, second.folder))
  text = f"{first.folder.path} and {second.folder.path}"
  if runs[0].tree != runs[1].tree:
    raise UserError(f"{text} have different label trees, so their answers cannot be compared")
  judged = [split or judged_split(run) or "test" for run in runs]
  ours, theirs = (run.source(judged[0]) for run in runs)
  if ours is None or theirs is None or judged[0] != judged[1] or not same_images(runs, ours, theirs):
    raise UserError(f"{text} are not judged on the same images, so they cannot be compared")
  for run, source in zip(runs, (ours, theirs), strict=True):
    check_single_path(run, source, "runs are compared by one path an image")
  return (names[0], names[1]), judged[0], [ours, theirs]


def _measured(loaded: LoadedRun, split: str, source: Source) -> tuple[Predictions, Facts]:
  ensemble, images, stages = Ensemble.of(loaded), Images.of(loaded, split, source), Stages(loaded.run.options)
  rows, scored = predictions_taker(ensemble, stages), AnsweredRows(ensemble, stages)
  fold(ensemble, images, rows, scored)
  predictions: Predictions = rows.values(len(source))
  return predictions, scored.facts


def differences_table(found: Comparison) -> str:
  """Returns the main metrics of two runs, and the 95% interval of their difference over images, in pairs, as text."""
  assert found.facts is not None  # `compare` has them
  first, second = found.facts
  if len(first.predictions.labels) != len(second.predictions.labels):
    return "the runs could not read the same images, so their metrics are not compared in pairs"
  names = found.run.tree.named_levels
  ones, others, differences = values_of(first), values_of(second), differences_of(first, second)
  rows: list[tuple[str, ...]] = [("metric", *found.names, "95% interval of the difference")]
  for name, (_, ends) in differences.items():
    metric = METRICS[name]
    for i in range(ones[name].size) if metric.shown else ():
      own = [written(float(values[name].ravel()[i]), metric.unit) for values in (ones, others)]
      low, high = (written(float(end), metric.unit, sign=True) for end in ends.reshape(-1, 2)[i])
      rows.append(
        (metric.title.replace("level", names[i], 1) if ends.ndim > 1 else metric.title, *own, f"{low} to {high}")
      )
  return table(rows)


def mcnemar(first_only: int, second_only: int) -> float:
  """Returns the two-sided p-value of McNemar's exact test: the sign test of the images that one run alone has right."""
  from scipy.stats import binomtest  # 3 seconds, which every command would wait for

  n = first_only + second_only
  return float(binomtest(first_only, n).pvalue) if n else 1.0


def comparison_table(found: Comparison) -> str:
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
