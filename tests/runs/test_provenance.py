"""The sessions of a run: what was started, with which programs, and how long it took."""

import json

import pytest

from hierjax import __version__
from hierjax.runs import provenance
from hierjax.runs.folder import RunFolder
from hierjax.runs.provenance import commit, read_sessions, session, versions


def test_each_start_is_a_session_with_its_time(tmp_path, monkeypatch):
  folder = RunFolder(tmp_path)
  for step in (0, 7):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/hierjax", "train", "quick start", f"--config.epochs={step}"])
    with session(folder, step):
      assert "seconds" not in read_sessions(folder)[-1]  # as a crash would leave it
  first, second = read_sessions(folder)
  assert first["command"] == "hierjax train 'quick start' --config.epochs=0" and second["from_step"] == 7
  assert first["versions"] == versions() and versions()["hierjax"] == __version__
  assert 0 <= first["seconds"] < 60 and first["started"].endswith("+00:00")


def test_a_session_that_fails_has_its_time_too(tmp_path):
  with pytest.raises(ZeroDivisionError), session(RunFolder(tmp_path), 0):
    1 / 0  # noqa: B018
  assert "seconds" in read_sessions(RunFolder(tmp_path))[0]


def test_the_program_is_named_as_it_is_started(monkeypatch):
  for program, words in (("/x/hierjax/__main__.py", "hierjax"), ("train.py", "python train.py")):
    monkeypatch.setattr("sys.argv", [program, "--config=a"])
    assert provenance.command_line() == f"{words} --config=a"


def test_damaged_sessions_are_left_out(tmp_path):
  folder, file = RunFolder(tmp_path), tmp_path / provenance.FILE
  assert read_sessions(folder) == []
  with session(folder, 0):
    pass
  good = json.loads(file.read_text())["sessions"][0]
  bad = [3, {}, good | {"command": 3}, good | {"versions": {"jax": 1}}, good | {"seconds": "long"}]
  file.write_text(json.dumps({"sessions": [*bad, good]}))
  assert read_sessions(folder) == [good]
  for text in ("{", "[]", '{"sessions": 3}'):
    file.write_text(text)
    assert read_sessions(folder) == []


def test_the_commit_is_one_of_git_or_not_known():
  found = commit().removesuffix("-dirty")
  assert found == "" or (len(found) == 40 and int(found, 16) >= 0)
