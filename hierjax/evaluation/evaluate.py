"""`hierjax evaluate`: a run or an ensemble, adapted, or stopping where not sure; or two sets of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hierjax.errors import UserError
from hierjax.evaluation import significance
from hierjax.evaluation.alpha import CHOSEN, SWEEP, asked_alpha, check_asked, grid, keep_alpha, parse_alpha
from hierjax.evaluation.asked import same_images
from hierjax.evaluation.console import ensemble_errors, print_accuracy, print_ensemble
from hierjax.evaluation.ensemble import AllMetrics, ErrorCount, Errors, Mistakes, tell, unchanged
from hierjax.evaluation.evaluate_run import evaluate_run
from hierjax.evaluation.selective import AnswerCount, Answers, asked_below, describe, keep_choice
from hierjax.inference.members import JOIN, Ensemble, Images, open_ensemble, open_images, short_checksum
from hierjax.runs.folder import NotWritten, RunFolder, write_table

_RIGHT = 0.95  # of the answers, where nothing else is asked for


@dataclasses.dataclass(frozen=True)
class Question:
  """What stands on the command line.

  Attributes:
    workdirs: a member each: a run's folder, or several joined by JOIN.
    split: `train`, `validation` or `test`; '' for test, or else validation.
    data_root: where the data set of all is now; '' for where their configs say.
    views: of each image that are averaged; 0 for what each config says.
    known_levels: upper levels of the labels that are given.
    alpha: a number, CHOSEN or SWEEP; '' for no adaptation.
    stop_below: the probability of a node below which a path ends above it, CHOSEN or SWEEP; '' for whole paths.
    right: the share of answers that a sweep wants right on validation.
    node: whose consistency a sweep draws; '' for the first.
    against: the members of another set.
    against_alpha: a number for that set; '' for that of the first.
    out: the folder for what is written; '' for that of a single run, or nowhere.
  """

  workdirs: Sequence[str]
  split: str = ""
  data_root: str = ""
  views: int = 0
  known_levels: int = 0
  alpha: str = ""
  stop_below: str = ""
  right: float | None = None
  node: str = ""
  against: Sequence[str] = ()
  against_alpha: str = ""
  out: str = ""

  @property
  def single(self) -> bool:
    """Whether it is about one run."""
    return len(self.workdirs) == 1 and (Path(self.workdirs[0]).is_dir() or JOIN not in self.workdirs[0])

  def __post_init__(self) -> None:
    """Raises UserError for what does not go together."""
    if self.known_levels and (self.alpha or self.stop_below or self.against or not self.single):
      raise UserError("--known-levels is for a single run, without --alpha, --stop-below and --against")
    if self.right is not None and self.stop_below != SWEEP:
      raise UserError(f"--right is what --stop-below {SWEEP} looks for")
    if self.right is not None and not 0 < self.right <= 1:
      raise UserError(f"--right {self.right:g}: a share of the answers is more than 0, and at most 1")
    if self.stop_below and (self.against or self.alpha == SWEEP):
      raise UserError(f"--stop-below is of one set of runs, at one alpha: leave out --against, and --alpha {SWEEP}")
    if self.node and self.alpha != SWEEP:
      raise UserError(f"--node is of the picture that --alpha {SWEEP} draws")
    if self.against and self.alpha in (SWEEP, CHOSEN):
      raise UserError(f"--against compares at one alpha: give a number in place of --alpha {self.alpha}")
    if self.against_alpha and not self.against:
      raise UserError("--against-alpha is that of the runs of --against, of which there are none")


def evaluate(question: Question, mesh: Mesh) -> dict[str, Any]:
  """Measures what is asked about, writes it down and prints it.

  Returns:
    What eval/NAME.json holds, by NAME; of two sets of runs, `significance`.

  Raises:
    UserError: a folder, the data or the question cannot be used.
  """
  if question.against:
    return _against(question, mesh)
  if question.stop_below:
    return _stopping(question, mesh)
  if question.single and not question.alpha:
    return _plain(question, mesh)
  return _ensemble(question, mesh)


def _plain(question: Question, mesh: Mesh) -> dict[str, Any]:
  folder = RunFolder(question.workdirs[0])
  try:
    metrics = evaluate_run(
      folder, mesh, question.split, question.data_root, question.views, known_levels=question.known_levels
    )
  except NotWritten as error:
    print_accuracy(folder, error.metrics)
    raise
  print_accuracy(folder, metrics)
  known = f"-known{question.known_levels}" if question.known_levels else ""
  return {f"{metrics['split']}{known}": metrics}


def _ensemble(question: Question, mesh: Mesh) -> dict[str, Any]:
  """Measures an ensemble, of one member or several, and what adaptation makes of it."""
  out = _out(question)
  ensemble = open_ensemble(question.workdirs, mesh, question.data_root, question.views)
  asked = question.alpha
  check_asked(asked, ensemble.tree.depth)
  if asked and (why := unchanged(ensemble)):
    print(why, flush=True)
    asked = ""
  if not asked and question.single:
    return _plain(question, mesh)
  if asked == SWEEP:
    assert out is not None
    return _sweep(ensemble, question, out)
  alpha = asked_alpha(asked, ensemble.tree.depth, out, [(part.folder, part.step) for part in ensemble.parts])
  images = open_images(ensemble, question.split)
  alphas = (0.0, alpha) if alpha else (0.0,)
  errors, metrics = ErrorCount(ensemble, alphas), AllMetrics(ensemble, alphas)
  tell(ensemble, images, errors, metrics)
  return _report(ensemble, images, errors.errors(), dict(zip(alphas, metrics.values(), strict=True)), out)


def _stopping(question: Question, mesh: Mesh) -> dict[str, Any]:
  """Measures the answers of runs whose paths end where they are not sure."""
  out = _out(question)
  ensemble = open_ensemble(question.workdirs, mesh, question.data_root, question.views)
  parts = [(part.folder, part.step) for part in ensemble.parts]
  alpha = asked_alpha(question.alpha, ensemble.tree.depth, out, parts)
  if alpha is not None and (why := unchanged(ensemble)):
    print(why, flush=True)
    alpha = None
  images = open_images(ensemble, question.split)
  if question.stop_below == SWEEP:
    assert out is not None
    return _stop_sweep(ensemble, images, alpha, _RIGHT if question.right is None else question.right, out)
  views = [part.run.options.views for part in ensemble.parts]
  below = asked_below(question.stop_below, out, parts, views, alpha)
  return _report_answers(ensemble, images, alpha, _answers(ensemble, images, alpha), below, out)


def _stop_sweep(
  ensemble: Ensemble, images: Images, alpha: float | None, wanted: float, out: RunFolder
) -> dict[str, Any]:
  """Chooses on validation where paths end, and draws what comes of it for other images."""
  from hierjax.report.plots.selective import Stops, draw_stops

  if ensemble.whole.run.source("validation") is None:
    raise UserError(
      f"--stop-below {SWEEP}: it chooses on validation, and {ensemble.whole.run.data.name!r} has no such split; train "
      "with config.data.validation = 0.1, or give a probability"
    )
  validation = _answers(ensemble, open_images(ensemble, "validation"), alpha)
  below = keep_choice(out, ensemble, alpha, validation, wanted)
  answers = _answers(ensemble, images, alpha)
  found = _report_answers(ensemble, images, alpha, answers, below, out)
  print(f"\n{below:g} is chosen on validation, {100 * wanted:g}% right: {out.path / 'stop.json'}")
  print(draw_stops(out, Stops(_name(ensemble), images.split, answers, validation, wanted, below)))
  return found


def _answers(ensemble: Ensemble, images: Images, alpha: float | None) -> Answers:
  count = AnswerCount(ensemble, alpha)
  tell(ensemble, images, count)
  return count.answers()


def _report_answers(
  ensemble: Ensemble, images: Images, alpha: float | None, answers: Answers, below: float, out: RunFolder | None
) -> dict[str, Any]:
  """Prints what answers are worth, and writes it to eval/SPLIT-stop.json of a folder."""
  head = f"{_name(ensemble)}: {len(answers.sure):,} images of {images.split}"
  print(f"\n{head}; paths end above nodes less probable than {below:g}\n{describe(answers, below)}")
  about = {"split": images.split, "members": ensemble.about(), "alpha": alpha, "num_examples": len(answers.sure)}
  found = {**about, "stop_below": below, **answers.at(below)}
  if out is not None:
    out.write_evaluation(f"{images.split}-stop", found)
  return {f"{images.split}-stop": found}


def _out(question: Question) -> RunFolder | None:
  """Returns the folder for what is written, or None."""
  if not question.out:
    if question.single:
      return RunFolder(question.workdirs[0])
    for flag, text in (("alpha", question.alpha), ("stop-below", question.stop_below)):
      if text in (SWEEP, CHOSEN):
        raise UserError(f"--{flag} {text} of several runs needs a folder of their own: give --out FOLDER")
    return None
  return _own_folder(question.out)


def _own_folder(path: str) -> RunFolder:
  if (Path(path) / "config.json").exists():
    raise UserError(f"--out {path} is the folder of a run: give another for what is not of that run alone")
  return RunFolder(path)


def _sweep(ensemble: Ensemble, question: Question, out: RunFolder) -> dict[str, Any]:
  """Chooses alpha on validation, and draws what all alphas make of other images."""
  from hierjax.report.plots.adaptation import Sweep, draw_sweep
  from hierjax.report.plots.consistency import ConsistencyCount, draw_consistency, find_node

  node, images = find_node(ensemble.tree, question.node), open_images(ensemble, question.split)
  alphas, validation, alpha = grid(ensemble.tree.depth), None, None
  if ensemble.whole.run.source("validation") is not None:
    count = ErrorCount(ensemble, alphas)
    tell(ensemble, open_images(ensemble, "validation"), count)
    validation = count.errors()
    alpha = float(keep_alpha(out, ensemble, validation)["alpha"])
  shown = (0.0, 1.0 if alpha is None else alpha)
  errors, metrics, consistency = (
    ErrorCount(ensemble, alphas), AllMetrics(ensemble, shown), ConsistencyCount(ensemble, node),
  )  # fmt: skip
  tell(ensemble, images, errors, metrics, consistency)
  found = _report(ensemble, images, errors.errors().at(shown), dict(zip(shown, metrics.values(), strict=True)), out)
  name = _name(ensemble)
  if alpha is None:
    print(f"\n{ensemble.whole.run.data.name!r} has no validation split: no alpha is chosen, and 1 is shown")
  else:
    print(f"\nalpha = {alpha:g} is chosen on validation: {out.path / 'alpha.json'}")
  print(draw_sweep(out, Sweep(name, images.split, len(images.source), errors.errors(), validation, alpha)))
  print(draw_consistency(out, consistency.consistency(images, name)))
  return found


def _report(
  ensemble: Ensemble, images: Images, errors: Errors, metrics: dict[float, dict[str, Any]], out: RunFolder | None
) -> dict[str, Any]:
  """Prints what was measured, by alpha, and writes it to eval/ of a folder."""
  several = len(ensemble.members) > 1
  about: dict[str, Any] = {
    "split": images.split,
    "members": ensemble.about(),
    "level_sizes": np.diff(ensemble.tree.level_offsets).tolist(),
  }
  found = {alpha: {**about, "alpha": alpha, **values} for alpha, values in metrics.items()}
  for number, values in enumerate(found.values()):
    if several:
      values["ensembles"] = ensemble_errors(errors, number)
  print_ensemble(_name(ensemble), found)
  named = {f"{images.split}-alpha{a:g}" if a or not several else images.split: values for a, values in found.items()}
  if out is not None:
    for name, values in named.items():
      out.write_evaluation(name, values)
  return named


def _name(ensemble: Ensemble) -> str:
  """Returns what to call an ensemble: the one member's name, or how many there are and the first."""
  count = len(ensemble.members)
  return ensemble.names[0] if count == 1 else f"{count} runs, {ensemble.names[0]} and others"


