"""What a study trains and measures: the rows of its table, and the seeds of each."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hierjax.config_files import CONFIGS, run_file
from hierjax.errors import UserError, did_you_mean
from hierjax.functional.costs import COSTS

STUDIES = CONFIGS / "studies"
_FILE_NAME = re.compile(r"[^A-Za-z0-9.=,+-]+")


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a study's table: one config, trained with each seed.

  Attributes:
    name: in the table, and of its folder.
    config: a config and its variant, such as `photos:flat`.
    settings: values of its keys, such as `head.width=128`.
    tuned: keys, each with the values to choose from on validation, such as `{"optim.lr": ("1e-3", "3e-3")}`. Every
      combination is trained with the first seed; the other seeds have the values of the best one.
    pseudo_labels_of: the name of a row before this one, whose runs predict the pseudo-labels that this one trains on
      (`data.partial_labels=pseudo`): for each seed the run of that seed.
    against: the name of a row before this one that it is compared with; '' for the study's `baseline`.
  """

  name: str
  config: str
  settings: Sequence[str] = ()
  tuned: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  pseudo_labels_of: str = ""
  against: str = ""

  def candidates(self) -> Iterator[tuple[str, ...]]:
    """Yields each combination of the tuned values, as settings; a single empty one where nothing is tuned."""
    yield from itertools.product(*([f"{key}={value}" for value in values] for key, values in self.tuned.items()))


@dataclasses.dataclass(frozen=True)
class EvaluatedRow:
  """A row of a study's table that trains nothing: the runs of another row, evaluated in another way.

  Attributes:
    name: in the table.
    of: the name of a row before this one, whose runs are evaluated.
    minimise: the cost of `hierjax.functional.costs.COSTS` whose expectation the answers minimise, as of `evaluate
      --minimise`; '': the best path.
    alpha: of classifier adaptation, as of `evaluate --alpha`: a number, or `chosen` for the best one on validation.
    calibrated: whether the temperature of each run counts; without it the temperature is 1.
    ensemble: the number of runs whose probabilities are averaged, as of `evaluate A B C`; 0 or 1: each by itself.
      With 6 seeds and 3 there are two ensembles, with 5 seeds one, and the last two seeds are in none.
    against: the name of a row before this one that it is compared with; '' for the study's `baseline`.
  """

  name: str
  of: str
  minimise: str = ""
  alpha: float | str = 0.0
  calibrated: bool = True
  ensemble: int = 0
  against: str = ""

  @property
  def source(self) -> str:
    """The row that it evaluates, and how."""
    how = {
      f"minimise={self.minimise}": self.minimise,
      f"alpha={self.alpha}": self.alpha,
      "temperature=1": not self.calibrated,
      f"ensemble={self.ensemble}": self.ensemble > 1,
    }
    return ", ".join([f"of {self.of}", *(text for text, holds in how.items() if holds)])


@dataclasses.dataclass(frozen=True)
class Study:
  """Rows that are trained, or evaluated again, on the same images with the same seeds.

  Attributes:
    title: of the table.
    rows: of the table.
    baseline: the name of the row that the others are compared with.
    seeds: of each row.
    seeded: keys that have the seed as their value too, such as `data.split_seed`. The runs of a row then have different
      images, and train one after the other.
    settings: values of keys for all rows.
    metrics: names of `hierjax.evaluation.metrics.table.METRICS`, the columns.
    note: a sentence below the table: the images, the budget of tuning, what to know.
  """

  title: str
  rows: Sequence[Row | EvaluatedRow]
  baseline: str
  seeds: Sequence[int] = (0, 1, 2, 3, 4)
  seeded: Sequence[str] = ()
  settings: Sequence[str] = ()
  metrics: Sequence[str] = (
    "path_accuracy",
    "leaf_top1",
    "mistake_severity_edges",
    "mistake_severity_height",
    "hierarchical_distance_5",
    "hierarchical_distance_20",
    "hierarchical_f1",
    "inconsistent_predictions",
    "ece",
    "leaf_nll",
    "coverage_95",
  )
  note: str = ""

  def __post_init__(self) -> None:
    """Raises UserError for rows that cannot make a table."""
    names = [row.name for row in self.rows]
    if len(set(map(folder_name, names))) < len(names):
      raise UserError(f"{self.title}: two rows have the same name: {', '.join(names)}")
    if self.baseline not in names:
      raise UserError(f"{self.title}: baseline = {self.baseline!r}: name one of the rows, {', '.join(names)}")
    if not self.seeds or len(set(self.seeds)) < len(self.seeds):
      raise UserError(f"{self.title}: seeds = {tuple(self.seeds)}: give one or more, each once")
    for number, row in enumerate(self.rows):
      before = [one.name for one in self.rows[:number]]
      trained = [one.name for one in self.rows[:number] if isinstance(one, Row)]
      for field, allowed in (("of", trained), ("pseudo_labels_of", trained), ("against", before)):
        other = getattr(row, field, "")
        if (other or (field == "of" and isinstance(row, EvaluatedRow))) and other not in allowed:
          which = "row before it" if allowed is before else "row before it that trains"
          hint = did_you_mean(other, allowed)
          raise UserError(f"{self.title}: {row.name}: {field} = {other!r}: no {which} has this name{hint}")
      if isinstance(row, EvaluatedRow):
        self._check_evaluated(row)
      elif any(not values for values in row.tuned.values()):
        raise UserError(f"{self.title}: {row.name}: a tuned key has no values to choose from")

  def _check_evaluated(self, row: EvaluatedRow) -> None:
    where = f"{self.title}: {row.name}"
    if not 0 <= row.ensemble <= len(self.seeds):
      allowed = f"from 0 to {len(self.seeds)}, the number of seeds"
      raise UserError(f"{where}: ensemble = {row.ensemble}: must be {allowed}")
    if row.minimise and row.minimise not in COSTS:
      hint = did_you_mean(row.minimise, COSTS)
      raise UserError(f"{where}: minimise = {row.minimise!r}: choose from {', '.join(COSTS)}{hint}")
    if isinstance(row.alpha, str) and row.alpha != "chosen":
      raise UserError(f"{where}: alpha = {row.alpha!r}: must be a number, or 'chosen'")
    if row == EvaluatedRow(row.name, row.of, against=row.against, ensemble=min(row.ensemble, 1)):
      raise UserError(f"{where}: give what differs from {row.of!r}: minimise, alpha, calibrated or ensemble")


def folder_name(text: str) -> str:
  """Returns a text as the name of a folder."""
  return _FILE_NAME.sub("-", text).strip("-") or "row"


def names() -> list[str]:
  """Returns the names of the studies that hierjax has."""
  return sorted(file.stem for file in STUDIES.glob("*.py"))


def load_study(spec: str) -> Study:
  """Returns the study that a command line names.

  Args:
    spec: a name of `names()`, or the path of a file with a function `get_study() -> Study`.

  Raises:
    UserError: there is no such study, or the file makes none.
  """
  path = Path(spec).expanduser()
  if not (path.suffix == ".py" and path.is_file()):
    path = STUDIES / f"{path.stem}.py"
  if not path.is_file():
    raise UserError(
      f"there is no study {spec!r}{did_you_mean(Path(spec).stem, names())} (choose from {', '.join(names())}, or name "
      "a file FILE.py)"
    )
  module = run_file(path)
  study = module.get_study() if hasattr(module, "get_study") else None
  if not isinstance(study, Study):
    raise UserError(f"{path} is not a study: it needs a function get_study() that returns a hierjax.study.plan.Study")
  return study
