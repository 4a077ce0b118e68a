"""`hierjax evaluate`: the metrics of a run or an ensemble on a split."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hierjax import extras
from hierjax.cli.common import (
  add_data_root,
  add_devices,
  add_format,
  add_json,
  add_purpose,
  add_split,
  output,
  purpose_of,
)
from hierjax.cli.evaluate import given, repeated, selective
from hierjax.errors import UserError

if TYPE_CHECKING:
  from jax.sharding import Mesh

  from hierjax.evaluation.metrics.rows import AnsweredRows
  from hierjax.evaluation.several_runs.ensembles import Errors
  from hierjax.inference.members import Ensemble
  from hierjax.inference.pipeline import Stages
  from hierjax.runs.folder import RunFolder

HELP = "Measure a run, or an ensemble of runs, on a split of its data set."
EXAMPLES = """
hierjax evaluate runs/quickstart
hierjax evaluate runs/quickstart --split val --json
hierjax evaluate runs/quickstart --threshold sweep --selective-accuracy 0.95
hierjax evaluate runs/quickstart --certify 0.95 --sure 0.9
hierjax evaluate runs/quickstart --certify 0.95 --of images
hierjax evaluate runs/quickstart --minimise edges
hierjax evaluate runs/quickstart --level 2
hierjax evaluate runs/quickstart --only labels.txt
hierjax evaluate runs/a runs/b runs/c --alpha 1 --out runs/ensemble
hierjax evaluate runs/several-0 runs/several-1 runs/several-2
hierjax evaluate runs/a runs/b --against runs/x runs/y
hierjax evaluate --predictions preds.csv --tree tree.json --labels labels.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument(
    "workdir", nargs="*", metavar="WORKDIR",
    help="a run's folder; several folders are an ensemble, in which COARSE+FINE, two runs joined by +, is one member; "
    "several runs with a multi-label head are measured each by itself, with means and deviations",
  )  # fmt: skip
  add_split(parser)
  add_data_root(parser)
  parser.add_argument(
    "--views", type=int, default=0, help="crops of each image whose probabilities are averaged: 1 or 10 (default: as "
    "in config.json)",
  )  # fmt: skip
  parser.add_argument(
    "--known-levels", type=int, default=0, metavar="N", help="give the first N levels of each label (default 0)"
  )
  add_purpose(parser)
  _add_choices(parser)
  selective.add_certificate(parser)
  _add_comparison(parser)
  given.add_given(parser)
  parser.add_argument(
    "--every-metric", action="store_true", help="print every metric of eval/SPLIT.json, and not only the main ones"
  )
  parser.add_argument(
    "--out", default="", metavar="FOLDER", help="the folder for the results of several runs, or of --predictions"
  )
  add_devices(parser)
  add_format(parser)
  add_json(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--alpha", default="", metavar="A",
    help="strength of classifier adaptation, 0 to 2 (1: the levels agree); `sweep` draws the errors for all A and "
    "chooses one on validation, `chosen` uses that one",
  )  # fmt: skip
  parser.add_argument(
    "--threshold", default="", metavar="P",
    help="confidence threshold, 0 to 1: answers are the deepest nodes of a probability of at least P; `sweep` draws "
    "coverage and accuracy for all P and chooses one on validation, which promises nothing for other images; `chosen` "
    "uses that one, `certified` that of --certify",
  )  # fmt: skip
  parser.add_argument(
    "--selective-accuracy", type=float, metavar="SHARE",
    help="the selective accuracy that such a sweep aims at on validation (default 0.95)",
  )  # fmt: skip
  parser.add_argument(
    "--node", default="", help="the node whose probability a sweep of alpha compares with the sum of its children's"
  )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--against", nargs="+", default=[], metavar="WORKDIR", help="runs to compare with, paired in order: t-tests"
  )
  parser.add_argument("--against-alpha", default="", metavar="A", help="alpha of these runs (default: --alpha)")


def run(args: argparse.Namespace) -> int:
  """Prints tables, or with --json the contents of eval/NAME.json, by NAME."""
  from hierjax.runs import devices

  given.check_given(args)
  _check(args)
  if args.predictions:
    with output(args.json) as print_json:
      print_json(given.measure_given(args, _own_folder(args.out) if args.out else None))
    return 0
  devices.prepare(count=args.devices)
  with output(args.json) as print_json:
    print_json(_evaluate(args, devices.data_mesh()))
  return 0


