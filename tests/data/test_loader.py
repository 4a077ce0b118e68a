"""Batches are pure functions of their number: whatever resumes them, shares them out or reads them."""

import threading
from itertools import islice

import jax
import numpy as np
import pytest

from hierjax.data.config import DataConfig
from hierjax.data.images import decode
from hierjax.data.images.read_image import BadImageError
from hierjax.data.loader import LabelledImages, ProcessRows, TrainSteps, eval_batches, train_batches
from hierjax.data.source import ArraySource
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN

N = 23
ENDS = np.array([3, 4, 5, 6, 2] * 5, np.int32)[:N, None]
CONFIG = DataConfig(threads=2)
ROWS = ProcessRows(6)


@pytest.fixture
def source():
  images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 2, 2, 3)).copy()
  return ArraySource(images, ENDS, "numbers", bad={})


def stream(source, tree, count=8, config=CONFIG, seed=1, start=0, rows=ROWS, short_labels="unknown"):
  images = LabelledImages(source, tree, short_labels)
  return list(train_batches(images, config, rows, TrainSteps(seed, count, start)))


def numbers(batches):
  return np.concatenate([batch.images[:, 0, 0, 0] for batch in batches])


def assert_equal(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_every_example_once_an_epoch_and_batches_run_on(source, toy_tree):
  batches = stream(source, toy_tree, count=N)
  seen = numbers(batches).reshape(6, N)
  np.testing.assert_array_equal(np.sort(seen, axis=1), np.tile(np.arange(N), (6, 1)))
  assert len(np.unique(seen, axis=0)) == 6, "every epoch has an order of its own"
  draws = np.concatenate([batch.draw for batch in batches])
  np.testing.assert_array_equal(draws[:, 0], np.repeat(np.arange(6), N))
  np.testing.assert_array_equal(draws[:, 1], seen.reshape(-1))
  for batch in batches:
    assert batch.images.dtype == np.uint8 and batch.mask.dtype == np.float32 and batch.mask.all()
    np.testing.assert_array_equal(batch.paths, toy_tree.encode(ENDS[batch.images[:, 0, 0, 0]]))


@pytest.mark.parametrize("balanced", [False, True])
def test_going_on_from_a_step_is_the_tail_of_the_stream(source, toy_tree, balanced):
  config = DataConfig(threads=3, balanced=balanced)
  whole = stream(source, toy_tree, config=config)
  for start in (0, 1, 5, 8):
    assert_equal(stream(source, toy_tree, 8 - start, config, start=start), whole[start:])


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_batches_of_one(source, toy_tree, count):
  for make in (
    lambda **p: stream(source, toy_tree, rows=ProcessRows(6, **p)),
    lambda **p: evaluation(source, toy_tree, 6, **p),
  ):
    parts = [make(process_index=i, process_count=count) for i in range(count)]
    joined = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *batch) for batch in zip(*parts, strict=True)]
    assert_equal(joined, make())


def test_the_seed_alone_chooses_the_order(source, toy_tree):
  assert_equal(
    stream(source, toy_tree, config=DataConfig(threads=1)), stream(source, toy_tree, config=DataConfig(threads=4))
  )
  assert (numbers(stream(source, toy_tree, seed=2)) != numbers(stream(source, toy_tree))).any()


def test_a_batch_larger_than_the_set_spans_epochs(source, toy_tree):
  (batch,) = stream(source, toy_tree, count=1, rows=ProcessRows(3 * N))
  np.testing.assert_array_equal(np.sort(batch.images[:, 0, 0, 0].reshape(3, N), axis=1), np.tile(np.arange(N), (3, 1)))


def test_balanced_draws_every_end_node_equally_often(toy_tree):
  ends = np.repeat(np.array([3, 4, 6], np.int32), [1, 4, 55])[:, None]
  source = ArraySource(np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3), ends)
  batches = stream(source, toy_tree, 300, DataConfig(threads=1, balanced=True))
  seen = numbers(batches)
  for epoch in seen.reshape(-1, 60):
    assert np.bincount(ends[epoch, 0], minlength=7)[[3, 4, 6]].tolist() == [20, 20, 20]
  counts = np.bincount(seen, minlength=60)
  assert counts[0] == 600 and abs(counts[1:5] - 150).max() < 50 and counts[5:].min() > 0
  draws = np.concatenate([batch.draw for batch in batches])
  assert len(np.unique(draws, axis=0)) == len(draws), "an image that comes twice is augmented twice"


