"""What the processes of a run compare before it starts; the first of two is this one, and tells what the other says."""

import json

import jax
import pytest

from hierjax.errors import UserError
from hierjax.runs import processes
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop import start


@pytest.fixture
def other_process(monkeypatch):
  """Makes this process the first of two, which agree but for some values, and for whether they fail."""

  def make(fails=False, **differing):
    def gathered(data):
      if isinstance(data, bool):
        return [data, data or fails]
      return [data, data | {k: v for k, v in differing.items() if k in data} if isinstance(data, dict) else data]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for module in (processes, start):
      monkeypatch.setattr(module, "gathered", gathered)

  return make


@pytest.fixture
def claimed(small_config, tmp_path):
  """Returns a function that claims a folder for a run, and returns it."""
  run = Run.from_config(config := small_config(data=dict(validation=0.25, calibration=0.25)))

  def claim():
    folder = RunFolder(tmp_path / "run")
    start.claim(folder, config, run, run.source("train"))
    folder.close()
    return folder

  return claim


def test_all_splits_are_compared(claimed, other_process):
  for split in ("train", "validation", "calibration", "test"):
    other_process(**{f"{split} images": "other"})
    with pytest.raises(UserError, match=rf"(?s)process 1 differs from process 0.*  {split} images: '.*'other' on it"):
      claimed()
  other_process()
  kept = json.loads((claimed().path / "data.json").read_text())
  assert set(kept["judged_on"]) == {"validation", "calibration", "test"}


def test_each_split_is_read_once_for_it(claimed, other_process, monkeypatch):
  checksum, read = start.data_checksum, []
  monkeypatch.setattr(start, "data_checksum", lambda images, every: read.append(images) or checksum(images, every))
  other_process()
  claimed()
  assert len(read) == 4


def test_a_process_that_cannot_read_its_images_ends_all(claimed, other_process):
  other_process(fails=True)
  with pytest.raises(UserError, match="process 1 cannot use the folder or its images"):
    claimed()


@pytest.mark.parametrize(
  ("own", "all_commits", "compared"),
  [("a", ["a", "b"], "a"), ("b", ["a", "b"], "b"), ("", ["", "b"], "b"), ("b", ["", "b"], "b"), ("", ["", ""], "")],
)
def test_versions_and_commits_are_compared_and_an_unknown_commit_is_any(
  own, all_commits, compared, monkeypatch, tmp_path
):
  said = {}
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(start, "commit", lambda: own)
  monkeypatch.setattr(start, "gathered", lambda data: all_commits)
  monkeypatch.setattr(start, "agree", said.update)
  start.check_processes({"seed": 0}, RunFolder(tmp_path))
  assert said["source commit"] == compared
  assert {"jax", "jaxlib", "orbax-checkpoint", "hierjax", "python"} <= said["versions"].keys()
