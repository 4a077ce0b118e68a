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

from jax.sharding import Mesh

from hierjax.config_files import load_config
from hierjax.data.open_source import Opened
from hierjax.errors import UserError
from hierjax.evaluation.pseudo_labels import pseudo_label_summary, write_pseudo_labels
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.purpose import Purpose
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.study.measurement import Finished, Measurement
from hierjax.study.plan import EvaluatedRow, Row, Study, folder_name
from hierjax.study.results import check_same_images
from hierjax.training.loop.run import train_and_evaluate
from hierjax.training.loop.seeds import can_train_together, train_seeds
from hierjax.training.loop.steps import Stopped

PSEUDO_LABELS = "study-pseudo_labels.npz"  # in the folder of the run that predicted them


class TimeOver(Exception):
  """The minutes of a study are over; the same command goes on."""


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
  # The set of the newest run.
  _opened: dict[str, Opened] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

  def rows(self) -> Iterator[tuple[Row | EvaluatedRow, list[Finished]]]:
    """Trains what is not trained yet, seed by seed, and yields each row with its runs when it is complete.

    Raises:
      UserError: a config, its data or a folder cannot be used.
    """
    complete: dict[str, list[Finished]] = {}
    for row in self.study.rows:
      check_same_images(complete)
      if isinstance(row, EvaluatedRow):
        yield row, self.evaluated_again(row, complete[row.of])
        continue
      first, *others = self.study.seeds
      own = self._settings_of_seeds(row, complete)
      tried = [self.finished(row, settings, {first: own[first]})[0] for settings in row.candidates()]
      best = max(tried, key=_on_validation) if len(tried) > 1 else tried[0]
      complete[row.name] = [best, *self.finished(row, best.settings, {seed: own[seed] for seed in others})]
      yield row, complete[row.name]

  def _settings_of_seeds(self, row: Row, complete: Mapping[str, Sequence[Finished]]) -> dict[int, tuple[str, ...]]:
    """Returns the settings that the runs of each seed have of their own; predicts their pseudo-labels first."""
    own = {seed: (f"seed={seed}", *(f"{key}={seed}" for key in self.study.seeded)) for seed in self.study.seeds}
    if not row.pseudo_labels_of:
      return own
    teachers = zip(self.study.seeds, complete[row.pseudo_labels_of], strict=True)
    return {
      seed: (*own[seed], "data.partial_labels=pseudo", f"data.pseudo_labels={_pseudo_labels(run.folder)}")
      for seed, run in teachers
    }

  def finished(self, row: Row, settings: tuple[str, ...], own: Mapping[int, tuple[str, ...]]) -> list[Finished]:
    """Returns the runs of some seeds, which are trained and measured first if they are not yet.

    Args:
      row: of the table.
      settings: the values of its tuned keys.
      own: the settings that the run of each seed has of its own.

    Raises:
      UserError: as `rows`; or a run that is there has another config.
    """
    folders = {seed: self._folder(row, settings, seed) for seed in own}
    flags = [f"--config.{one}" for one in (*self.study.settings, *row.settings, *settings)]
    configs = {
      seed: load_config(row.config, [*flags, *(f"--config.{one}" for one in ones), *self.overrides])
      for seed, ones in own.items()
    }
    measured = {seed: Measurement((folders[seed],), (_checksum(configs[seed]),)) for seed in own}
    missing = [seed for seed in own if not measured[seed].file.exists()]
    same_images = not self.study.seeded and not row.pseudo_labels_of
    joined = len(missing) > 1 and same_images and can_train_together(configs[missing[0]])
    for together in [missing] if joined else [[seed] for seed in missing]:
      print(f"== {row.name}, {', '.join(folders[seed].path.name for seed in together)}", flush=True)
      devices.prepare(configs[together[0]]["batch_size"])
      self._train(configs[together[0]], {seed: measured[seed] for seed in together})
      for seed in together:
        if not measured[seed].file.exists():  # the run was trained and evaluated before
          measured[seed].write(devices.data_mesh(), self._opened_set(configs[seed]))
    return [measured[seed].read(settings) for seed in own]

  def _train(self, config: dict[str, Any], measured: Mapping[int, Measurement]) -> None:
    """Trains the run of each seed; its evaluation at the end is the measurement."""
    workdirs = {seed: str(one.folders[0].path) for seed, one in measured.items()}
    by_folder = {one.folders[0].path: one for one in measured.values()}

    def evaluate(folder: RunFolder, mesh: Mesh, opened: Opened) -> dict[str, Any]:
      return by_folder[folder.path].write(mesh, opened)

    if len(workdirs) == 1:
      (workdir,) = workdirs.values()
      train_and_evaluate(config, workdir, evaluate, self._opened_set(config))
    else:
      train_seeds(config, workdirs, evaluate, self._opened_set(config))

  def _opened_set(self, config: Mapping[str, Any]) -> Opened:
    """Returns the set of a config, opened once for consecutive runs on it."""
    key = json.dumps([config["data"], config["tree"]], sort_keys=True, default=list)
    if key not in self._opened:
      self._opened.clear()
      self._opened[key] = Opened()
    return self._opened[key]

  def _folder(self, row: Row, settings: tuple[str, ...], seed: int) -> RunFolder:
    name = "-".join((*settings, f"seed{seed}"))
    return RunFolder(self.folder / folder_name(row.name) / folder_name(name))

  def evaluated_again(self, row: EvaluatedRow, runs: list[Finished]) -> list[Finished]:
    """Returns the runs of another row, evaluated as this one says."""
    self._opened.clear()  # each evaluation opens the set anew
    count, found = max(row.ensemble, 1), []
    for number in range(len(runs) // count):
      members = runs[number * count : (number + 1) * count]
      folders, configs = zip(*((one.folder, one.about["config"]) for one in members), strict=True)
      measured = Measurement(folders, configs, Purpose(minimise=row.minimise), row.alpha, row.calibrated)
      if not measured.is_current():
        print(f"== {row.name}, {', '.join(str(folder.path) for folder in folders)}", flush=True)
        devices.prepare(folders[0].config()["batch_size"])
        measured.write(devices.data_mesh())
      found.append(measured.read(members[0].settings))
    return found


def _pseudo_labels(teacher: RunFolder) -> Path:
  """Returns the file of the pseudo-labels of a run, which is written first if it is not there."""
  file = teacher.path.absolute() / PSEUDO_LABELS
  if not file.exists():
    print(f"== pseudo-labels of {teacher.path}", flush=True)
    devices.prepare(teacher.config()["batch_size"])
    print(pseudo_label_summary(write_pseudo_labels(LoadedRun.open(teacher, devices.data_mesh()), file)))
  return file


def _checksum(config: Mapping[str, Any]) -> str:
  """Returns the checksum of a config, and of the pseudo-labels that it names, wherever their file is."""
  labels = config["data"]["pseudo_labels"]
  if labels and Path(labels).is_file():
    data = {**config["data"], "pseudo_labels": hashlib.sha256(Path(labels).read_bytes()).hexdigest()}
    config = {**config, "data": data}
  return hashlib.sha256(json.dumps(config, sort_keys=True, default=list).encode()).hexdigest()


def _on_validation(run: Finished) -> float:
  if run.validation is None:
    raise UserError(f"{run.folder.path}: values are chosen on validation, and the set has no validation images")
  return run.validation
