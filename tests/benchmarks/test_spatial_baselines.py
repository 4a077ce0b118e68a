import functools

import jax
import numpy as np
import pytest

from benchmarks import spatial
from benchmarks.spatial_baselines import nested_scan
from hierjax.nn.layers.recurrence.cells import GATES
from hierjax.nn.layers.recurrence.spatial import DIRECTIONS
from spatial_oracle import recurrence


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "in turn"])
@pytest.mark.parametrize("products", ["plain", "by_cell", "by_row"])
def test_nested_scans_are_the_equations(cell, batched, products):
  _, x, *weights = spatial.Case(cell, 2, 3, 2).arrays(width=4)
  scan = functools.partial(nested_scan, cell=cell, directions=DIRECTIONS, batched=batched, products=products)
  x64, *weights64 = (a.astype(float) for a in (x, *weights))
  expected = recurrence(x64, None, *weights64, cell=cell, directions=DIRECTIONS)
  np.testing.assert_allclose(jax.jit(scan)(x, *weights), expected, atol=1e-5)


@pytest.mark.parametrize("case", [spatial.Case("lstm", 2, 3, 5), spatial.Case("srn", 4, 1, 2)], ids=str)
def test_flops_are_those_of_the_products_that_there_are(case):
  """With a width of 7: a product is a multiplication and an addition, and two more products are its gradient."""
  count = 0
  for r in range(case.rows):
    for q in range(case.columns):
      for _ in range((r > 0) + (q > 0) + 1):
        count += 3 * 2 * case.batch * 7 * 7 * (4 if case.cell == "lstm" else 1)
  assert case.flops(7) == len(DIRECTIONS) * count


def test_cases_are_read_as_they_are_written():
  for case in (*spatial.CASES, *spatial.DIAGONAL_CASES):
    assert spatial.Case.parse(str(case)) == case


@pytest.mark.parametrize("text", ["lstm:6x6", "gru:6x6:1", "lstm:6:1", "lstm:6x0:1", "lstm:6xa:1"])
def test_a_wrong_case_is_refused_before_any_is_measured(text, monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["spatial", "--cases", "lstm:6x6:32", text])
  with pytest.raises(SystemExit):
    spatial.arguments()
  assert f"--cases: {text}: give CELL:HEIGHTxWIDTH:BATCH, with CELL one of srn, lstm" in capsys.readouterr().err