def _check(args: argparse.Namespace) -> None:
  """Raises UserError for arguments that do not go together."""
  if args.known_levels and (args.alpha or args.threshold or args.against or not _is_single(args)):
    raise UserError("--known-levels is for a single run, without --alpha, --threshold and --against")
  if args.selective_accuracy is not None and args.threshold != "sweep":
    raise UserError("--selective-accuracy is the goal of --threshold sweep")
  if args.selective_accuracy is not None and not 0 < args.selective_accuracy <= 1:
    raise UserError(f"--selective-accuracy {args.selective_accuracy:g}: must be above 0, and at most 1")
  selective.check_certificate(args)
  if purpose_of(args) and (args.known_levels or args.against or args.alpha == "sweep"):
    raise UserError(
      "--minimise, --level, --rank and --only are of one set of runs at one alpha: leave out --known-levels, --against "
      "and --alpha sweep"
    )
  if args.threshold and (args.against or args.alpha == "sweep"):
    raise UserError("--threshold needs one set of runs at one alpha: leave out --against, and --alpha sweep")
  if args.node and args.alpha != "sweep":
    raise UserError("--node belongs to the picture of --alpha sweep")
  if args.against and args.alpha in ("sweep", "chosen"):
    raise UserError(f"--against compares at one alpha: give a number in place of --alpha {args.alpha}")
  if args.against_alpha and not args.against:
    raise UserError("--against-alpha is the alpha of the runs of --against, of which there are none")


def _is_single(args: argparse.Namespace) -> bool:
  """Returns whether the command is about one run."""
  return len(args.workdir) == 1 and (Path(args.workdir[0]).is_dir() or "+" not in args.workdir[0])


def _evaluate(args: argparse.Namespace, mesh: Mesh) -> dict[str, Any]:
  """Returns the contents of the files in eval/ by name; of two sets of runs, `significance`."""
  if args.against:
    return _against(args, mesh)
  if _is_single(args) and not args.alpha and not args.threshold and args.certify is None:
    return _plain(args, mesh)
  if repeated.are_repeated(args):
    return repeated.measure_repeated(args, mesh, _own_folder(args.out) if args.out else None)
  from hierjax.inference.members import open_ensemble

  out = _out(args)
  ensemble = open_ensemble(args.workdir, mesh, args.data_root, args.views).for_purpose(purpose_of(args))
  _drop_idle_alpha(args, ensemble)
  if args.certify is not None:
    return selective.certify_threshold(args, ensemble, _needed(out))
  if args.threshold:
    return selective.measure_selective(args, ensemble, out)
  if _is_single(args) and not args.alpha:
    return _plain(args, mesh)
  if args.alpha == "sweep":
    return _alpha_sweep(args, ensemble, _needed(out))
  from hierjax.inference.settings import alpha_of_flag

  alpha = alpha_of_flag(args.alpha, ensemble.tree.depth, out, ensemble.runs)
  return _adapted(args, ensemble, (0.0, alpha) if alpha else (0.0,), out)


def _plain(args: argparse.Namespace, mesh: Mesh) -> dict[str, Any]:
  """Measures one run."""
  from hierjax.evaluation.console import print_metrics
  from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
  from hierjax.runs.folder import NotWritten, RunFolder

  folder = RunFolder(args.workdir[0])
  settings = SplitSettings(args.split, args.data_root, args.views, args.known_levels, purpose_of(args))
  try:
    metrics = evaluate_run(folder, mesh, settings)
  except NotWritten as error:
    print_metrics(folder, error.metrics, args.every_metric)
    raise
  print_metrics(folder, metrics, args.every_metric)
  return {metrics["split"] + settings.suffix: metrics}


def _drop_idle_alpha(args: argparse.Namespace, ensemble: Ensemble) -> None:
  """Checks --alpha; removes it, with a sentence, where it changes nothing."""
  from hierjax.evaluation.several_runs.ensembles import why_alpha_is_idle
  from hierjax.inference.settings import parse_alpha

  if args.alpha not in ("", "sweep", "chosen"):
    parse_alpha(args.alpha, ensemble.tree.depth)
  if args.alpha and (why := why_alpha_is_idle(ensemble)):
    print(why, flush=True)
    args.alpha = ""


