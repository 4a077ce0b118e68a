from hierjax.evaluation.console import print_metrics
from hierjax.runs.folder import RunFolder


def test_slashes_in_names_are_no_levels(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr("hierjax.evaluation.console.accuracy_table", lambda metrics, every: "")
  example = {"image": "1.jpg", "label": r"outdoor/\/a\/abbey; in\\out", "predicted": "outdoor/sea"}
  metrics = {"views": 1, "num_examples": 1, "split": "test", "step": 1, "examples": [example]}
  monkeypatch.setattr(RunFolder, "config", lambda self: {"data": {"name": "folder"}})
  print_metrics(RunFolder(tmp_path), metrics)
  assert "outdoor > /a/abbey; in\\out  outdoor > sea" in capsys.readouterr().out
