"""A run of a small network with its initial weights, for benchmarks that need the folder of one."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from hierjax.config_files import load_config
from hierjax.runs.folder import RunFolder
from hierjax.training.loop.run import train_and_evaluate

_VALUES = (
  "epochs=0",
  "backbone.widths=(4,)",
  "data.resize=16",
  "data.crop=16",
  "data.cache_gib=0",
  "loggers=('jsonl',)",
)


def small_run(path: Path, *values: str) -> RunFolder:
  """Makes the folder of a run that has its initial weights, with other values of the config, such as `seed=1`."""
  config = load_config("quickstart:smoke,flat", [f"--config.{value}" for value in (*_VALUES, *values)])
  with contextlib.redirect_stdout(io.StringIO()):
    train_and_evaluate(config, str(path))
  return RunFolder(path)
