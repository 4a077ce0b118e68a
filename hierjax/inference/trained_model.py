"""A trained run with its choices as one pure function from pixels to paths: of `predict`, `export` and `Predictor`."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, UInt8

from hierjax.data.augment import check_views
from hierjax.errors import UserError
from hierjax.functional.costs import COSTS
from hierjax.functional.selective import UNSHORTENED, shortened
from hierjax.inference.answers import Answer
from hierjax.inference.features import features_of_images, origin
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.members import distribution_shape
from hierjax.inference.pipeline import Stages, finish, view_distributions
from hierjax.inference.purpose import Purpose
from hierjax.inference.settings import alpha_of_flag, kept_thresholds, threshold_of_flag, why_unadapted
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import DecodeOptions, Examples, Method, Variables


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
  """The settings of the answers to `predict`, as on the command line.

  Attributes:
    top: the number of paths of each image. A multi-label head returns all paths that its beam finds.
    alpha: of classifier adaptation: a number, or `chosen`; '' for none.
    threshold: the confidence threshold: a number, `chosen` or `certified`; '' for none.
    purpose: what the answers are for.
  """

  top: int = 1
  alpha: str = ""
  threshold: str = ""
  purpose: Purpose = Purpose()

  def __post_init__(self) -> None:
    """Raises UserError for a value out of range."""
    if self.top < 1:
      raise UserError(f"--top {self.top}: give 1 or more paths an image")


@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """A run with its weights and its choices.

  Attributes:
    run: the run that predicts.
    eye: the run that reads the images: the same one, or the one that made the features which `run` reads.
    step: the step of the weights.
    weights: those of `run` by the name `model`, and of another `eye` by `eye`, without its head.
    top: the number of paths of each image.
    stages: the settings of the pipeline.
  """

  run: Run
  eye: Run
  step: int
  weights: Mapping[str, Variables]
  top: int
  stages: Stages

  @classmethod
  def open(cls, workdir: str | Path, mesh: Mesh, settings: AnswerSettings = AnswerSettings()) -> TrainedModel:
    """Opens a run's folder.

    Raises:
      UserError: the folder is not that of a run, or has no checkpoint, or nothing makes the features that it reads; or
        its images are neither grey nor RGB; or a setting is out of range, or has not been chosen.
    """
    folder = RunFolder(workdir)
    run = Run.from_folder(folder)
    eye, weights = (run, {}) if len(run.example_shape) == 3 else origin(run, mesh)
    _check_reads_files(eye)
    loaded = LoadedRun(folder, run, *run.restored_variables(folder, mesh), mesh)
    stages = _stages(loaded, settings)
    body = {name: {part: w for part, w in kind.items() if part != "head"} for name, kind in weights.items()}
    both = {"model": loaded.variables} | ({"eye": body} if eye is not run else {})
    top = stages.options.beam if run.method.module.head.multilabel else settings.top
    return cls(run, eye, loaded.step, both, top, stages)

  @property
  def may_abstain(self) -> bool:
    """Whether an image may get no path at all."""
    stages = self.stages
    restricted = stages.only is not None or stages.options.rule in COSTS  # the root may cost least
    return stages.threshold > 0 or restricted or bool(self.run.method.module.head.multilabel)

  @property
  def rule(self) -> str:
    """The rule that chooses the nodes of an answer, in words for people."""
    options = self.stages.options
    if self.run.method.module.head.multilabel:
      return "all paths that pass the thresholds of the head"
    if self.stages.threshold and options.rule == "beam":
      return "the deepest node that is probable enough"
    levels = self.run.tree.named_levels
    if options.rule == "level":
      return f"the most probable node of {levels[(options.level or len(levels)) - 1]}"
    return f"the smallest expected {options.rule}" if options.rule in COSTS else f"decode.rule = {options.rule}"

  def answer(self, method: Method, weights: Mapping[str, Variables], images: UInt8[Array, "b h w c"]) -> Answer:
    """Returns the answer for images; jittable, with `run.method` and `weights` as arguments.

    Args:
      method: `run.method`.
      weights: `weights`.
      images: squares of `eye.data.resize` pixels, as `read_image` makes them, with a channel for each number of
        `eye.data.mean`.
    """
    b = images.shape[0]
    paths = jnp.full((b, 1, self.run.tree.depth), UNKNOWN, jnp.int32)
    examples = Examples(images=images, paths=paths, mask=jnp.ones(b), draw=jnp.zeros((b, 2), jnp.int32))
    see = (
      self.eye.preprocess if self.eye is self.run else functools.partial(features_of_images, self.eye, weights["eye"])
    )
    found, _ = view_distributions(method, weights["model"], functools.partial(see, examples), self.stages.options)
    threshold = self.stages.threshold
    whole = finish(found, dataclasses.replace(self.stages, threshold=UNSHORTENED if threshold else 0.0), method.tree)
    answer = shortened(whole, threshold) if threshold else whole
    paths, log_prob, unshortened = (x[:, : self.top] for x in (answer.paths, answer.log_prob, whole.paths))
    return Answer(paths, log_prob, answer.node_prob, unshortened)


def _stages(loaded: LoadedRun, settings: AnswerSettings) -> Stages:
  """Returns the settings of the pipeline for a run, with the values that were chosen for it."""
  run, folder, step = settings.purpose.of_run(loaded.run), loaded.folder, loaded.step
  options = dataclasses.replace(run.options, beam=max(settings.top, run.options.beam))
  if run.method.module.head.multilabel:
    if settings.threshold:
      raise UserError(
        "--threshold: a multi-label head has thresholds of its own, config.decode.thresholds; leave it out"
      )
    options = dataclasses.replace(options, thresholds=_thresholds(folder, step, options))
  alpha = alpha_of_flag(settings.alpha, run.tree.depth, folder, [(folder, step)])
  if alpha and (why := why_unadapted(distribution_shape(run, loaded.variables), run.tree.depth)):
    print(why, file=sys.stderr)
    alpha = 0.0
  conditions = {"views": [options.views], "alpha": alpha, **settings.purpose.conditions(run.tree)}
  threshold = threshold_of_flag(settings.threshold, folder, [(folder, step)], conditions)
  return Stages(options, alpha=alpha, only=settings.purpose.nodes(run.tree), threshold=threshold)


def _check_reads_files(run: Run) -> None:
  channels = len(run.data.mean)
  if channels not in (1, 3):
    raise UserError(
      f"config.data.mean = {run.data.mean}: this run reads images of {channels} channels, and image files are grey or "
      "RGB; `evaluate` measures it on the images of its set"
    )
  check_views(run.options.views, (run.data.resize, run.data.resize, channels), run.data.crop)


def _thresholds(folder: RunFolder, step: int, options: DecodeOptions) -> tuple[float, ...]:
  """Returns the thresholds of the config, or else those that were chosen; () where there are none, with a warning."""
  kept = options.thresholds or kept_thresholds(folder, step, options)
  if not kept:
    print(
      f"thresholds: none were chosen for step {step}, so each is 0.5; `hierjax evaluate` chooses them on validation",
      file=sys.stderr,
    )
  return kept
