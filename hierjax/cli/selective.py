"""The part of `hierjax evaluate` that measures answers which abstain: `--threshold` and `--certify`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from hierjax import extras
from hierjax.errors import UserError

if TYPE_CHECKING:
  from hierjax.evaluation.choosing.selective import Confidences
  from hierjax.inference.members import Ensemble
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
  from hierjax.evaluation.choosing.selective import Confidences, ThresholdGoal, choose_threshold, conditions_of
  from hierjax.evaluation.predictions import predict_split
  from hierjax.inference.members import open_images
  from hierjax.inference.pipeline import Stages
  from hierjax.inference.settings import alpha_of_flag, threshold_of_flag

  alpha = alpha_of_flag(args.alpha, ensemble.tree.depth, out, ensemble.runs)
  stages = Stages(ensemble.whole.run.options, alpha=alpha)
  images = open_images(ensemble, args.split)
  if args.threshold != "sweep":
    threshold = threshold_of_flag(args.threshold, out, ensemble.runs, conditions_of(ensemble, alpha))
    found = Confidences.of(predict_split(ensemble, images, stages))
    return _report_selective(ensemble, images.split, _Selective(found, threshold, alpha), out)
  extras.require("report")
  from hierjax.report.plots.selective import ThresholdSweep, draw_threshold_sweep

  if ensemble.whole.run.source("validation") is None:
    raise UserError(
      f"--threshold sweep: it chooses on validation, and {ensemble.whole.run.data.name!r} has no such split; train "
      "with config.data.validation = 0.1, or give a probability"
    )
  goal = ThresholdGoal(ensemble, alpha, 0.95 if args.selective_accuracy is None else args.selective_accuracy)
  validation = Confidences.of(predict_split(ensemble, open_images(ensemble, "validation"), stages))
  assert out is not None  # `evaluate` refuses a sweep without a folder
  threshold = choose_threshold(out, goal, validation)
  found = Confidences.of(predict_split(ensemble, images, stages))
  written = _report_selective(ensemble, images.split, _Selective(found, threshold, alpha), out)
  print(
    f"\nthreshold = {threshold:g} is chosen on validation: {out.path / 'choices.json'}. It promises nothing for "
    f"other images; `--certify {goal.accuracy:g}` does"
  )
  sweep = ThresholdSweep(
    ensemble.name, images.split, found, validation, goal.accuracy, threshold, ensemble.tree.named_levels
  )
  print(draw_threshold_sweep(out, sweep))
  return written


def certify_threshold(args: argparse.Namespace, ensemble: Ensemble, out: RunFolder) -> dict[str, Any]:
  """Finds the threshold whose promise calibration images prove, keeps it, and measures it on another split."""
  from hierjax.evaluation.choosing.certificates import Promise, certify, keep_certificate, sentences
  from hierjax.evaluation.choosing.selective import Confidences, calibration_images, conditions_of
  from hierjax.evaluation.predictions import predict_split
  from hierjax.inference.members import open_images
  from hierjax.inference.pipeline import Stages
  from hierjax.inference.settings import alpha_of_flag

  promise = Promise(args.certify, 0.9 if args.sure is None else args.sure, args.of or "answers")
  alpha = alpha_of_flag(args.alpha, ensemble.tree.depth, out, ensemble.runs)
  stages = Stages(ensemble.whole.run.options, alpha=alpha)
  calibration, images = calibration_images(ensemble), open_images(ensemble, args.split)
  splits = {s.split: s for s in (calibration, images)}
  found = {name: Confidences.of(predict_split(ensemble, split, stages)) for name, split in splits.items()}
  certificate = certify(found[calibration.split], promise)
  written: dict[str, Any] = {}
  for name, confidences in found.items():
    written |= _report_selective(ensemble, name, _Selective(confidences, certificate.threshold, alpha), out)
  print(f"\n{sentences(certificate, calibration.split)}")
  conditions = conditions_of(ensemble, alpha), ensemble.runs
  return written | {"certificate": keep_certificate(out, certificate, found, conditions)}


class _Selective(NamedTuple):
  """Answers at a confidence threshold and an alpha."""

  found: Confidences
  threshold: float
  alpha: float


def _report_selective(ensemble: Ensemble, split: str, answers: _Selective, out: RunFolder | None) -> dict[str, Any]:
  """Prints coverage and accuracy, writes them to eval/SPLIT-threshold.json of a folder, and returns them by name."""
  from hierjax.evaluation.choosing.selective import selective_table

  count = len(answers.found.length)
  print(f"\n{ensemble.name}: {count:,} images of {split}; confidence threshold {answers.threshold:g}")
  print(selective_table(answers.found, answers.threshold, ensemble.tree.named_levels))
  about: dict[str, Any] = {"split": split, "images": ensemble.whole.run.images_of(split), "members": ensemble.about()}
  about |= {"alpha": answers.alpha, "num_examples": count}
  name, found = f"{split}-threshold", {**about, "threshold": answers.threshold, **answers.found.at(answers.threshold)}
  if out is not None:
    out.write_evaluation(name, found)
  return {name: found}
