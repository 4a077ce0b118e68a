"""The picture of a study: a panel a metric, a line a row, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierjax.evaluation.metrics.table import METRICS
from hierjax.report.plots.style import ACCENT, BODY, FAMILY, GREY, INK, SECOND, TITLE, file_of, tidy
from hierjax.study.plan import Study
from hierjax.study.results import RowResult

_COLUMNS, _PANEL, _LINE = 3, 2.9, 0.24  # panels side by side; inches


def picture(study: Study, results: Sequence[RowResult], kind: str = "png") -> bytes:
  """Returns the picture as a file: of each metric the means of the rows with their 95% intervals.

  The dashed line is the baseline's mean. What is better is to the right, in every panel.
  """
  names = [name for name in study.metrics if any(name in one.values for one in results)]
  columns = min(_COLUMNS, len(names))
  lines = math.ceil(len(names) / columns)
  label = 0.075 * max(len(one.row.name) for one in results) + 0.3
  height = _LINE * len(results) + 0.9
  size = label + columns * _PANEL + 0.2, 0.6 + lines * height
  figure = Figure(size, layout="constrained")
  figure.suptitle(study.title, fontsize=TITLE, color=INK, fontfamily=FAMILY, x=0.02, ha="left")
  panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
  for i, name in enumerate(names):
    _panel(panels[i // columns][i % columns], name, results, study.baseline)
  for i in range(len(names), lines * columns):
    panels[i // columns][i % columns].set_visible(False)
  return file_of(figure, kind)


def _panel(axes: Axes, name: str, results: Sequence[RowResult], baseline: str) -> None:
  tidy(axes)
  metric = METRICS[name]
  scale = 100 if metric.unit == "share" else 1
  for place, one in enumerate(results):
    value = one.values.get(name)
    if value is None:
      continue
    colour = SECOND if one.row.name == baseline else ACCENT
    low, high = (scale * end for end in value.interval)
    axes.plot([low, high], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot([scale * value.mean], [place], "o", color=colour, markersize=4.5)
    if one.row.name == baseline:
      axes.axvline(scale * value.mean, color=colour, linewidth=0.8, linestyle=(0, (4, 3)))
  axes.set_yticks(range(len(results)), [one.row.name for one in results], fontsize=BODY, color=INK, fontfamily=FAMILY)
  axes.set_ylim(len(results) - 0.5, -0.5)
  if not metric.higher_is_better:
    axes.invert_xaxis()
  unit = {"share": "%", "number": ""}.get(metric.unit, metric.unit)
  axes.set_title(metric.title, fontsize=BODY, color=INK, fontfamily=FAMILY, loc="left")
  axes.set_xlabel(unit, fontsize=BODY, color=GREY, fontfamily=FAMILY)
