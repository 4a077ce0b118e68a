"""The runs of a study: each is trained once, in pieces if need be, and measured."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors.numpy import load_file, save

from hierjax.config import read_json
from hierjax.config_files import load_config
from hierjax.errors import UserError
from hierjax.evaluation.evaluate import SplitSettings, evaluate_with_facts
from hierjax.evaluation.metrics.intervals import metrics_for, resampled
from hierjax.inference.purpose import Purpose
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder, write_whole
from hierjax.runs.provenance import minutes, read_sessions
from hierjax.runs.run import Run
from hierjax.study.plan import Row, Study, folder_name
from hierjax.training.loop.run import train_and_evaluate
from hierjax.training.loop.seeds import fits, train_seeds
from hierjax.training.loop.steps import Stopped


class TimeOver(Exception):
  """The minutes of a study are over; the same command goes on."""


@dataclasses.dataclass(frozen=True)
class Finished:
  """A run of a study that is trained and measured.

  Attributes:
    folder: the run's.
    settings: the values that were chosen on validation, or are tried.
    validation: its best path accuracy on validation; None without validation images.
    metrics: by name, of all test images.
    samples: by name, `f64[k *l]`, the same of k samples of the images, the same ones for every run.
    about: minutes, devices and commit of its training, the checksum of its config, the number of its weights, and of
      the images the split, checksum and number.
  """

  folder: RunFolder
  settings: tuple[str, ...]
  validation: float | None
  metrics: dict[str, Any]
  samples: dict[str, np.ndarray]
  about: dict[str, Any]


@contextlib.contextmanager
def time_limit(minutes: float) -> Iterator[None]:
  """Ends the work inside by TimeOver after so many minutes, a training after its checkpoint; 0: there is no limit."""
  if not minutes:
    yield
    return
  over = threading.Event()

  def end() -> None:
    over.set()
    os.kill(os.getpid(), signal.SIGTERM)  # a training has a handler of its own, which saves a checkpoint first

  def received(number: int, frame: Any) -> None:
    del frame
    if over.is_set():
      raise TimeOver
    signal.signal(number, before)  # from somebody else: its usual effect
    os.kill(os.getpid(), number)

  before = signal.signal(signal.SIGTERM, received)
  timer = threading.Timer(60 * minutes, end)
  timer.daemon = True
  timer.start()
  try:
    yield
  except Stopped as stopped:
    if over.is_set():
      raise TimeOver from stopped
    raise
  finally:
    timer.cancel()
    signal.signal(signal.SIGTERM, before)


@dataclasses.dataclass(frozen=True)
class StudyRuns:
  """The runs of a study, in a folder.

  Attributes:
    study: the plan.
    folder: of the study; a run is in FOLDER/ROW/SETTINGS-seedSEED.
    overrides: of the command line, such as `--config.data.root=PHOTOS`, for all runs.
  """

  study: Study
  folder: Path
  overrides: tuple[str, ...] = ()

  def rows(self) -> Iterator[tuple[Row, list[Finished]]]:
    """Trains what is not trained yet, seed by seed, and yields each row with its runs when it is complete.

    Raises:
      UserError: a config, its data or a folder cannot be used.
    """
    complete: dict[str, list[Finished]] = {}
    for row in self.study.rows:
      if row.of:
        yield row, [self.decoded(row, run) for run in complete[row.of]]
        continue
      first, *others = self.study.seeds
      tried = [self.finished(row, settings, [first])[0] for settings in row.candidates()]
      best = max(tried, key=_on_validation) if len(tried) > 1 else tried[0]
      complete[row.name] = [best, *self.finished(row, best.settings, others)]
      yield row, complete[row.name]

  def finished(self, row: Row, settings: tuple[str, ...], seeds: Sequence[int]) -> list[Finished]:
    """Returns the runs of some seeds, which are trained and measured first if they are not yet.

    Raises:
      UserError: as `rows`; or a run that is there has another config.
    """
    folders = {seed: self._folder(row, settings, seed) for seed in seeds}
    flags = [f"--config.{one}" for one in (*self.study.settings, *row.settings, *settings)]
    configs = {seed: load_config(row.config, [*flags, f"--config.seed={seed}", *self.overrides]) for seed in seeds}
    missing = [seed for seed in seeds if not _result_of(folders[seed]).exists()]
    for together in _together(missing, configs, folders):
      print(f"== {row.name}, {', '.join(folders[seed].path.name for seed in together)}", flush=True)
      devices.prepare(configs[together[0]]["batch_size"])
      _train(configs[together[0]], {seed: str(folders[seed].path) for seed in together})
      for seed in together:
        _measure(folders[seed], devices.data_mesh(), _checksum(configs[seed]))
    return [_read(folders[seed], settings, _checksum(configs[seed])) for seed in seeds]

  def _folder(self, row: Row, settings: tuple[str, ...], seed: int) -> RunFolder:
    name = "-".join((*settings, f"seed{seed}"))
    return RunFolder(self.folder / folder_name(row.name) / folder_name(name))

  def decoded(self, row: Row, run: Finished) -> Finished:
    """Returns a run of another row, evaluated with answers that minimise the cost of this one."""
    config, purpose = run.about["config"], Purpose(minimise=row.minimise)
    if not _result_of(run.folder, purpose).exists():
      print(f"== {row.name}, {run.folder.path}", flush=True)
      devices.prepare(run.folder.config()["batch_size"])
      _measure(run.folder, devices.data_mesh(), config, purpose)
    return _read(run.folder, run.settings, config, purpose)


def _together(
  seeds: Sequence[int], configs: Mapping[int, dict[str, Any]], folders: Mapping[int, RunFolder]
) -> list[list[int]]:
  """Returns seeds in groups, each of which trains in one program; see `hierjax.training.loop.seeds`."""
  steps = {folders[seed].newest_step() for seed in seeds}
  if len(seeds) > 1 and len(steps) == 1 and fits(configs[seeds[0]]):
    return [list(seeds)]
  return [[seed] for seed in seeds]


def _train(config: dict[str, Any], workdirs: Mapping[int, str]) -> None:
  if len(workdirs) == 1:
    train_and_evaluate(config, *workdirs.values())
  else:
    train_seeds(config, workdirs)


def _checksum(config: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(config, sort_keys=True, default=list).encode()).hexdigest()


def _on_validation(run: Finished) -> float:
  if run.validation is None:
    raise UserError(f"{run.folder.path}: values are chosen on validation, and the set has no validation images")
  return run.validation


def _result_of(folder: RunFolder, purpose: Purpose = Purpose()) -> Path:
  """Returns the file of a run's metrics; that of its samples has the suffix .safetensors."""
  return folder.path / f"study{purpose.name}.json"


