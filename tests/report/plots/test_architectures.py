"""The picture of several sweeps of alpha: Figures 3 and 4 of Dutt et al."""

import csv

import numpy as np
import pytest

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.evaluation.several_runs.ensembles import Errors
from hierjax.report.plots.adaptation import AlphaSweep, draw_alpha_sweep
from hierjax.report.plots.architectures import HEADER, read_architectures
from hierjax.runs.folder import RunFolder

ALPHAS = (0.0, 0.5, 1.0)


def sweep(folder, rng, levels=("coarse", "fine")):
  """Writes the sweep of three runs and their ensembles; returns the errors, `f[subset alpha what]`."""
  subsets = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
  wrong = rng.integers(0, 100, (len(subsets), len(ALPHAS), len(levels) + 1))
  counted = np.full(len(levels) + 1, 100)
  errors = Errors(ALPHAS, subsets, wrong, counted, levels)
  draw_alpha_sweep(RunFolder(folder), AlphaSweep(folder.name, "test", 100, errors, None, None))
  return wrong / 100


def test_a_line_is_the_mean_accuracy_of_the_runs_in_a_band_of_their_deviation(tmp_path, rng, capsys):
  errors = {name: sweep(tmp_path / name, rng) for name in ("merge0", "merge2")}
  folders = [str(tmp_path / name) for name in errors]
  for size, rows in ((1, slice(0, 3)), (2, slice(3, 6))):
    found = read_architectures([RunFolder(folder) for folder in folders], size)
    for one in found:
      accuracy = 1 - errors[one.name][rows]
      assert (
        one.alphas.tolist() == list(ALPHAS)
        and one.subsets == 3
        and list(one.accuracy) == ["raw coarse", "raw fine", "path"]
      )
      for i, what in enumerate(one.accuracy):
        np.testing.assert_allclose(one.accuracy[what], accuracy[..., i].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(one.deviation[what], accuracy[..., i].std(axis=0, ddof=1), atol=1e-6)
  assert main(["plot", "adaptation", *folders, "--out", str(tmp_path / "out")]) == 0
  assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "pictures" / "architectures.png")
  header, *table = csv.reader((tmp_path / "out" / "pictures" / "architectures.csv").read_text().splitlines())
  assert tuple(header) == HEADER and len(table) == 2 * 3 * len(ALPHAS)
  single = next(row for row in table if row[0] == "merge2" and row[4:6] == ["0.5", "path"])
  assert float(single[6]) == pytest.approx(1 - errors["merge2"][:3, 1, 2].mean(), abs=1e-6)


def test_what_is_no_sweep_or_another_one_is_refused(tmp_path, rng):
  sweep(tmp_path / "a", rng)
  sweep(tmp_path / "b", rng, levels=("coarse", "middle", "fine"))
  one, other, none = (RunFolder(tmp_path / name) for name in "abc")
  with pytest.raises(UserError, match=r"c/pictures/adaptation\.csv: there is no sweep"):
    read_architectures([one, none])
  with pytest.raises(UserError, match="have sweeps of other images, levels or alphas"):
    read_architectures([one, other])
  with pytest.raises(UserError, match="has no ensembles of 4 on 'test'; it has those of 1, 2, 3"):
    read_architectures([one], 4)
  file = one.path / "pictures" / "adaptation.csv"
  file.write_text(file.read_text().replace("0,raw coarse,", "0,raw coarse,x", 1))
  with pytest.raises(UserError, match="is damaged"):
    read_architectures([one])
