"""The part of `hierjax evaluate` that measures answers which abstain: `--threshold` and `--certify`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from hierjax import extras
from hierjax.cli.common import purpose_of
from hierjax.errors import UserError

if TYPE_CHECKING:
  from hierjax.evaluation.choosing.selective import Confidences
  from hierjax.inference.members import Ensemble, Images
  from hierjax.inference.purpose import Purpose
  from hierjax.runs.folder import RunFolder


def add_certificate(parser: argparse.ArgumentParser) -> None:
  """Adds `--certify`, `--sure` and `--of`."""
  parser.add_argument(
    "--certify", type=float, metavar="SHARE",
    help="find the smallest confidence threshold for which the split `calibration`, or else validation, proves that "
    "this share of the answers is right, and measure it on the split",
  )  # fmt: skip
  parser.add_argument(
    "--sure", type=float, metavar="P",
    help="the probability, over the choice of the calibration images, that this promise is kept (default 0.9)",
  )  # fmt: skip
  parser.add_argument(
    "--of", choices=("answers", "images"),
    help="what the promise is of: that share of the answers is right (default), or at most 1 - SHARE of all images get "
    "a wrong answer",
  )  # fmt: skip


def check_certificate(args: argparse.Namespace) -> None:
  """Raises UserError for arguments that do not go together."""
  if args.certify is None and (args.sure is not None or args.of):
    raise UserError("--sure and --of belong to --certify: give the share that is to be right, --certify 0.95 say")
  if args.certify is not None and (args.threshold or args.against or args.known_levels or args.alpha == "sweep"):
    raise UserError(
      "--certify finds the threshold of one set of runs at one alpha: leave out --threshold, --against, --known-levels "
      "and --alpha sweep"
    )


def measure_selective(args: argparse.Namespace, ensemble: Ensemble, out: RunFolder | None) -> dict[str, Any]:
  """Measures answers that abstain below a confidence threshold."""
  from hierjax.evaluation.choosing.selective import ThresholdGoal, choose_threshold, conditions_of
  from hierjax.inference.members import open_images
  from hierjax.inference.settings import alpha_of_flag, threshold_of_flag

  alpha, purpose = alpha_of_flag(args.alpha, ensemble.tree.depth, out, ensemble.runs), purpose_of(args)
  conditions, images = conditions_of(ensemble, alpha, purpose), open_images(ensemble, args.split)
  if args.threshold != "sweep":
    threshold = threshold_of_flag(args.threshold, out, ensemble.runs, conditions)
    found = _confidences(ensemble, images, alpha, purpose, threshold)
    return _report_selective(ensemble, images.split, _Selective(found, threshold, alpha, purpose), out)
  extras.require("report")
  from hierjax.inference.loaded_run import images_suffix
  from hierjax.report.plots.selective import ThresholdSweep, draw_threshold_sweep

  if ensemble.whole.run.source("validation") is None:
    raise UserError(
      f"--threshold sweep: it chooses on validation, and {ensemble.whole.run.data.name!r} has no such split; train "
      "with config.data.validation = 0.1, or give a probability"
    )
  goal = ThresholdGoal(ensemble, conditions, 0.95 if args.selective_accuracy is None else args.selective_accuracy)
  assert out is not None  # `evaluate` refuses a sweep without a folder
  splits = {s.split: s for s in (open_images(ensemble, "validation"), images)}
  by_split = {name: _confidences(ensemble, split, alpha, purpose) for name, split in splits.items()}
  threshold, refused = choose_threshold(out, goal, by_split)
  found, validation = by_split[images.split], by_split["validation"]
  written = _report_selective(ensemble, images.split, _Selective(found, threshold, alpha, purpose), out)
  where = f"{refused}; give the value itself" if refused else out.path / "choices.json"
  print(
    f"\nthreshold = {threshold:g} is chosen on validation: {where}. It promises nothing for other images; `--certify "
    f"{goal.accuracy:g}` does"
  )
  sweep = ThresholdSweep(
    ensemble.name, images.split, found, validation, goal.accuracy, threshold, ensemble.tree.named_levels
  )
  run, name = ensemble.whole.run, next(iter(written))
  suffix = images_suffix(out, run, images.split, name) or images_suffix(out, run, "validation")
  print(draw_threshold_sweep(out, sweep, args.format, suffix))
  return written


def certify_threshold(args: argparse.Namespace, ensemble: Ensemble, out: RunFolder) -> dict[str, Any]:
  """Finds the threshold whose promise calibration images prove, keeps it, and measures it on another split."""
  from hierjax.evaluation.choosing.certificates import Promise, certify, keep_certificate, sentences
  from hierjax.evaluation.choosing.selective import calibration_images, conditions_of
  from hierjax.inference.members import open_images
  from hierjax.inference.settings import alpha_of_flag

  promise = Promise(args.certify, 0.9 if args.sure is None else args.sure, args.of or "answers")
  alpha, purpose = alpha_of_flag(args.alpha, ensemble.tree.depth, out, ensemble.runs), purpose_of(args)
  calibration, images = calibration_images(ensemble), open_images(ensemble, args.split)
  splits = {s.split: s for s in (calibration, images)}
  found = {name: _confidences(ensemble, split, alpha, purpose) for name, split in splits.items()}
  certificate = certify(found[calibration.split], promise)
  written: dict[str, Any] = {}
  for name, confidences in found.items():
    written |= _report_selective(ensemble, name, _Selective(confidences, certificate.threshold, alpha, purpose), out)
  print(f"\n{sentences(certificate, calibration.split)}")
  conditions = conditions_of(ensemble, alpha, purpose), ensemble
  record, refused = keep_certificate(out, certificate, found, conditions)
  if refused:
    print(f"threshold = {certificate.threshold:g}: {refused}; give the value itself")
  return written | {"certificate": record}


def _confidences(
  ensemble: Ensemble, images: Images, alpha: float, purpose: Purpose, threshold: float | None = None
) -> Confidences:
  """Returns the confidences in the paths that a threshold shortens; at the threshold 0, in the decoded paths."""
  from hierjax.evaluation.choosing.selective import Confidences
  from hierjax.evaluation.predictions import predict_split
  from hierjax.functional.selective import UNSHORTENED
  from hierjax.inference.pipeline import Stages

  stages = Stages(ensemble.whole.run.options, alpha=alpha, only=purpose.nodes(ensemble.tree))
  stages = dataclasses.replace(stages, threshold=0.0 if threshold == 0 else UNSHORTENED)
  return Confidences.of(predict_split(ensemble, images, stages))


class _Selective(NamedTuple):
  """Answers at a confidence threshold and an alpha, for a purpose."""

  found: Confidences
  threshold: float
  alpha: float
  purpose: Purpose


def _report_selective(ensemble: Ensemble, split: str, answers: _Selective, out: RunFolder | None) -> dict[str, Any]:
  """Prints coverage and accuracy, writes them to eval/SPLIT-threshold.json of a folder, and returns them by name."""
  from hierjax.evaluation.choosing.selective import selective_table

  count = len(answers.found.length)
  print(f"\n{ensemble.name}: {count:,} images of {split}; confidence threshold {answers.threshold:g}")
  print(selective_table(answers.found, answers.threshold, ensemble.tree.named_levels))
  about: dict[str, Any] = {"split": split, "data": ensemble.whole.run.images_of(split), "members": ensemble.about()}
  about |= {"alpha": answers.alpha, "num_examples": count}
  about |= answers.purpose.conditions(ensemble.tree)
  name = f"{split}{answers.purpose.name}-threshold"
  found = {**about, "threshold": answers.threshold, **answers.found.at(answers.threshold)}
  if out is not None:
    out.write_evaluation(name, found)
  return {name: found}
