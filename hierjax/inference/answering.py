"""A run ready to be asked about images: its weights, and what was chosen for it on validation, as one pure function."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from hierjax.data.augment import check_views
from hierjax.errors import UserError
from hierjax.evaluation.alpha import asked_alpha, check_asked
from hierjax.evaluation.ensemble import why_unchanged
from hierjax.evaluation.runner import predict_views
from hierjax.evaluation.selective import asked_below
from hierjax.evaluation.thresholds import kept_thresholds, predicts_several
from hierjax.functional.adaptation import adapted
from hierjax.functional.selective import stopped
from hierjax.inference.features import as_features, origin
from hierjax.inference.members import shape_of_answer
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import DecodeOptions, Examples, Method, Variables


class Answer(NamedTuple):
  """What a run says of a batch of images.

  Attributes:
    paths: `i32[b k l]`, the best paths, each to where it stops; tokens below 0 from there on.
    log_prob: `f32[b k]`, the score that ranks them (READINGS A4); -inf where there is no further path.
    node_prob: `f32[b n]`, the probability of each node.
  """

  paths: Int[Array, "b k l"]
  log_prob: Float[Array, "b k"]
  node_prob: Float[Array, "b n"]


@dataclasses.dataclass(frozen=True)
class Answering:
  """What it takes to answer as a run does.

  Attributes:
    run: the run that answers.
    eye: the run that sees the images: the same one, or the one that made the features which it reads.
    step: the step of the weights that count.
    weights: those of `run` by the name `model`, and of another `eye` by `eye`, but for its head.
    options: how paths are decoded.
    top: how many paths of each image.
    alpha: by which the levels are adapted; None for not at all.
    below: paths end above nodes less probable than this, 0 to 1.
  """

  run: Run
  eye: Run
  step: int
  weights: Mapping[str, Variables]
  options: DecodeOptions
  top: int
  alpha: float | None
  below: float

  @classmethod
  def open(cls, workdir: str | Path, mesh: Mesh, top: int = 1, alpha: str = "", stop_below: str = "") -> Answering:
    """Opens a run's folder.

    Args:
      workdir: the folder.
      mesh: where the weights are put.
      top: how many paths of each image; where the head predicts several, all that its beam finds.
      alpha: as on the command line: a number, or `chosen`; '' for not at all.
      stop_below: a number, or `chosen`; '' for whole paths.

    Raises:
      UserError: the folder is not that of a run, or has no checkpoint, or nothing makes the features that it reads; or
        its images are neither grey nor RGB; or alpha or stop_below is out of range, or has not been chosen.
    """
    folder = RunFolder(workdir)
    run = Run.from_folder(folder)
    check_asked(alpha, run.tree.depth)
    eye, weights = (run, {}) if len(run.example_shape) == 3 else origin(run, mesh)
    _check_sees_files(eye)
    step, variables = run.restored_variables(folder, mesh)
    options = dataclasses.replace(run.options, beam=max(top, run.options.beam))
    if predicts_several(run):
      if stop_below:
        raise UserError(
          "--stop-below: the head of this run predicts several paths an image, whose thresholds say the same"
        )
      top = options.beam  # all that pass
      options = dataclasses.replace(options, thresholds=_thresholds(folder, step, options))
    if alpha and (why := why_unchanged(shape_of_answer(run, variables), run.tree.depth)):
      print(why, file=sys.stderr)
      alpha = ""
    factor = asked_alpha(alpha, run.tree.depth, folder, [(folder, step)])
    below = asked_below(stop_below, folder, [(folder, step)], [options.views], factor) if stop_below else 0.0
    seeing = {name: {part: w for part, w in kind.items() if part != "head"} for name, kind in weights.items()}
    both = {"model": variables} | ({"eye": seeing} if eye is not run else {})
    return cls(run, eye, step, both, options, top, factor, below)

  @property
  def may_be_silent(self) -> bool:
    """Whether an image may get no path at all."""
    return self.below > 0 or predicts_several(self.run)

  def answer(self, method: Method, weights: Mapping[str, Variables], images: UInt8[Array, "b h w c"]) -> Answer:
    """Returns what the run says of images; jittable, with `run.method` and `weights` as arguments.

    Args:
      method: `run.method`.
      weights: `weights`.
      images: squares of `eye.data.resize` pixels, as `read_image` makes them, of a channel for each of
        `eye.data.mean`.
    """
    b = images.shape[0]
    paths = jnp.full((b, 1, self.run.tree.depth), UNKNOWN, jnp.int32)
    examples = Examples(images=images, paths=paths, mask=jnp.ones(b), draw=jnp.zeros((b, 2), jnp.int32))
    see = self.eye.preprocess if self.eye is self.run else functools.partial(as_features, self.eye, weights["eye"])
    prediction = predict_views(method, weights["model"], examples, see, self.options)
    if self.alpha is not None:
      prediction = adapted(prediction, self.alpha, method.tree, self.options.beam)
    shown = stopped(prediction.paths[:, : self.top], prediction.node_prob, self.below)
    return Answer(shown, prediction.log_prob[:, : self.top], prediction.node_prob)


def _check_sees_files(run: Run) -> None:
  channels = len(run.data.mean)
  if channels not in (1, 3):
    raise UserError(
      f"config.data.mean = {run.data.mean}: this run reads images of {channels} channels, and files of images are grey "
      "or RGB; `evaluate` asks it about the images of its set"
    )
  check_views(run.options.views, (run.data.resize, run.data.resize, channels), run.data.crop)


def _thresholds(folder: RunFolder, step: int, options: DecodeOptions) -> tuple[float, ...]:
  """Returns the thresholds that the config gives, or else those that were chosen; () where none were, and says so."""
  kept = options.thresholds or kept_thresholds(folder, step, options)
  if not kept:
    print(
      f"thresholds: none were chosen for step {step}, so each is 0.5; `evaluate` chooses them on validation",
      file=sys.stderr,
    )
  return kept
