"""Benchmarks run rarely: each can at least be imported beside the package as it is."""

import importlib
import pathlib

import pytest

import benchmarks

MODULES = sorted(path.stem for path in pathlib.Path(benchmarks.__path__[0]).glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_each_benchmark_is_imported(name):
  importlib.import_module(f"benchmarks.{name}")