def _adapted(
  args: argparse.Namespace, ensemble: Ensemble, alphas: tuple[float, ...], out: RunFolder | None
) -> dict[str, Any]:
  """Measures an ensemble, of one member or several, at several alphas."""
  from hierjax.evaluation.answers import fold
  from hierjax.evaluation.several_runs.ensembles import all_metrics, errors_of, metrics_of, subset_errors
  from hierjax.inference.members import open_images
  from hierjax.inference.pipeline import Stages

  purpose, images = purpose_of(args), open_images(ensemble, args.split)
  stages = Stages(ensemble.whole.run.options, only=purpose.nodes(ensemble.tree))
  errors, metrics = subset_errors(ensemble, alphas, stages), all_metrics(ensemble, alphas, stages)
  rows = _answered_rows(ensemble, alphas, stages)
  fold(ensemble, images, errors, metrics, *rows)
  found = _every_metric(alphas, metrics_of(metrics), rows)
  about = _About(purpose.name, purpose.conditions(ensemble.tree))
  measured = _Measured(errors_of(errors, ensemble, alphas), found, dict(zip(alphas, rows, strict=True)), about)
  return _report(ensemble, images.split, measured, out)


def _answered_rows(ensemble: Ensemble, alphas: tuple[float, ...], stages: Stages) -> list[AnsweredRows]:
  """Returns a taker of the scores of the answers at each alpha."""
  from hierjax.evaluation.metrics.rows import AnsweredRows

  return [AnsweredRows(ensemble, dataclasses.replace(stages, alpha=alpha)) for alpha in alphas]


def _every_metric(
  alphas: tuple[float, ...], means: Iterable[dict[str, Any]], rows: list[AnsweredRows]
) -> dict[float, dict[str, Any]]:
  """Returns all metrics by alpha: the means over batches, and those of the scores with their intervals."""
  from hierjax.evaluation.classes import class_summary
  from hierjax.evaluation.metrics.measure import measured

  return {
    alpha: {**mean, **measured(scores.facts), **class_summary(scores.facts)}
    for alpha, mean, scores in zip(alphas, means, rows, strict=True)
  }


def _alpha_sweep(args: argparse.Namespace, ensemble: Ensemble, out: RunFolder) -> dict[str, Any]:
  """Chooses alpha on validation, and draws the errors on another split for all alphas."""
  extras.require("report")
  from hierjax.evaluation.answers import fold
  from hierjax.evaluation.choosing.alpha import alpha_grid, choose_alpha
  from hierjax.evaluation.several_runs.ensembles import all_metrics, errors_of, metrics_of, subset_errors
  from hierjax.inference.loaded_run import images_suffix
  from hierjax.inference.members import open_images
  from hierjax.inference.pipeline import Stages
  from hierjax.report.plots.adaptation import AlphaSweep, draw_alpha_sweep
  from hierjax.report.plots.consistency import Consistency, draw_consistency, find_node, node_masses

  node, images = find_node(ensemble.tree, args.node), open_images(ensemble, args.split)
  alphas, validation, alpha, refused = alpha_grid(ensemble.tree.depth), None, None, ""
  stages = Stages(ensemble.whole.run.options)
  if ensemble.whole.run.source("validation") is not None:
    sums = subset_errors(ensemble, alphas, stages)
    fold(ensemble, open_images(ensemble, "validation"), sums)
    validation = errors_of(sums, ensemble, alphas)
    alpha, refused = choose_alpha(out, ensemble, validation)
  shown = (0.0, 1.0 if alpha is None else alpha)
  sums, metrics = subset_errors(ensemble, alphas, stages), all_metrics(ensemble, shown, stages)
  masses = node_masses(ensemble, node)
  rows = _answered_rows(ensemble, shown, stages)
  fold(ensemble, images, sums, metrics, masses, *rows)
  errors = errors_of(sums, ensemble, alphas)
  found = _every_metric(shown, metrics_of(metrics), rows)
  measured = _Measured(errors.at(shown), found, dict(zip(shown, rows, strict=True)))
  named = _report(ensemble, images.split, measured, out)
  if alpha is None:
    print(f"\n{ensemble.whole.run.data.name!r} has no validation split: no alpha is chosen, and 1 is shown")
  else:
    where = f"{refused}; give the value itself" if refused else out.path / "choices.json"
    print(f"\nalpha = {alpha:g} is chosen on validation: {where}")
  sweep = AlphaSweep(ensemble.name, images.split, len(images.source), errors, validation, alpha)
  run, suffix = ensemble.whole.run, images_suffix(out, ensemble.whole.run, images.split, next(iter(named)))
  suffix = suffix or ("" if validation is None else images_suffix(out, run, "validation"))
  print(draw_alpha_sweep(out, sweep, args.format, suffix))
  print(draw_consistency(out, Consistency.of(masses, ensemble, images, node), args.format, suffix))
  return named


