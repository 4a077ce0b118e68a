"""The short form of benchmarks/faults.py: a few faults of each kind."""

import numpy as np
import pytest

from benchmarks import faults, killed_runs

MOST = {"kill -9 while checkpoints are saved": 1, "a damaged file of decoded images": 100}


@pytest.mark.parametrize(
  "name", [name for name in faults.FAULTS if "kill" not in name and name not in killed_runs.RUNS]
)
def test_no_fault_is_wrong_silently(name, monkeypatch, capfd):
  monkeypatch.setattr(faults, "_WIDTH", 3000)
  found = faults.tried(name, 20.0, seed=1, most=MOST.get(name, 4))
  assert sum(found.values()) and not found["wrong"], found
  assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", killed_runs.RUNS)
def test_a_killed_run_ends_in_the_same_bits(name):
  found = faults.tried(name, 300.0, seed=1, most=2)
  assert sum(found.values()) and not found["wrong"], found


@pytest.mark.parametrize(
  "change",
  [
    lambda arrays, losses, metrics: arrays["model"].__setitem__("w", np.float32([1, 2.0000002])),
    lambda arrays, losses, metrics: arrays["training"].__setitem__("step", np.int32(19)),
    lambda arrays, losses, metrics: losses.pop(),
    lambda arrays, losses, metrics: metrics.__setitem__("path_accuracy", 0.5),
  ],
)
def test_ends_that_differ_in_a_bit_are_not_the_same(change):
  ends, others = (
    (
      {"model": {"w": np.float32([1, 2])}, "training": {"step": np.int32(18)}},
      [(18, "train", 0.1)],
      {"path_accuracy": 1},
    )
    for _ in range(2)
  )
  assert not killed_runs.unequal(ends, others)
  change(*others)
  assert killed_runs.unequal(ends, others)


def test_a_wrong_number_would_be_seen(tmp_path, monkeypatch):
  faults.save(tmp_path, [3])
  assert faults.outcome(tmp_path, 3) == "unharmed"
  monkeypatch.setattr(faults, "is_right", lambda *_: False)
  assert faults.outcome(tmp_path, 3) == "wrong"
