"""Certificates: a confidence threshold whose answers are right with a promised share, tested on calibration images.

Fixed-sequence testing (Bauer 1991; Angelopoulos et al. 2021, Learn then Test) of the thresholds of a fixed grid, from
the strictest to the loosest, each by an exact binomial test, that is by the bound of Clopper and Pearson (1934). The
theorem, its proof and its conditions are in docs/how_to/abstaining.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hierjax.errors import UserError
from hierjax.evaluation.choosing.selective import GRID, Confidences, of_own_images, record_of
from hierjax.evaluation.tables import percent
from hierjax.inference.members import Ensemble
from hierjax.inference.settings import threshold_conditions
from hierjax.runs.choices import Choice, keep_choice
from hierjax.runs.folder import RunFolder

READINGS = ("answers", "images")
STRICT_FIRST = GRID[::-1]  # the order of the tests, which no label and no confidence changes
GUIDES = 10  # one image of so many says where the tests begin
_MOST_NEEDED = 10**8


@dataclasses.dataclass(frozen=True)
class Promise:
  """What is to hold for images like the calibration images.

  Attributes:
    right: the least share, above 0 and below 1.
    sure: the probability over the choice of the calibration images that the promise is kept, above 0 and below 1.
    of: `answers`: that share of the answers is right. `images`: at most 1 - `right` of all images get a wrong answer.
  """

  right: float
  sure: float = 0.9
  of: str = "answers"

  def __post_init__(self) -> None:
    """Raises UserError for a value out of range."""
    for flag, value in (("--certify", self.right), ("--sure", self.sure)):
      if not 0 < value < 1:
        raise UserError(f"{flag} {value:g}: must be above 0 and below 1; no number of images shows that all are right")
    if self.of not in READINGS:
      raise UserError(f"--of {self.of}: choose from {', '.join(READINGS)}")

  @property
  def fewest(self) -> int:
    """The fewest trials that can keep the promise: if all of them are right."""
    return math.ceil(math.log(1 - self.sure) / math.log(self.right) - 1e-9)


def lower_bound(
  right: Int[np.ndarray, "*g"] | int, trials: Int[np.ndarray, "*g"] | int, sure: float
) -> Float[np.ndarray, "*g"]:
  """Returns the one-sided lower bound of a probability by Clopper and Pearson (1934), 0 to 1; 0 without trials.

  It is at most the probability with a chance of at least `sure`. It is at least p exactly where the binomial test of p
  against more than p rejects at the level 1 - `sure`.

  Args:
    right: successes, 0 to `trials`.
    trials: 0 or more.
    sure: above 0 and below 1.
  """
  from scipy.stats import beta  # 3 seconds, which every command would wait for

  right, trials = np.asarray(right), np.asarray(trials)
  bound: np.ndarray = beta.ppf(1 - sure, np.maximum(right, 1), trials - right + 1)
  return np.where(right > 0, bound, 0.0)


class Trials(NamedTuple):
  """The binomial trials at each threshold, the strictest first.

  Attributes:
    right: `i64[g]`, successes: right answers; of all images, also those without an answer.
    total: `i64[g]`, trials: answers, or all images.
    answers: `i64[g]`, answers.
  """

  right: Int[np.ndarray, "g"]
  total: Int[np.ndarray, "g"]
  answers: Int[np.ndarray, "g"]


@dataclasses.dataclass(frozen=True)
class Certificate:
  """The outcome of the tests of a promise.

  Attributes:
    promise: what was tested.
    threshold: the loosest threshold for which the promise holds; where it holds for none, the one tested first.
    certified: whether the promise holds there.
    bound: the lower bound of the share there. Where nothing is certified, this share is what can be promised instead.
    right: successes there, of `trials`.
    trials: answers, or all images.
    answers: answers there.
    images: how many calibration images there are.
    needed: about how many would be enough for the threshold tested first; None where they are, or where no number is.
  """

  promise: Promise
  threshold: float
  certified: bool
  bound: float
  right: int
  trials: int
  answers: int
  images: int
  needed: int | None

  def about(self) -> dict[str, Any]:
    """Returns the certificate as plain data; `certified` is the promised share or None."""
    shared = {"sure": self.promise.sure, "of": self.promise.of, "bound": self.bound}
    counts = {"right": self.right, "trials": self.trials, "answers": self.answers}
    images = {"images": self.images, "images_needed": self.needed}
    return {"certified": self.promise.right if self.certified else None, **shared, **counts, **images}


def certify(found: Confidences, promise: Promise) -> Certificate:
  """Returns the loosest threshold whose promise is proved by calibration images, or what can be promised instead.

  Args:
    found: the confidences for the calibration images.
    promise: what is to hold.
  """
  start, tested = (0, np.ones(len(found.length), bool)) if promise.of == "images" else guided_start(found, promise)
  trials = trials_of(found.taken(tested), promise.of)
  return certificate_of(trials, promise, start, len(found.length))


def certificate_of(trials: Trials, promise: Promise, start: int, images: int) -> Certificate:
  """Returns the certificate of trials at each threshold of STRICT_FIRST, tested from `start` on."""
  bounds = lower_bound(trials.right, trials.total, promise.sure)
  last = last_passed(bounds >= promise.right, start)
  at = start if last is None else last
  right, count = int(trials.right[at]), int(trials.total[at])
  needed = None if last is not None else _enough(right / count if count else 1.0, promise)
  scale = max(images / max(count, 1), 1.0 if promise.of == "images" else GUIDES / (GUIDES - 1))
  return Certificate(
    promise, STRICT_FIRST[at], last is not None, float(bounds[at]), right, count, int(trials.answers[at]), images,
    None if needed is None else math.ceil(needed * scale),
  )  # fmt: skip


def last_passed(passes: Bool[np.ndarray, "g"], start: int) -> int | None:
  """Returns the last of the tests from `start` on before the first that fails; None where the first fails.

  What a test after a failure finds does not count: this order keeps the chance of any wrong finding at that of one.
  """
  failures = np.flatnonzero(~passes[start:])
  count = int(failures[0]) if len(failures) else len(passes) - start
  return start + count - 1 if count else None


def guided_start(found: Confidences, promise: Promise) -> tuple[int, Bool[np.ndarray, "m"]]:
  """Returns the number of the threshold to test first, and the images to test on.

  A tenth of the images, drawn at random, says at which threshold there will be about as many answers as are enough if
  half as many of them are wrong as the promise allows; but no more than half of the images, unless that is too few to
  keep the promise at all. Their labels are not looked at, and they are not tested on, so that the sequence of tests
  does not depend on the images that are.
  """
  count = len(found.length)
  guides = np.random.default_rng(0).permutation(count) < count // GUIDES
  tested = count - int(guides.sum())
  enough = _enough((1 + promise.right) / 2, promise) or tested
  wanted = min(enough, max(promise.fewest, tested // 2))
  wanted = wanted if wanted <= tested else tested // 2  # then nothing can pass, and half give a bound worth telling
  rank = min(max(1, math.ceil(wanted / max(tested, 1) * guides.sum())), max(int(guides.sum()), 1))
  answered = trials_of(found.taken(guides), "answers").total
  reached = np.flatnonzero(answered >= rank)
  return (int(reached[0]) if len(reached) else len(STRICT_FIRST) - 1), ~guides


def trials_of(found: Confidences, of: str, grid: Sequence[float] = STRICT_FIRST) -> Trials:
  """Returns the trials at each threshold of a grid, of `answers` or of all `images`."""
  depth = found.confidence.shape[1]
  within = np.arange(depth) < found.length[:, None]
  first = np.where(within, found.confidence, -1).max(axis=1)  # a confidence never grows along a path
  first_wrong = np.where(within & ~found.right, found.confidence, -1).max(axis=1)
  answers, wrong = _at_least(first, grid), _at_least(first_wrong, grid)
  if of == "answers":
    return Trials(answers - wrong, answers, answers)
  images = np.full(len(grid), len(found.length), np.int64)
  return Trials(images - wrong, images, answers)


def _at_least(values: Float[np.ndarray, "m"], grid: Sequence[float]) -> Int[np.ndarray, "g"]:
  """Returns how many of the values are at least each threshold, in their own precision, as `predict` compares them."""
  return len(values) - np.searchsorted(np.sort(values), np.asarray(grid, values.dtype), side="left")


def _enough(share: float, promise: Promise) -> int | None:
  """Returns about how many trials pass if this share of them is right; None where no number does."""
  if share <= promise.right:
    return None
  tries = np.unique(np.geomspace(promise.fewest, _MOST_NEEDED, 1000).astype(np.int64))
  passes = lower_bound((share * tries).astype(np.int64), tries, promise.sure) >= promise.right
  return int(tries[np.argmax(passes)]) if passes.any() else None


def keep_certificate(
  out: RunFolder,
  found: Certificate,
  by_split: Mapping[str, Confidences],
  conditions: tuple[Mapping[str, Any], Ensemble],
) -> tuple[dict[str, Any], str]:
  """Keeps a certificate in choices.json and eval/certificate.json of a folder.

  Args:
    out: the folder.
    found: the certificate, of the first of the splits.
    by_split: the confidences for the calibration images and for other splits, by name.
    conditions: the views and alpha under which it holds, and the runs that answer.

  Returns:
    The contents of the latter, and why choices.json does not have it; see `keep_choice`.
  """
  split, (further, ensemble) = next(iter(by_split)), conditions
  images = ensemble.whole.run.images_of(split)
  record = {**found.about(), "split": split}
  record |= record_of(found.threshold, of_own_images(out, ensemble, by_split))
  out.write_evaluation("certificate", written := {**record, "data": images})
  made_for = threshold_conditions(out, ensemble.runs, further)
  about = {**record, "checksum": images["checksum"]}
  return written, keep_choice(out, Choice("certified", found.threshold, made_for, about))


def sentences(found: Certificate, split: str) -> str:
  """Returns the certificate as text for people."""
  promise = found.promise
  share = f"at least {percent(promise.right)} of the answers are right"
  if promise.of == "images":
    share = f"at most {percent(1 - promise.right)} of all images get a wrong answer"
  lines = [_outcome(found, share)]
  if split == "validation":
    lines.append(
      "the validation images are used twice: they also chose the checkpoint, so the promise holds only as far as that "
      "choice changes nothing; a run with config.data.calibration = 0.1 keeps images that choose nothing"
    )
  return "\n".join(lines)


def _outcome(found: Certificate, share: str) -> str:
  promise, images = found.promise, f"{found.images:,} calibration images"
  if found.certified:
    return (
      f"certified at threshold {found.threshold:g}: with probability {promise.sure:g} over the choice of the {images}, "
      f"{share} on images like them"
      + ("" if found.answers else "; but no calibration image gets an answer there, so ask for less")
    )
  what = f"{found.right:,} of {found.trials:,} {'answers are right' if promise.of == 'answers' else 'get no wrong one'}"
  instead = f"at least {percent(found.bound)} of the answers are right"
  if promise.of == "images":
    instead = f"at most {percent(1 - found.bound)} of all images get a wrong answer"
  more = "more images would not help, as the share there is no larger than the promise: ask for less"
  if found.needed is not None:
    more = f"if that share stays, about {found.needed:,} calibration images would be enough"
  return (
    f"nothing is certified: that {share} cannot be promised with probability {promise.sure:g} from {images}.\nThe "
    f"tests begin at threshold {found.threshold:g}, where {what}. There it can be promised that {instead}; "
    f"{more}"
  )
