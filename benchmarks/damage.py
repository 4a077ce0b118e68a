"""Random damage of the bytes of a file."""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator


def flipped(data: bytes, rng: Rng) -> bytes:
  """Returns bytes, of which there is at least one, with one bit changed."""
  place = int(rng.integers(len(data)))
  return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]


def damaged(data: bytes, rng: Rng) -> bytes:
  """Returns bytes cut short, zeroed from a place on, with a block of others, or none."""
  place = int(rng.integers(len(data)))
  some = rng.bytes(min(64, len(data) - place))
  kinds = [data[:place], data[:place] + bytes(len(data) - place), data[:place] + some + data[place + len(some) :], b""]
  return kinds[int(rng.integers(len(kinds)))]


def flipped_or_damaged(data: bytes, rng: Rng) -> bytes:
  """Returns bytes changed in one of both ways."""
  return (flipped if rng.random() < 0.5 else damaged)(data, rng)