class _About(NamedTuple):
  """What answers are for: the end of the file's name, and the conditions in the file."""

  suffix: str = ""
  conditions: Mapping[str, Any] = {}


class _Measured(NamedTuple):
  """Errors of the subsets of an ensemble; all metrics of the whole, and the scores of its images, by alpha."""

  errors: Errors
  metrics: dict[float, dict[str, Any]]
  rows: dict[float, AnsweredRows]
  about: _About = _About()


def _report(ensemble: Ensemble, split: str, measured: _Measured, out: RunFolder | None) -> dict[str, Any]:
  """Prints the metrics by alpha, writes them to eval/ of a folder, and returns them by name."""
  import numpy as np

  from hierjax.evaluation.classes import write_classes
  from hierjax.evaluation.console import ensemble_errors, print_ensemble

  several = len(ensemble.members) > 1
  tree = ensemble.tree
  sizes = {"level_names": list(tree.named_levels), "level_sizes": np.diff(tree.level_offsets).tolist()}
  data = ensemble.whole.run.images_of(split)
  about = {"split": split, "data": data, "members": ensemble.about(), **measured.about.conditions, **sizes}
  found = {alpha: {**about, "alpha": alpha, **values} for alpha, values in measured.metrics.items()}
  for number, values in enumerate(found.values()):
    if several:
      values["ensembles"] = ensemble_errors(measured.errors, number)
  print_ensemble(ensemble.name, found)
  split += measured.about.suffix
  names = {alpha: f"{split}-alpha{alpha:g}" if alpha or not several else split for alpha in found}
  for alpha, name in names.items():
    if out is not None:
      write_classes(out.write_evaluation(name, found[alpha]), measured.rows[alpha].facts)
  return {name: found[alpha] for alpha, name in names.items()}


def _against(args: argparse.Namespace, mesh: Mesh) -> dict[str, Any]:
  """Compares two sets of runs, pair by pair."""
  from hierjax.evaluation.several_runs import significance
  from hierjax.evaluation.several_runs.ensembles import Pair
  from hierjax.inference.members import open_ensemble, open_images
  from hierjax.inference.settings import parse_alpha
  from hierjax.runs.folder import write_table

  out = _own_folder(args.out) if args.out else None
  first, second = (open_ensemble(w, mesh, args.data_root, args.views) for w in (args.workdir, args.against))
  pair = Pair(first, second, (open_images(first, args.split), open_images(second, args.split)))
  depth = pair.first.tree.depth
  alpha = parse_alpha(args.alpha or "0", depth)
  other_alpha = parse_alpha(args.against_alpha, depth, "--against-alpha") if args.against_alpha else alpha
  found = pair.differences((alpha, other_alpha))
  names = [f"{e.name}, alpha {a:g}" for e, a in ((pair.first, alpha), (pair.second, other_alpha))]
  print(f"\n{len(pair.images[0].source):,} images of {pair.images[0].split}\n  first: {names[0]}\n  second: {names[1]}")
  print(significance.difference_table(found))
  if out is not None:
    table = out.path / "significance.csv"
    write_table(table, significance.HEADER, significance.csv_rows(found))
    print(table)
  rows = [dict(zip(significance.HEADER, row, strict=True)) for row in significance.csv_rows(found)]
  return {"significance": rows}


def _out(args: argparse.Namespace) -> RunFolder | None:
  """Returns the folder for results, or None."""
  from hierjax.runs.folder import RunFolder

  if args.out:
    return _own_folder(args.out)
  if _is_single(args):
    return RunFolder(args.workdir[0])
  if args.certify is not None:
    raise UserError("--certify of several runs needs a folder of their own: give --out FOLDER")
  for flag, text in (("alpha", args.alpha), ("threshold", args.threshold)):
    if text in ("sweep", "chosen", "certified"):
      raise UserError(f"--{flag} {text} of several runs needs a folder of their own: give --out FOLDER")
  return None


def _needed(out: RunFolder | None) -> RunFolder:
  assert out is not None  # `_out` refuses a sweep without a folder
  return out


def _own_folder(path: str) -> RunFolder:
  from hierjax.runs.folder import RunFolder

  if (Path(path) / "config.json").exists():
    raise UserError(f"--out {path} is the folder of a run: give another folder for results that are not its own")
  return RunFolder(path)