def _against(question: Question, mesh: Mesh) -> dict[str, Any]:
  """Compares two sets of runs, pair by pair."""
  first, second = (
    open_ensemble(workdirs, mesh, question.data_root, question.views)
    for workdirs in (question.workdirs, question.against)
  )
  significance.check_pairs(len(first.members), len(second.members))
  out = _own_folder(question.out) if question.out else None
  depth = first.tree.depth
  alpha = parse_alpha(question.alpha or "0", depth)
  other_alpha = parse_alpha(question.against_alpha, depth, "--against-alpha") if question.against_alpha else alpha
  images, other_images = open_images(first, question.split), open_images(second, question.split)
  _check_same(first, second, images, other_images)
  ours, theirs = Mistakes(first, alpha), Mistakes(second, other_alpha)
  tell(first, images, ours)
  tell(second, other_images, theirs)
  (wrong, counted), (other_wrong, other_counted) = ours.noted(len(images.source)), theirs.noted(len(images.source))
  found = significance.differences(wrong, other_wrong, counted & other_counted)
  names = tuple(f"{_name(e)}, alpha {a:g}" for e, a in ((first, alpha), (second, other_alpha)))
  print(f"\n{len(images.source):,} images of {images.split}\n  first: {names[0]}\n  second: {names[1]}")
  print(significance.describe(found))
  if out is not None:
    table = out.path / "significance.csv"
    write_table(table, significance.HEADER, significance.rows(found))
    print(table)
  rows = [dict(zip(significance.HEADER, row, strict=True)) for row in significance.rows(found)]
  return {"significance": rows}


def _check_same(first: Ensemble, second: Ensemble, images: Images, other: Images) -> None:
  ours, theirs = first.whole, second.whole
  if ours.run.tree != theirs.run.tree:
    raise UserError(
      f"{ours.folder.path} (tree {short_checksum(ours.run.tree)}) and {theirs.folder.path} (tree "
      f"{short_checksum(theirs.run.tree)}) have different label trees, so they cannot be compared"
    )
  if images.split != other.split or not same_images((ours.run, theirs.run), images.source, other.source):
    raise UserError(f"{ours.folder.path} and {theirs.folder.path} are not judged on the same images")
