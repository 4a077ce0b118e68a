import math

import numpy as np
import pytest
from scipy import stats

from hierjax.errors import UserError
from hierjax.evaluation.several_runs.significance import (
  bootstrap,
  check_pairs,
  csv_rows,
  difference_table,
  differences,
  paired_t,
)

LEVELS = ("level 1", "level 2")


def test_the_t_test_is_that_of_a_textbook():
  # Differences 1, 2, 3, 6 of a hundred: mean 3, variance 14/3, so t = 3 / sqrt(14/12).
  first, second = np.array([0.31, 0.33, 0.32, 0.36]), np.array([0.30, 0.31, 0.29, 0.30])
  t, p = paired_t(first, second)
  np.testing.assert_allclose(t, 3 / math.sqrt(14 / 12), rtol=1e-9)
  # The distribution of t with 3 degrees of freedom in closed form.
  x = t / math.sqrt(3)
  np.testing.assert_allclose(p, 1 - 2 / math.pi * (x / (1 + x * x) + math.atan(x)), rtol=1e-9)
  np.testing.assert_allclose(p, stats.ttest_rel(first, second).pvalue, rtol=1e-9)


def test_differences_without_spread_have_a_p_value_too():
  same = np.array([0.25, 0.5])
  t, p = paired_t(same, same)
  assert math.isnan(t) and p == 1
  assert paired_t(same, same + 0.125) == (-math.inf, 0.0)


def test_the_bootstrap_is_near_the_normal_approximation_and_near_resampling_one_by_one():
  rng = np.random.default_rng(1)
  values = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], 2000, p=[0.02, 0.1, 0.7, 0.13, 0.05])
  low, high = bootstrap(values, np.random.default_rng(2))
  half = 1.959964 * values.std() / math.sqrt(2000)
  np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.06 * half)
  means = [rng.choice(values, 2000).mean() for _ in range(2000)]
  np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.15 * half)


def test_runs_are_paired_and_images_that_do_not_count_are_left_out():
  rng = np.random.default_rng(3)
  first, second = rng.random((3, 200, 3)) < 0.4, rng.random((3, 200, 3)) < 0.3
  counted = np.ones((200, 3), bool)
  counted[:50, 1] = False
  first[:, :50, 1] = True  # not looked at
  found = differences(first, second, counted, LEVELS)
  assert [one.name for one in found] == ["raw level 1", "raw level 2", "path"]
  assert [one.images for one in found] == [200, 150, 200]
  for i, one in enumerate(found):
    ours, theirs = (runs[:, counted[:, i], i].mean(axis=1) for runs in (first, second))
    np.testing.assert_allclose([one.first, one.second], [ours.mean(), theirs.mean()], rtol=1e-12)
    np.testing.assert_allclose([one.t, one.p], stats.ttest_rel(ours, theirs)[:], rtol=1e-9)
    assert one.interval[0] < one.first - one.second < one.interval[1]
  assert found == differences(first, second, counted, LEVELS)  # the same seed
  text = difference_table(found)
  assert "3 pairs of runs" in text and f"{100 * found[1].first:.2f}%" in text.splitlines()[3]
  assert [row[0] for row in csv_rows(found)] == ["raw level 1", "raw level 2", "path"]


def test_nothing_that_counts_is_said():
  found = differences(*np.zeros((2, 2, 3, 2), bool), counted=np.zeros((3, 2), bool), levels=LEVELS[:1])
  assert found == [] and difference_table(found).startswith("no image has a label")


def test_a_level_that_no_label_has_is_left_out():
  wrong, counted = np.zeros((2, 4, 2), bool), np.array([[True, False]] * 4)
  assert [one.name for one in differences(wrong, wrong, counted, LEVELS[:1])] == ["raw level 1"]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 2), (0, 2)])
def test_sets_that_cannot_be_paired_are_refused(first, second):
  with pytest.raises(UserError, match=f"--against: {first} against {second} runs; .* as many of both, 2 or more"):
    check_pairs(first, second)
