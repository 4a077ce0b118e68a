"""The estimate of the rest of some work."""

import pytest

from hierjax.runs.estimate import Estimate, duration


@pytest.mark.parametrize(
  ("seconds", "words"),
  [(0.0, "0 seconds"), (89.0, "89 seconds"), (90.0, "2 minutes"), (3600.0, "60 minutes"), (2e5, "2 days")],
)
def test_times_in_words(seconds, words):
  assert duration(seconds) == words


def test_the_rest_is_estimated_once_from_the_counts_after_the_first(capsys):
  now = [0.0]
  work = Estimate("work", 1000, lambda: now[0])
  for seconds in (100, 100, 1, 1, 1, 1):  # two that compile, then one second for 10 units each
    now[0] += seconds
    work.count(10)
  # after 40 units, 20 of them in 2 s, 960 are left
  assert capsys.readouterr().out == "work: about 2 minutes left\n"


def test_a_short_rest_is_not_worth_a_line(capsys):
  now = [0.0]
  work = Estimate("work", 100, lambda: now[0])
  for _ in range(6):
    now[0] += 1.5
    work.count(10)
  assert capsys.readouterr().out == ""
