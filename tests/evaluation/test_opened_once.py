"""A set is read once in the life of a run, and its evaluation is compiled once: what was made is kept, and shared."""

import collections
import dataclasses
import threading

import numpy as np
import pytest

from hierjax.data.sources import folders
from hierjax.data.sources.shapes import write_folders
from hierjax.evaluation import evaluate
from hierjax.runs.run import Run, judged_split
from hierjax.training.loop import run as loop


@pytest.fixture
def reads(monkeypatch, tmp_path):
  """How often each file was decoded."""
  found, read, lock = collections.Counter(), folders.read_image, threading.Lock()

  def counted(image, resize, fit, name, **named):
    with lock:
      found[name] += 1
    return read(image, resize, fit, name, **named)

  monkeypatch.setattr(folders, "read_image", counted)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return found


@pytest.fixture
def config(small_config, tmp_path):
  for split, count in (("train", 93), ("test", 31)):
    write_folders(tmp_path / "set" / split, count, side=16)
  data = dict(name="folder", root=str(tmp_path / "set"), resize=16, validation=0.3)
  return small_config(tree=dict(source="images"), data=data, neck=dict(name="none"), epochs=1.0)


def test_training_and_its_evaluation_decode_every_image_once_and_trace_one_step(config, reads, tmp_path, monkeypatch):
  evaluate._kept_eval_step.cache_clear()
  traces, evaluate_batch = [], evaluate.evaluate_batch
  monkeypatch.setattr(evaluate, "evaluate_batch", lambda *a: traces.append(1) or evaluate_batch(*a))
  assert loop.train_and_evaluate(config, str(tmp_path / "run"))["num_examples"] == 31
  assert len(reads) == 124 and set(reads.values()) == {1}
  assert len(traces) == 1  # of validation and of the test images


def test_a_run_and_what_is_made_of_it_open_a_split_once(config, reads):
  run = Run.from_config(config | {"tree": {**config["tree"], "levels": 2}})
  assert judged_split(run) == "test" and len(reads) == 31
  whole = dataclasses.replace(run, tree=run.full_tree())
  sources = [made.source(split) for made in (run, whole) for split in ("test", "train", "validation")]
  assert len(reads) == 124 and set(reads.values()) == {1}
  assert np.shares_memory(sources[1].source.images, sources[2].source.images)
  assert sources[0].nodes.max() < run.tree.num_nodes <= sources[3].nodes.max(), "labels are of the tree that asks"
