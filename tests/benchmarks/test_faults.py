"""The short form of benchmarks/faults.py: a few faults of each kind."""

import numpy as np
import pytest

from benchmarks import differing_processes, faults, killed_runs

# Those that start processes, or compile for a while.
LONG = {*differing_processes.DIFFERING, *killed_runs.RUNS, "numbers on images that are not the run's"}
LONG |= {name for name in faults.FAULTS if "kill" in name or "megapixels" in name}
MOST = {
  "a full disk that gets room again": 8,
  "a damaged file of decoded images": 100,
  "a large number in a foreign config.json": 20,
  "a value of another kind in eval/test.json": 100,
  "texts of a CSV file that may be formulas": 100,
  "a damaged file of an export": 20,
  "a foreign class in features.json": 20,
  "an image that has changed since the start": 2,
}


@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name not in LONG])
def test_no_fault_is_wrong_silently(name, monkeypatch, capfd, without_shape_checks):
  monkeypatch.setattr(faults, "_WIDTH", 3000)
  found = faults.tried(name, 20.0, seed=1, most=MOST.get(name, 4))
  if name == "a full disk that gets room again":
    if not found:
      pytest.skip("file systems cannot be mounted here")
    assert found["noticed"]
  assert sum(found.values()) and not found["wrong"], found
  assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LONG))
def test_no_long_fault_is_wrong_silently(name):
  found = faults.tried(name, 300.0, seed=1, most=2)
  assert sum(found.values()) and not found["wrong"], found


@pytest.mark.parametrize(
  ("name", "where", "what", "instead"),
  [
    ("texts of a CSV file that may be formulas", "hierjax.runs.folder", "_cell", lambda value: value),
    ("a foreign class in features.json", "hierjax.data.sources.tfds", "_check_features", lambda folder: None),
    ("a value of another kind in eval/test.json", "hierjax.runs.folder", "is_evaluation", lambda found: True),
  ],
)
def test_a_fault_that_nothing_notices_is_wrong(name, where, what, instead, monkeypatch, without_shape_checks):
  monkeypatch.setattr(f"{where}.{what}", instead)
  assert faults.tried(name, 20.0, seed=1, most=MOST.get(name, 8))["wrong"]


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
