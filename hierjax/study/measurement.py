"""What a study keeps of a run: its metrics on the images that it is judged on, and those of samples of these images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors.numpy import load_file, save

from hierjax.config import read_json
from hierjax.data.open_source import Opened
from hierjax.errors import UserError
from hierjax.evaluation.answers import fold
from hierjax.evaluation.choosing.alpha import alpha_grid, best_alpha
from hierjax.evaluation.evaluate import SplitSettings, evaluate_with_facts
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.intervals import metrics_for, resampled
from hierjax.evaluation.metrics.measure import measured
from hierjax.evaluation.metrics.rows import AnsweredRows
from hierjax.evaluation.several_runs.ensembles import errors_of, subset_errors, why_alpha_is_idle
from hierjax.functional.adaptation import check_alpha
from hierjax.inference.members import Ensemble, open_ensemble, open_images
from hierjax.inference.pipeline import Stages
from hierjax.inference.purpose import Purpose
from hierjax.runs.folder import RunFolder, write_whole
from hierjax.runs.provenance import minutes, read_sessions
from hierjax.runs.run import Run


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


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The metrics of a run, or of an ensemble of runs that differ in the seed, evaluated in one way.

  Attributes:
    folders: of the runs; the results lie in the first one.
    configs: the checksum of the config of each.
    purpose: of the answers.
    alpha: of classifier adaptation; `chosen`: the best one on validation.
    calibrated: whether the runs' temperatures count; without it the temperature is 1.
  """

  folders: tuple[RunFolder, ...]
  configs: tuple[str, ...]
  purpose: Purpose = Purpose()
  alpha: float | str = 0.0
  calibrated: bool = True

  @property
  def file(self) -> Path:
    """The file of the metrics; that of the samples has the suffix .safetensors."""
    others = "".join(f"-{folder.config()['seed']}" for folder in self.folders[1:])
    how = [f"-alpha-{self.alpha if isinstance(self.alpha, str) else f'{self.alpha:g}'}"] if self.alpha else []
    how += [] if self.calibrated else ["-uncalibrated"]
    how += [f"-with{others}"] if others else []
    return self.folders[0].path / f"study{self.purpose.name}{''.join(how)}.json"

  @property
  def _of_ensemble(self) -> bool:
    """Whether the runs are evaluated as `evaluate A B C` and `evaluate --alpha` do."""
    return len(self.folders) > 1 or bool(self.alpha) or not self.calibrated

  def is_current(self) -> bool:
    """Returns whether it was written, for an ensemble since its members were trained."""
    return self.file.exists() and (len(self.folders) == 1 or self._stored().get("started") == self._started())

  def _started(self) -> list[str]:
    """Returns when each run was trained, or went on, last."""
    return [session["started"] for folder in self.folders for session in read_sessions(folder)[-1:]]

  def _stored(self) -> dict[str, Any]:
    return read_json(self.file, "what `hierjax study` writes")

  def write(self, mesh: Mesh, opened: Opened | None = None) -> dict[str, Any]:
    """Evaluates, writes both files, and returns the result of the evaluation, which has the metrics.

    Args:
      mesh: the devices.
      opened: `Run.opened` of a run on the same set; None to open the set anew.

    Raises:
      UserError: the runs predict several paths an image.
    """
    facts, about = self._measured_ensemble(mesh) if self._of_ensemble else self._measured_run(mesh, opened)
    found: dict[str, Any] = about["metrics"]
    metrics = {name: found[name] for name in metrics_for(facts)}
    write_whole(self.file.with_suffix(".safetensors"), save(resampled(facts)))
    own = {
      "config": self.configs[0],
      "others": list(self.configs[1:]),
      "started": self._started(),
      "validation": _best_on_validation(self.folders[0]),
      "weights": sum(map(_weights, self.folders)),
    }
    write_whole(self.file, json.dumps({**own, **about, "metrics": metrics}, indent=2).encode())
    return found

  def _measured_run(self, mesh: Mesh, opened: Opened | None) -> tuple[Facts, dict[str, Any]]:
    found, facts = evaluate_with_facts(self.folders[0], mesh, SplitSettings(purpose=self.purpose), opened)
    if facts is None:
      raise UserError(f"{self.folders[0].path}: a study measures one path an image, and this run predicts several")
    images = {"split": found["split"], "checksum": found["data"]["checksum"], "images": found["num_examples"]}
    return facts, {**images, "metrics": found}

  def _measured_ensemble(self, mesh: Mesh) -> tuple[Facts, dict[str, Any]]:
    ensemble = open_ensemble([str(folder.path) for folder in self.folders], mesh).for_purpose(self.purpose)
    if not self.calibrated:
      ensemble = ensemble.at_temperature(1.0)
    images = open_images(ensemble, "")
    whole = ensemble.whole.run
    alpha = self._alpha_for(ensemble) if self.alpha else 0.0
    rows = AnsweredRows(ensemble, Stages(whole.options, alpha=alpha, only=self.purpose.nodes(ensemble.tree)))
    fold(ensemble, images, rows)
    facts = rows.facts
    about = {"split": images.split, "checksum": whole.images_of(images.split)["checksum"]}
    return facts, {**about, "images": len(facts.predictions.labels), "alpha": alpha, "metrics": measured(facts)}

  def _alpha_for(self, ensemble: Ensemble) -> float:
    """Returns alpha, or the best one on validation.

    Raises:
      UserError: alpha is outside its range, or changes nothing for these runs.
    """
    where = f"{self.folders[0].path}: alpha"
    if why := why_alpha_is_idle(ensemble):
      raise UserError(f"{where} = {self.alpha}: {why}")
    if not isinstance(self.alpha, str):
      check_alpha(self.alpha, ensemble.tree.depth, where)
      return self.alpha
    alphas, stages = alpha_grid(ensemble.tree.depth), Stages(ensemble.whole.run.options)
    sums = subset_errors(ensemble, alphas, stages)
    fold(ensemble, open_images(ensemble, "validation"), sums)
    return alphas[best_alpha(errors_of(sums, ensemble, alphas))]

  def read(self, settings: tuple[str, ...]) -> Finished:
    """Returns what was written.

    Args:
      settings: the values of the run that were chosen on validation.

    Raises:
      UserError: a run has another config than the study has now.
    """
    result = self._stored()
    if (result.get("config"), *result.get("others", ())) != self.configs:
      raise UserError(
        f"{self.folders[0].path} was trained with another config than the study has now: choose another --workdir, or "
        "remove it"
      )
    samples = load_file(self.file.with_suffix(".safetensors"))
    sessions = [session for folder in self.folders for session in read_sessions(folder)]
    newest = sessions[-1] if sessions else {}
    about = {
      "minutes": minutes(sessions),
      **{key: newest.get(key, "") for key in ("devices", "commit")},
      **{key: result[key] for key in ("config", "weights", "split", "checksum", "images")},
    }
    return Finished(self.folders[0], settings, result["validation"], result["metrics"], samples, about)


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
