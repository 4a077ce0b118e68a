"""The short form of benchmarks/faults.py: a few faults of each kind."""

import pytest

from benchmarks import faults

MOST = {"kill -9 while checkpoints are saved": 1, "a damaged file of decoded images": 100}


@pytest.mark.parametrize("name", [name for name in faults.FAULTS if "kill" not in name])
def test_no_fault_is_wrong_silently(name, monkeypatch, capfd):
  monkeypatch.setattr(faults, "_WIDTH", 3000)
  found = faults.tried(name, 20.0, seed=1, most=MOST.get(name, 4))
  assert sum(found.values()) and not found["wrong"], found
  assert "Traceback" not in capfd.readouterr().err


def test_a_wrong_number_would_be_seen(tmp_path, monkeypatch):
  faults.save(tmp_path, [3])
  assert faults.outcome(tmp_path, 3) == "unharmed"
  monkeypatch.setattr(faults, "is_right", lambda *_: False)
  assert faults.outcome(tmp_path, 3) == "wrong"
