"""The table of a study against the formulas of its numbers."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from hierjax.errors import UserError
from hierjax.runs.folder import RunFolder
from hierjax.study.measurement import Finished
from hierjax.study.picture import picture
from hierjax.study.plan import EvaluatedRow, Row, Study
from hierjax.study.results import HEADER, csv_rows, markdown, results_of

ROWS = (Row("flat", "photos:flat"), Row("a|b", "photos", ("head.width=8",)))
ABOUT = {
  "devices": "cpu",
  "commit": "abc",
  "versions": {},
  "minutes": 2.0,
  "split": "test",
  "images": 50,
  "weights": 1234,
}


def study(**changes):
  return Study(**({"title": "T", "rows": ROWS, "baseline": "flat", "seeds": (0, 1, 2)} | changes))


def finished(metrics, samples, checksum="same"):
  samples = {name: np.asarray(drawn) for name, drawn in samples.items()}
  return Finished(RunFolder("run"), ("optim.lr=1",), 0.5, metrics, samples, {**ABOUT, "checksum": checksum})


def runs(values, samples, **of):
  pairs = zip(values, samples, strict=True)
  return [finished({"path_accuracy": v, "ece": 0.1}, {"path_accuracy": s, "ece": s}, **of) for v, s in pairs]


def test_means_deviations_and_tests_are_those_of_the_seeds():
  rng = np.random.default_rng(0)
  drawn = rng.normal(0.5, 0.1, 1000)
  flat, other = (0.5, 0.52, 0.57), (0.6, 0.61, 0.69)
  _, found = results_of(study(), [(ROWS[0], runs(flat, [drawn] * 3)), (ROWS[1], runs(other, [drawn + 0.1] * 3))])
  value = found.values["path_accuracy"]
  assert value.mean == pytest.approx(np.mean(other)) and value.deviation == pytest.approx(np.std(other, ddof=1))
  np.testing.assert_allclose(value.interval, np.quantile(drawn + 0.1, [0.025, 0.975]))
  assert value.difference.mean == pytest.approx(np.mean(other) - np.mean(flat))
  t, p = stats.ttest_rel(other, flat)
  assert (value.difference.t, value.difference.p) == pytest.approx((t, p))
  assert found.minutes == 2.0


def test_what_is_hard_for_both_does_not_widen_the_interval_of_their_difference_and_what_seeds_change_does():
  drawn = np.random.default_rng(0).normal(0.5, 0.1, 1000)  # the same images in each sample
  same = [(ROWS[0], runs((0.5,) * 3, [drawn] * 3)), (ROWS[1], runs((0.6,) * 3, [drawn + 0.1] * 3))]
  np.testing.assert_allclose(results_of(study(), same)[1].values["ece"].difference.interval, (0.1, 0.1))
  moved = [drawn, drawn + 0.1, drawn + 0.2]
  seeds = [same[0], (ROWS[1], runs((0.5, 0.6, 0.7), moved))]
  low, high = results_of(study(), seeds)[1].values["ece"].difference.interval
  # The mean of 3 draws of 0, 0.1 and 0.2, with replacement, has these quantiles.
  means = np.sort([np.mean([a, b, c]) for a in (0, 0.1, 0.2) for b in (0, 0.1, 0.2) for c in (0, 0.1, 0.2)])
  np.testing.assert_allclose((low, high), (means[0], means[-1]), atol=0.034)
  assert high - low > 0.12


def test_rows_of_the_same_runs_have_the_same_seeds_in_each_sample():
  of = EvaluatedRow("of flat", "flat", minimise="edges", alpha=1.0, calibrated=False)
  samples = [np.full(1000, value) for value in (0.5, 0.6, 0.9)]  # which the seeds change, and decoding does not
  _, found = results_of(study(rows=(ROWS[0], of)), [(one, runs((0.5, 0.6, 0.9), samples)) for one in (ROWS[0], of)])
  assert found.values["path_accuracy"].difference.interval == (0, 0)
  assert found.source == "of flat, minimise=edges, alpha=1.0, temperature=1"


def test_the_baseline_has_no_difference_and_a_metric_that_a_row_lacks_is_a_dash():
  other = [finished({"path_accuracy": 0.5, "ece": None}, {"path_accuracy": np.full(4, 0.5)}) for _ in range(3)]
  rows = [(ROWS[0], runs((0.5,) * 3, [np.full(4, 0.5)] * 3)), (ROWS[1], other)]
  chosen = study(metrics=("path_accuracy", "ece"), note="A note.")
  flat, found = results_of(chosen, rows)
  assert flat.values["ece"].difference is None and set(found.values) == {"path_accuracy"}
  text = markdown(chosen, [flat, found])
  assert "| flat | `photos:flat` | 50.00% ± 0.00% | 0.100 ± 0.000 | 1,234 | 2.0 |" in text
  assert r"| a\|b | `photos` | 50.00% ± 0.00% | - | 1,234 | 2.0 |" in text
  assert r"| a\|b | +0.00% (+0.00% to +0.00%) | - |" in text
  assert "A note." in text and "commit abc" in text and "- flat: optim.lr=1" in text and "50 images of test" in text
  file = io.StringIO("\n".join(",".join(map(str, line)) for line in [HEADER, *csv_rows([flat, found])]))
  lines = list(csv.DictReader(file))
  named = [(line["row"], line["metric"]) for line in lines]
  assert named == [("flat", "path_accuracy"), ("flat", "ece"), ("a|b", "path_accuracy")]
  assert lines[2]["settings"] == "head.width=8 optim.lr=1" and lines[0]["difference"] == ""
  assert picture(chosen, [flat, found]).startswith(b"\x89PNG")


def test_seeds_with_images_of_their_own_are_drawn_for_all_rows_alike():
  flat, better = ([np.full(1000, value + gain) for value in (0.2, 0.5, 0.8)] for gain in (0, 0.1))
  rows = [(ROWS[0], runs((0.2, 0.5, 0.8), flat)), (ROWS[1], runs((0.3, 0.6, 0.9), better))]
  for seeded in ((), ("data.split_seed",)):
    low, high = results_of(study(seeded=seeded), rows)[1].values["path_accuracy"].difference.interval
    assert (high - low < 1e-9) == bool(seeded)


def test_a_row_is_compared_with_the_row_that_it_names():
  drawn = np.random.default_rng(0).normal(0.5, 0.1, 1000)
  third = Row("third", "photos", against="a|b")
  of = study(rows=(*ROWS, third))
  pairs = zip(of.rows, (0.5, 0.6, 0.7), strict=True)
  found = results_of(of, [(row, runs((value,) * 3, [drawn + value] * 3)) for row, value in pairs])
  differences = [one.values["path_accuracy"].difference for one in found]
  assert differences[0] is None and [d.against for d in differences[1:]] == ["flat", "a|b"]
  assert differences[2].mean == pytest.approx(0.1) and differences[2].interval == pytest.approx((0.1, 0.1))
  assert "| third (from a\\|b) | +10.00% (+10.00% to +10.00%)" in markdown(of, found)
  assert {line[0]: line[HEADER.index("against")] for line in csv_rows(found)} == dict(
    zip(("flat", "a|b", "third"), ("", "flat", "a|b"), strict=True)
  )


def test_runs_on_other_images_and_a_missing_baseline_are_refused():
  one = runs((0.5,) * 3, [np.ones(4)] * 3)
  with pytest.raises(UserError, match="not judged on the same images"):
    results_of(study(), [(ROWS[0], one), (ROWS[1], runs((0.5,) * 3, [np.ones(4)] * 3, checksum="another"))])
  with pytest.raises(UserError, match=r"'flat'.*is not complete"):
    results_of(study(), [(ROWS[1], one)])
