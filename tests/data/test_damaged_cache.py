"""Files of the cache that are not as they were written: they count as missing, and are made again."""

import os

import numpy as np
import pytest

from hierjax.data.images import cache


@pytest.fixture
def kept(tmp_path, rng):
  place = cache.CachePlace(str(tmp_path))
  array = rng.integers(1, 256, (40, 8, 8, 3), dtype=np.uint8)
  path = cache.save("set", "print", array, place)
  return path, array, lambda: cache.load("set", "print", (40, 8, 8, 3), np.uint8, place)


def test_no_flipped_bit_is_silent(kept, rng):
  path, array, load = kept
  np.testing.assert_array_equal(load(), array)
  written = path.read_bytes()
  for place in [0, 127, 128, len(written) - 1, len(written) - 12, *rng.integers(0, len(written), 60).tolist()]:
    path.write_bytes(written[:place] + bytes([written[place] ^ 1 << int(rng.integers(8))]) + written[place + 1 :])
    assert load() is None, place
  path.write_bytes(written)
  np.testing.assert_array_equal(load(), array)


@pytest.mark.parametrize(
  "damage",
  [
    lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    lambda data: data[:128] + bytes(len(data) - 128 - 12) + data[-12:],
    lambda data: data[:-1],
    lambda data: data + b"\0",
    lambda data: b"",
  ],
  ids=["half zeroed", "images zeroed", "cut short", "longer", "empty"],
)
def test_other_damage_is_not_silent_either(kept, damage):
  path, _, load = kept
  path.write_bytes(damage(path.read_bytes()))
  assert load() is None


def test_a_file_has_reached_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
  done = []
  fsync, replace = os.fsync, os.replace
  monkeypatch.setattr(os, "fsync", lambda opened: (done.append("sync"), fsync(opened)))
  monkeypatch.setattr(os, "replace", lambda *names: (done.append("name"), replace(*names)))
  assert cache.save("set", "print", np.zeros(3, np.uint8), cache.CachePlace(str(tmp_path))) is not None
  assert done == ["sync", "name", "sync"]
