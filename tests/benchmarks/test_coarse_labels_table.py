"""The grid of coarse labels, for one pair: S_fine, pseudo-labels, both again, and a table that needs no training."""

from benchmarks import coarse_labels_table
from benchmarks.coarse_labels_table import main


def test_one_pair_end_to_end(tmp_path, capsys, monkeypatch):
  command = ["--pairs", "f20c10", "--heads", "flat", "--arms", "fine", "pseudo", "--words", "smoke"]
  command += ["--workdir", str(tmp_path / "runs"), "--picture", str(tmp_path / "figure8.png")]
  main(command)
  *runs, header, _, row = capsys.readouterr().out.splitlines()
  assert [run.split(":")[0] for run in runs] == ["flat-f20-fine-seed0", "flat-f20c10-pseudo-seed0"]
  cells = dict(zip(header.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
  assert (cells["fine"], cells["coarse"], cells["seeds"]) == ("20%", "10%", "1")
  assert runs[0].startswith(f"flat-f20-fine-seed0: {cells['S_fine']}%")
  assert 1 < float(cells["right pseudo-labels"]) < 100
  assert (tmp_path / "figure8.png").read_bytes().startswith(b"\x89PNG")

  monkeypatch.delattr(coarse_labels_table.loop, "train_and_evaluate")
  main(command)
  assert capsys.readouterr().out.splitlines() == [header, _, row], "what is finished is not run again"
