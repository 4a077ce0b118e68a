"""Strict switches for every test: promotion, ranks, and four virtual devices."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

from hierjax.tree.label_tree import LabelTree

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
  return jax.random.key(0)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def toy_tree():
  """Three levels, leaves on two of them: animal > (dog > (basenji, leonberg), cat), thing > cup."""
  return LabelTree.from_children(
    ["animal", "thing", "dog", "cat", "cup", "basenji", "leonberg"], [2, 2, 1, 2, 0, 0, 0, 0]
  )


def random_tree(rng: np.random.Generator, depth: int, most_children: int, early_leaf: float = 0.3) -> LabelTree:
  """Returns a tree of `depth` levels; below the top, a node is a leaf with probability `early_leaf`."""
  names: list[str] = []
  counts: list[int] = []
  level_size = 1
  for level in range(depth):
    early = (level > 0) & (rng.random(level_size) < early_leaf)
    here = np.where(early, 0, rng.integers(1, most_children + 1, size=level_size)).tolist()
    if sum(here) == 0:
      here[0] = most_children
    counts += here
    names += [f"{level}.{i}" for i in range(sum(here))]
    level_size = sum(here)
  return LabelTree.from_children(names, counts + [0] * level_size)
