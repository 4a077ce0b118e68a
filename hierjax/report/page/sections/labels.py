"""The labels that are most likely wrong, level by level."""

from __future__ import annotations

import functools
from typing import Any

from hierjax.evaluation.label_errors import LabelErrors, label_errors
from hierjax.evaluation.metrics.table import nodes_of
from hierjax.evaluation.tables import percent
from hierjax.report.page.findings.findings import Findings, arrows

MOST = 12  # images a level


class LikelyWrong:
  """The labels of a page's images that are likely wrong.

  Attributes:
    found: which they are; None without probabilities.
  """

  def __init__(self, findings: Findings):
    self._findings = findings
    self.found: LabelErrors | None = None
    if findings.likely is not None:
      own = nodes_of(findings.facts).label
      self.found = label_errors(findings.predictions.labels, own, findings.likely, findings.tree)

  @functools.cached_property
  def shown(self) -> list[list[int]]:
    """The rows of the images that are shown of each level, the most likely wrong first."""
    return [] if self.found is None else [self.found.at(t)[:MOST].tolist() for t in range(self._findings.tree.depth)]

  def sections(self) -> list[dict[str, Any]]:
    """Returns, for each level with such labels, their number and the images that are shown."""
    if self.found is None:
      return []
    names = self._findings.tree.named_levels
    return [
      {"level": names[t], "count": f"{len(self.found.at(t)):,}", "images": [self._image(row, t) for row in rows]}
      for t, rows in enumerate(self.shown)
      if rows
    ]

  def _image(self, row: int, level: int) -> dict[str, Any]:
    """Returns an image with the label and the suggested node at a level, each with the probability that orders them."""
    assert self.found is not None
    findings, suggested = self._findings, int(self.found.suggested[row, level])
    label, likely = float(self.found.label[row, level]), findings.likely
    assert likely is not None
    nodes = likely.nodes[row, level].tolist()
    probability = float(likely.probability[row, level, nodes.index(suggested)])
    return {
      "row": row,
      "name": findings.name_of(row),
      "label": arrows(findings.tree, int(findings.predictions.labels[row, level])),
      "label_probability": percent(label),
      "suggested": arrows(findings.tree, suggested),
      "suggested_probability": percent(probability),
      "whole": arrows(findings.tree, int(findings.facts.label_ends[row])),
      "margin": f"{self.found.margin[row, level]:+.3f}".replace("-", "\N{MINUS SIGN}"),
    }