def _measure(folder: RunFolder, mesh: Mesh, config: str, purpose: Purpose = Purpose()) -> None:
  """Writes a run's metrics on the images that it is judged on, and those of samples of these images."""
  found, facts = evaluate_with_facts(folder, mesh, SplitSettings(purpose=purpose))
  if facts is None:
    raise UserError(f"{folder.path}: a study measures one path an image, and this run predicts several")
  write_whole(_result_of(folder, purpose).with_suffix(".safetensors"), save(resampled(facts, metrics_for(facts))))
  metrics = {name: found[name] for name in metrics_for(facts)}
  images = {"split": found["split"], "checksum": found["data"]["checksum"], "images": found["num_examples"]}
  own = {"config": config, "validation": _best_on_validation(folder), "weights": _weights(folder)}
  result = {**own, **images, "metrics": metrics}
  write_whole(_result_of(folder, purpose), json.dumps(result, indent=2).encode())


def _weights(folder: RunFolder) -> int:
  """Returns the number of weights, but for those of a frozen backbone whose features are kept."""
  run = Run.from_folder(folder)
  left_out = "backbone" if run.config.frozen["keep"] else ""
  parts = {name: part for name, part in run.variable_shapes["params"].items() if name != left_out}
  return sum(leaf.size for leaf in jax.tree.leaves(parts))


def _best_on_validation(folder: RunFolder) -> float | None:
  lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
  scores = [line["path_accuracy"] for line in map(json.loads, lines) if line.get("split") == "validation"]
  return max(scores, default=None)


def _read(folder: RunFolder, settings: tuple[str, ...], config: str, purpose: Purpose = Purpose()) -> Finished:
  file = _result_of(folder, purpose)
  result = read_json(file, "what `hierjax study` writes")
  if result.get("config") != config:
    raise UserError(
      f"{folder.path} was trained with another config than the study has now: choose another --workdir, or remove it"
    )
  samples = load_file(file.with_suffix(".safetensors"))
  sessions = read_sessions(folder)
  newest = sessions[-1] if sessions else {}
  about = {
    "minutes": minutes(sessions),
    **{key: newest.get(key, "") for key in ("devices", "commit")},
    **{key: result[key] for key in ("config", "weights", "split", "checksum", "images")},
  }
  return Finished(folder, settings, result["validation"], result["metrics"], samples, about)
