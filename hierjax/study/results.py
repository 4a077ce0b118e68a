"""The table of a study: means and deviations over seeds, and intervals over seeds and images."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from hierjax.errors import UserError
from hierjax.evaluation.metrics.table import METRICS
from hierjax.evaluation.several_runs.significance import paired_t
from hierjax.evaluation.tables import written
from hierjax.study.measurement import Finished
from hierjax.study.plan import EvaluatedRow, Row, Study

_SHARE = 0.95
HEADER = (
  "row", "config", "settings", "metric", "mean", "deviation", "from", "to", "against", "difference",
  "difference_from", "difference_to", "t", "p", "seeds", "images", "weights", "minutes",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Difference:
  """How a metric of a row differs from that of the row that it is compared with.

  Attributes:
    against: the name of that row.
    mean: the difference of the means over the seeds.
    interval: where it lies in 95% of the samples of seeds and images.
    t: Student's t of the differences of the seeds, in pairs; nan for one seed, and where all are 0.
    p: its two-sided p-value.
  """

  against: str
  mean: float
  interval: tuple[float, float]
  t: float
  p: float


@dataclasses.dataclass(frozen=True)
class Value:
  """A metric of a row.

  Attributes:
    mean: over the seeds.
    deviation: over the seeds, n - 1 in the denominator; nan for one seed.
    interval: where the mean lies in 95% of the samples of seeds and images.
    difference: from the row that it is compared with; None for the baseline itself, and where that row has no such
      metric.
  """

  mean: float
  deviation: float
  interval: tuple[float, float]
  difference: Difference | None = None


@dataclasses.dataclass(frozen=True)
class RowResult:
  """A row of the table: its runs and the metrics of them."""

  row: Row | EvaluatedRow
  runs: Sequence[Finished]
  values: Mapping[str, Value]

  @property
  def weights(self) -> int:
    """The number of weights, but for those of a frozen backbone whose features are kept."""
    return int(self.runs[0].about["weights"])

  @property
  def source(self) -> str:
    """The row's config, or the row that it evaluates and how."""
    return self.row.config if isinstance(self.row, Row) else self.row.source

  @property
  def chosen(self) -> tuple[str, ...]:
    """The values of the tuned keys."""
    return self.runs[0].settings if isinstance(self.row, Row) else ()

  @property
  def minutes(self) -> float:
    """The mean time of training of a run."""
    return statistics.fmean(float(run.about["minutes"]) for run in self.runs)


def results_of(study: Study, rows: Sequence[tuple[Row | EvaluatedRow, list[Finished]]]) -> list[RowResult]:
  """Returns the rows that are complete with their metrics, compared with those of the baseline or of `row.against`.

  An interval is of 1,000 samples: of the images, the same ones for all runs, and of each row's seeds, both with
  replacement. So what is hard for all rows does not widen the interval of a difference. Where the seeds have images of
  their own, `study.seeded`, all rows have the same samples of the seeds too.

  Raises:
    UserError: the runs are judged on different images, or the baseline is not complete.
  """
  of = {row.name: runs for row, runs in rows}
  if study.baseline not in of:
    raise UserError(f"{study.title}: the row {study.baseline!r}, which the others are compared with, is not complete")
  check_same_images(of)
  trained = [row.name for row, _ in rows if isinstance(row, Row)]
  source = {row.name: row.of if isinstance(row, EvaluatedRow) else row.name for row, _ in rows}
  stream = {name: 0 if study.seeded else trained.index(source[name]) for name in source}
  drawn = {row.name: _Drawn(row.name, runs, stream[row.name]) for row, runs in rows}
  found = []
  for row, runs in rows:
    own, base = drawn[row.name], drawn[row.against or study.baseline]
    found.append(RowResult(row, runs, {name: _value(own, base, name) for name in study.metrics if own.has(name)}))
  return found


