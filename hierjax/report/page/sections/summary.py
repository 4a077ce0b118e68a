"""The summary in plain words, the cards, and the table of metrics; all of one set of predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hierjax.evaluation.calibration import Calibration
from hierjax.evaluation.metrics.table import METRICS
from hierjax.evaluation.tables import written
from hierjax.report.page.findings.findings import Findings


@dataclasses.dataclass(frozen=True)
class Card:
  """A metric that stands large on the page.

  Attributes:
    title: its name.
    value: as text.
    interval: 95% of it, as text; '' for none.
    about: what it is, in plain words.
    share: from 0 to 1 with its interval, for a bar; None for another kind of number.
    other: the value and interval of the predictions that these are compared with; '' for none.
  """

  title: str
  value: str
  interval: str
  about: str
  share: tuple[float, float, float] | None = None
  other: str = ""


def of_hundred(counts: Sequence[int]) -> list[int]:
  """Returns counts in hundredths of their sum, whose own sum is 100: the largest remainders are rounded up."""
  shares = 100 * np.asarray(counts, np.float64) / max(sum(counts), 1)
  found = np.floor(shares).astype(np.int64)
  missing = round(float(shares.sum())) - int(found.sum())
  found[np.argsort(found - shares, kind="stable")[:missing]] += 1
  return found.tolist()


def group_counts(found: Findings) -> dict[str, int]:
  """Returns how many images are right, partly right and wholly wrong."""
  return {name: int(mask.sum()) for name, mask in found.predictions.groups.items()}


def sentences(found: Findings, metrics: Mapping[str, Any]) -> list[str]:
  """Returns what the predictions are worth, in sentences."""
  counts, things = group_counts(found), found.about.things
  if not sum(counts.values()):
    return [f"No label of these {things} is known, so that nothing can be measured."]
  right, partly, wrong = of_hundred(list(counts.values()))
  said = [
    f"Of 100 {things} of {found.about.images}, {right} have a predicted path that is right all the way down, {partly} "
    f"one that is right at the top but not all the way down, and {wrong} one that is wrong from the top."
  ]
  if (severity := metrics.get("mistake_severity_edges")) is not None:
    said.append(
      f"Where a path is not right, its end is {severity:.1f} edges of the tree from the label's on average; a sibling "
      "of the label is 2 edges away."
    )
  nodes, probability, accuracy, _ = Calibration.of(found.predictions).row(slice(None))
  if found.likely is not None and nodes and probability is not None and accuracy is not None:
    said.append(f"The probabilities of the predicted nodes say {probability:.0%} on average; {accuracy:.0%} are right.")
  if coverage := metrics.get("coverage_95"):
    said.append(
      f"With a confidence threshold it can answer for {coverage:.0%} of the {things}, as far down as it is confident, "
      "and 95% of these answers are right."
    )
  return said


def cards(found: Findings, metrics: Mapping[str, Any]) -> list[Card]:
  """Returns the main metrics; those of which the predictions lack what it takes are left out."""
  names, things = found.tree.named_levels, found.about.things
  wanted = [("path_accuracy", None, f"{things} whose whole predicted path is right")]
  levels = [0, len(names) - 1] if len(names) > 1 else []
  wanted += [("level_accuracy", t, f"predicted paths with the right node of {names[t]}, where the label has one")
             for t in levels]  # fmt: skip
  wanted += [
    ("tree_distance_edges", None, "mean edges of the tree between prediction and label; 0 where it is right"),
    ("ece", None, "how far probabilities lie from the share that is right, on average; 0 is perfect"),
    ("coverage_95", None, f"{things} with an answer, at the threshold where 95% of the answers are right"),
  ]
  made = [_card(metrics, names, *one) for one in wanted if metrics.get(one[0]) is not None]
  return [card for card in made if card is not None]


def cards_of_two(found: Findings, metrics: Mapping[str, Any], other: Mapping[str, Any]) -> list[Card]:
  """Returns the same, with the values of other predictions for the same images beside them."""
  theirs = {card.title: f"{card.value} ({card.interval})" for card in cards(found, other)}
  return [dataclasses.replace(card, other=theirs.get(card.title, "")) for card in cards(found, metrics)]


def _card(metrics: Mapping[str, Any], names: Sequence[str], name: str, level: int | None, about: str) -> Card | None:
  metric, value, ends = METRICS[name], metrics[name], metrics["intervals"].get(name)
  title = metric.title
  if level is not None:
    value, ends, title = value[level], ends[level] if ends else None, title.replace("level", names[level], 1)
  if value is None:
    return None
  share = (value, *ends) if metric.unit == "share" and ends else None
  return Card(title, written(value, metric.unit), _interval(ends, metric.unit), about, share)


def _interval(ends: Sequence[float] | None, unit: str) -> str:
  return f"{written(ends[0], unit)} to {written(ends[1], unit)}" if ends else ""


def metric_rows(found: Findings, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns every metric with its interval and definition; a row a level for those by level."""
  rows = []
  for name, metric in METRICS.items():
    if name not in metrics:
      continue
    ends, by_level = metrics["intervals"].get(name), isinstance(metrics[name], list)
    for level, value in enumerate(metrics[name] if by_level else [metrics[name]]):
      own = ends[level] if by_level and ends else ends
      title = metric.title.replace("level", found.tree.named_levels[level], 1) if by_level else metric.title
      rows.append(
        {
          "title": title, "value": written(value, metric.unit), "interval": _interval(own, metric.unit) or "–",
          "formula": metric.formula, "better": "more" if metric.higher_is_better else "less",
        }
      )  # fmt: skip
  return rows
