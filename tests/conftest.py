"""Strict switches for every test: promotion, ranks, 4 virtual devices; programs are unoptimised, and kept a session."""

import os
import tempfile

from fast_compiling import FAST

if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers, and the commands that tests start, use the same folder
  PROGRAMS = tempfile.TemporaryDirectory(prefix="hierjax-xla-", ignore_cleanup_errors=True)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # reading one takes a fifth of compiling the smallest
os.environ["XLA_FLAGS"] = f"{FAST} {os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
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
