"""The predicted minutes against hand arithmetic, the schedules against the papers', and the page that has the table."""

import math
import re
from pathlib import Path

import pytest

from benchmarks.study_minutes import HEAD, IMAGES, PAPERS, Assumed, Predicted, heading, lines, predicted
from hierjax.config_files import load_config
from hierjax.errors import UserError
from hierjax.study.plan import Row, Study, load_study
from hierjax.training.schedule import RunLength

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "studies.md"


def study(*rows, **changes):
  return Study(**({"title": "T", "rows": rows, "baseline": rows[0].name, "seeds": (0, 1)} | changes))


def test_a_row_is_that_of_its_products():
  """A flat head of 100 leaves on 32 features, of 16 of 96 images, in 2 epochs: x W forwards, x^T dy backwards."""
  row = Row("flat", "features:flat,smoke")
  found = predicted(study(row), row, Assumed(reached=0.5))
  flop = 2 * 2 * 16 * 32 * 100
  assert found == Predicted("flat", 2, 12, 16, flop, flop / (495e12 * 0.5))
  half = predicted(study(row, settings=("dtype=bfloat16", "most_steps=5")), row, Assumed())
  assert (half.steps, half.seconds) == (5, pytest.approx(flop / (989e12 * 0.2)))


def test_tuned_values_are_runs_of_the_first_seed():
  row = Row("flat", "features:flat,smoke", tuned={"optim.lr": ("1", "2", "3"), "epochs": ("2.0", "4.0")})
  found = predicted(study(row), row, Assumed())
  assert (found.runs, found.steps) == (6 + 1, 12)


def test_the_lines_have_minutes_and_pieces_of_a_run_and_of_all():
  rows = [Predicted("a", 3, 6_000, 10, 2e12, 0.1), Predicted("b", 1, 600, 10, 1e12, 0.05)]
  assert [row.minutes for row in rows] == pytest.approx([10, 0.5])
  assert lines("s", rows, Assumed(piece=9)) == [
    "| `s`, a | 3 | 6,000 | 60,000 | 2,000.0 | 12.0 | 100 | 10.0 | 2 |",
    "| `s`, b | 1 | 600 | 6,000 | 1,000.0 | 0.6 | 200 | 0.5 | 1 |",
    "| `s`, all runs | 4 |  |  |  | 36.6 |  | 30.5 | 4 |",
  ]


def test_a_set_of_an_unknown_size_is_refused():
  row = Row("flat", "flat_cifar100:cnn7", ("data.name=mnist",))
  with pytest.raises(UserError, match=r"how many training images 'mnist' has .* add it to IMAGES"):
    predicted(study(row), row, Assumed())


@pytest.mark.parametrize(
  ("name", "steps"),
  [
    ("guo_coarse", {120_000, 70_000}),
    ("guo_cnn7", {120_000}),
    ("guo_wrn", {70_000}),
    ("guo_wider", {70_000}),
    ("dutt_resnet164", {64_000}),
  ],
)
def test_the_studies_have_the_steps_of_the_papers(name, steps):
  configs = [load_config(row.config) for row in load_study(name).rows]
  lengths = [RunLength.of(IMAGES["cifar100"] / c["batch_size"], c["epochs"]).total_steps for c in configs]
  assert set(lengths) == steps and {c["data"]["name"] for c in configs} == {"cifar100"}


def test_the_table_of_the_page_is_arithmetic_of_its_own_numbers():
  """In it are all rows of the studies with the papers' schedules, and their time follows from their FLOP."""
  text = PAGE.read_text(encoding="utf-8")
  assert heading(Assumed()) in " ".join(text.split()) and " | ".join(HEAD) in text
  found = [line.strip("| ").split(" | ") for line in re.findall(r"^\| `\w+`, [^`\n]*$", text, re.MULTILINE)]
  studies = {name: load_study(name) for name in PAPERS}
  rows = [f"`{name}`, {row}" for name, one in studies.items() for row in (*(r.name for r in one.rows), "all runs")]
  assert [line[0] for line in found] == rows
  for name, runs, steps, images, gflop, pflop, rate, minutes, pieces in found:
    if "all runs" in name:
      continue
    total = number(steps) * number(gflop) * 1e9
    predicted_minutes = total / (495e12 * 0.2) / 60
    assert number(runs) == len(studies[name.split("`")[1]].seeds)
    assert number(pflop) == pytest.approx(total / 1e15, rel=1e-3, abs=0.06)
    assert number(minutes) == pytest.approx(predicted_minutes, rel=1e-3, abs=0.06)
    assert number(rate) == pytest.approx(number(images) / (60 * predicted_minutes), rel=1e-3)
    assert number(pieces) == math.ceil(predicted_minutes / 9)


def number(text):
  return float(text.replace(",", ""))


@pytest.mark.slow
def test_the_page_has_the_lines_that_are_printed():
  text = PAGE.read_text(encoding="utf-8")
  for name in PAPERS:
    one = load_study(name)
    assert "\n".join(lines(name, [predicted(one, row, Assumed()) for row in one.rows], Assumed())) in text, name
