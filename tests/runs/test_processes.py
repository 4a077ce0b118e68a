"""What the processes of a run compare with each other."""

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.runs import processes
from hierjax.runs.processes import agree, check_same, check_shared, gathered


@pytest.fixture
def two(monkeypatch):
  """Makes this process the first of two; the other one says what it is given."""

  def make(other):
    def allgather(x):
      text = np.frombuffer(processes.json.dumps(other, sort_keys=True).encode(), np.uint8)
      if x.ndim == 0:
        return np.array([x, len(text)])
      padded = np.zeros(len(x), np.uint8)
      padded[: len(text)] = text
      return np.stack([x, padded])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", allgather)

  return make


def test_data_of_any_length_are_gathered(two):
  assert gathered({"a": 1}) == [{"a": 1}]
  for other in ("", "x" * 1000, {"b": [1, None]}):
    two(other)
    assert gathered("mine") == ["mine", other]


def test_processes_with_other_values_are_named_with_the_keys(two):
  two({"config": {"seed": 1, "optim": {"lr": 0.1}}, "versions": {"jax": "1"}})
  with pytest.raises(UserError) as error:
    agree({"config": {"seed": 0, "optim": {"lr": 0.1}}, "versions": {"jax": "2"}})
  assert str(error.value).splitlines()[1:] == [
    "  config.seed: 0 on process 0, 1 on it",
    "  versions.jax: '2' on process 0, '1' on it",
  ]
  assert "process 1 differs from process 0" in str(error.value)


def test_only_equal_data_pass():
  same = {f"k{i}": i for i in range(9)}
  check_same([same, dict(same), dict(same)])
  with pytest.raises(UserError, match=r"(?s)process 2 differs.*\(absent\).*and 4 more"):
    check_same([same, dict(same), {}])


def test_a_folder_that_another_process_does_not_see_is_refused(two, tmp_path, monkeypatch):
  check_shared(tmp_path)
  monkeypatch.setattr(processes, "_PATIENCE_S", 0.1)
  two(False)
  with pytest.raises(UserError, match=r"process 1 does not see the folder .*--workdir must lie on a disk"):
    check_shared(tmp_path)
