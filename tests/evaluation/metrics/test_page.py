"""docs/reference/metrics.md has the table of metrics as it is in the code."""

from pathlib import Path

from hierjax.evaluation.metrics.table import METRICS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def row(name, metric):
  cells = (f"`{name}`", metric.title, metric.formula, metric.reference, "more" if metric.higher_is_better else "less")
  return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_the_page_has_every_metric_of_the_table():
  rows = [row(name, metric) for name, metric in METRICS.items()]
  written = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
  assert written[: len(rows)] == rows, "the table of the page should be:\n" + "\n".join(rows)
