"""The plan's arithmetic, and that its page has the tables that it prints."""

from pathlib import Path

import pytest

from benchmarks.plan import (
  CHIPS,
  Host,
  Job,
  all_reduced,
  best_interval,
  compute_seconds,
  goodput,
  hosts,
  kept,
  moved,
  tables,
)

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "planning.md"


def test_the_page_has_the_tables():
  text = PAGE.read_text()
  for title, lines in tables().items():
    assert "\n".join(lines) in text, title


def test_the_bytes_of_a_small_grid():
  """4 chips, 2 x 2; 10 images a chip, a backbone of 100 weights, features of 3 numbers, 8 nodes."""
  job = Job(chips=4, images=10, backbone=100, width=3, model=2)
  assert job.output_bytes(8) == 4 * (3 * 8 + 8) == 128 and job.weight_bytes(8) == 528
  assert all_reduced(100, 4) == 150
  sent = moved(job, 8)
  assert sent["whole"] == sent["fsdp"] == 1.5 * 528
  features = 4 * 3 * 20  # of the 20 images of a row, of which a chip has half; and the same back
  assert sent["nodes"] == 1.5 * 400 + features + 1.0 * 64
  assert kept(job, 8) == {
    "whole": 3 * 528 + 2 * 320,
    "fsdp": 3 * 132 + 2 * 528 + 2 * 320,
    "nodes": 3 * (400 + 64) + 2 * 4 * 20 * 4,
  }


def test_the_input_of_a_step_is_bytes_of_images():
  head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in hosts(Job(images=10), Host()))
  found = {row[head.index("MB a step, a chip")] for row in rows}
  assert found == {f"{10 * 256 * 256 * 3 / 1e6:.1f}"} == {"2.0"}


def test_the_time_is_that_of_the_products():
  chip = CHIPS["TPU v5e"]
  few, many = (compute_seconds(Job(images=8), nodes, chip) for nodes in (0, 1000))
  assert few == pytest.approx(8 * 24.5e9 / (197e12 * chip.reached))
  assert many - few == pytest.approx(8 * 6 * 2048 * 1000 / (197e12 * chip.reached))


@pytest.mark.parametrize("lost", [0.5, 3.0])
def test_the_best_interval_loses_least(lost):
  best = best_interval(0.25, lost)
  assert goodput(0.25, best, lost, 0.0) >= max(goodput(0.25, best * f, lost, 0.0) for f in (0.9, 1.1))
  assert goodput(0.0, 10.0, lost, 2.0) == pytest.approx(1 / (1 + lost / 1440 * 7))