def check_same_images(rows: Mapping[str, Sequence[Finished]]) -> None:
  """Raises UserError where runs are judged on different images, as those of `seeded` splits of one set may be."""
  judged = {run.about["checksum"]: run.folder.path for runs in rows.values() for run in runs}
  if len(judged) > 1:
    raise UserError(
      f"{' and '.join(map(str, judged.values()))} are not judged on the same images; where the set has no test split, "
      "they are judged on validation, and a study may not have data.split_seed among its `seeded` keys"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Drawn:
  """The runs of a row, and the number of their stream of random numbers, which draw the seeds of its samples.

  Rows that decode the same runs have the same stream, so that what the seeds change is no part of their difference.
  """

  name: str
  runs: Sequence[Finished]
  stream: int

  def has(self, name: str) -> bool:
    return all(isinstance(run.metrics.get(name), float) for run in self.runs)

  def numbers(self, name: str) -> Float[np.ndarray, "m"]:
    return np.array([run.metrics[name] for run in self.runs])

  def means(self, name: str) -> Float[np.ndarray, "k"]:
    """Returns the mean over the seeds in each sample of seeds and images."""
    samples = np.stack([run.samples[name] for run in self.runs])
    picks = np.random.default_rng(self.stream).integers(0, len(self.runs), (samples.shape[1], len(self.runs)))
    found: np.ndarray = samples[picks, np.arange(samples.shape[1])[:, None]].mean(axis=1)
    return found


def _value(row: _Drawn, base: _Drawn, name: str) -> Value:
  own, drawn = row.numbers(name), row.means(name)
  deviation = float(own.std(ddof=1)) if len(own) > 1 else math.nan
  value = Value(float(own.mean()), deviation, _ends(drawn))
  if row is base or not base.has(name):
    return value
  other = base.numbers(name)
  t, p = paired_t(own, other) if len(own) == len(other) > 1 else (math.nan, math.nan)
  apart = Difference(base.name, float(own.mean() - other.mean()), _ends(drawn - base.means(name)), t, p)
  return dataclasses.replace(value, difference=apart)


def _ends(drawn: Float[np.ndarray, "k"]) -> tuple[float, float]:
  low, high = np.nanquantile(drawn, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
  return float(low), float(high)


def markdown(study: Study, results: Sequence[RowResult]) -> str:
  """Returns the tables in Markdown: the metrics, their differences from the baseline, and where they come from."""
  columns = [name for name in study.metrics if any(name in one.values for one in results)]
  titles = [METRICS[name].title for name in columns]
  head = ["row", "config", *titles, "weights", "minutes"]
  own = []
  for one in results:
    cells = (_mean(one.values.get(name), name) for name in columns)
    own.append(
      [
        one.row.name,
        f"`{one.source}`" if isinstance(one.row, Row) else one.source,
        *cells,
        f"{one.weights:,}",
        f"{one.minutes:.1f}",
      ]
    )
  compared = [one for one in results if any(value.difference for value in one.values.values())]
  apart = [
    [
      one.row.name + (f" (from {one.row.against})" if one.row.against else ""),
      *(_apart(one.values.get(name), name) for name in columns),
    ]
    for one in compared
  ]
  parts = [f"# {study.title}", _about(study, results), _grid([head, *own])]
  if apart:
    parts += [f"Difference from {study.baseline}, with its 95% interval:", _grid([["row", *titles], *apart])]
  chosen = [f"- {one.row.name}: {', '.join(one.chosen)}" for one in results if one.chosen]
  if chosen:
    parts += ["Chosen on validation with the first seed:", "\n".join(chosen)]
  return "\n\n".join(part for part in parts if part) + "\n"


def _about(study: Study, results: Sequence[RowResult]) -> str:
  runs = [run for one in results for run in one.runs]
  said = {key: sorted({str(run.about[key]) for run in runs} - {""}) for key in ("devices", "commit")}
  first = runs[0].about
  lines = [
    f"Means over the seeds {', '.join(map(str, study.seeds))} ± standard deviations, of {first['images']:,} images of "
    f"{first['split']}. Weights do not count a backbone whose features are kept; minutes are those of the training of "
    "one run, or of all runs of an ensemble."
  ]
  lines += [study.note] if study.note else []
  lines.append("; ".join(filter(None, [*said["devices"], *(f"commit {c}" for c in said["commit"])])))
  return "\n".join(lines)


def _mean(value: Value | None, name: str) -> str:
  if value is None:
    return "-"
  unit = METRICS[name].unit
  spread = "" if math.isnan(value.deviation) else f" ± {written(value.deviation, unit)}"
  return f"{written(value.mean, unit)}{spread}"


def _apart(value: Value | None, name: str) -> str:
  if value is None or value.difference is None:
    return "-"
  unit = METRICS[name].unit
  low, high = (written(end, unit, sign=True) for end in value.difference.interval)
  return f"{written(value.difference.mean, unit, sign=True)} ({low} to {high})"


def _grid(rows: Sequence[Sequence[str]]) -> str:
  head, *others = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
  return "\n".join([head, "|---" * len(rows[0]) + "|", *others])


def csv_rows(results: Sequence[RowResult]) -> list[tuple[object, ...]]:
  """Returns the rows of the CSV file, as HEADER names their columns: one a row and metric."""
  found: list[tuple[object, ...]] = []
  for one in results:
    settings = " ".join((*one.row.settings, *one.chosen)) if isinstance(one.row, Row) else ""
    for name, value in one.values.items():
      apart = value.difference
      compared = ("",) * 6 if apart is None else (apart.against, apart.mean, *apart.interval, apart.t, apart.p)
      own = (one.row.name, one.source, settings, name, value.mean, value.deviation, *value.interval)
      found.append((*own, *compared, len(one.runs), one.runs[0].about["images"], one.weights, one.minutes))
  return found