def evaluation(source, tree, batch_size, config=CONFIG, **process):
  return list(eval_batches(LabelledImages(source, tree), config, ProcessRows(batch_size, **process)))


@pytest.mark.parametrize("batch_size", [1, 6, 23, 40])
def test_evaluation_has_every_example_once_in_order(source, toy_tree, batch_size):
  batches = evaluation(source, toy_tree, batch_size)
  assert {batch.images.shape for batch in batches} == {(batch_size, 2, 2, 3)}
  mask = np.concatenate([batch.mask for batch in batches]).astype(bool)
  np.testing.assert_array_equal(numbers(batches)[mask], np.arange(N))
  paths = np.concatenate([batch.paths for batch in batches])
  np.testing.assert_array_equal(paths[mask], toy_tree.encode(ENDS))
  assert (paths[~mask] == PAD).all() and len(batches) == -(-N // batch_size)


def test_labels_above_a_leaf(source, toy_tree):
  short = ArraySource(source.images, np.full((N, 1), 2, np.int32))
  assert stream(short, toy_tree, 1)[0].paths[0, 0].tolist() == [0, 2, UNKNOWN]
  assert stream(short, toy_tree, 1, short_labels="stop")[0].paths[0, 0].tolist() == [0, 2, STOP]


def test_precomputed_features_pass(toy_tree, rng):
  features = rng.normal(size=(N, 5)).astype(np.float32)
  batches = evaluation(ArraySource(features, ENDS), toy_tree, 6)
  np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches])[:N], features)


def test_a_bad_image_stops_or_has_mask_0(source, toy_tree, monkeypatch):
  broken = ArraySource(source.images, ENDS, bad={4: "four.png: broken", 9: "nine.png: broken"})
  with pytest.raises(BadImageError, match=r"four\.png"):
    evaluation(broken, toy_tree, 6)
  reports = []
  monkeypatch.setattr(decode.logging, "warning", lambda text, *args: reports.append(args[-1]))
  skipping = DataConfig(on_bad_image="skip", threads=2)
  batches = evaluation(broken, toy_tree, 6, skipping) + evaluation(broken, toy_tree, 6, skipping)
  assert sorted(reports) == ["four.png: broken", "nine.png: broken"], "each is reported once"
  mask = np.concatenate([batch.mask for batch in batches[:4]])
  np.testing.assert_array_equal(np.flatnonzero(mask == 0), [4, 9, N])
  np.testing.assert_array_equal(numbers(batches[:4])[mask == 1], np.delete(np.arange(N), [4, 9]))
  np.testing.assert_array_equal(batches[0].paths[4], [[PAD] * 3])
  good, skipped = stream(source, toy_tree, 4), stream(broken, toy_tree, 4, skipping)
  for a, b in zip(good, skipped, strict=True):
    np.testing.assert_array_equal(a.draw, b.draw)
    np.testing.assert_array_equal(a.images[b.mask == 1], b.images[b.mask == 1])
    assert set(a.images[b.mask == 0][:, 0, 0, 0]) <= {4, 9}


def test_a_skipped_row_of_training_has_the_pixels_of_a_good_one(toy_tree):
  images = np.full((N, 2, 2, 3), 7, np.uint8)
  skipping = DataConfig(on_bad_image="skip", threads=2)
  batches = stream(ArraySource(images, ENDS, bad={4: "a", 9: "b"}), toy_tree, N, skipping)
  assert sum((batch.mask == 0).sum() for batch in batches) == 12
  assert all((batch.images == 7).all() for batch in batches)
  (batch,) = stream(ArraySource(images, ENDS, bad=dict.fromkeys(range(N), "c")), toy_tree, 1, skipping)
  assert not batch.mask.any() and not batch.images.any(), "no row is good"


def grain_threads():
  return {thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")}


def test_an_abandoned_stream_leaves_no_thread(source, toy_tree):
  before = grain_threads()
  batches = train_batches(LabelledImages(source, toy_tree), CONFIG, ProcessRows(6), TrainSteps(0, 10**9))
  assert len(list(islice(batches, 3))) == 3
  started = grain_threads() - before
  assert started
  batches.close()
  for thread in started:
    thread.join(timeout=10)
  assert not any(thread.is_alive() for thread in started)


def test_a_batch_that_does_not_split_over_the_processes_is_refused_at_once(source, toy_tree):
  with pytest.raises(ValueError, match="multiple of 4"):
    ProcessRows(6, process_count=4)
