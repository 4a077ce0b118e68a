r"""How often certificates of a confidence threshold, and the sweep, break their promise; prints Markdown.

  python -m benchmarks.certificates
  python -m benchmarks.certificates --run runs/quickstart --split test --images 2000 --right 0.95

The images of the split, or else synthetic ones, are the population, so that its shares are known exactly. Each draw
takes some of them with replacement as calibration images. A threshold breaks the promise where fewer answers of the
population are right, or more of its images get a wrong answer. The sweep takes the smallest threshold that keeps the
promise on the images drawn, as `evaluate --threshold sweep` does.
"""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hierjax.evaluation.choosing.certificates import READINGS, STRICT_FIRST, Promise, certify, trials_of
from hierjax.evaluation.choosing.selective import Confidences

Chooser = Callable[[Confidences, Promise], int | None]
LEVELS = 3


def synthetic(count: int, rng: np.random.Generator) -> Confidences:
  """Returns confidences in paths of three levels, whose answers are right a little less often than they say."""
  confidence = np.cumprod(rng.beta((6.0, 4.0, 3.0), (0.7, 0.7, 0.7), (count, LEVELS)), axis=1)
  share = np.clip(confidence + 0.05 * np.sin(7 * confidence) - 0.02, 0, 1)
  right = rng.random(count)[:, None] < share  # one number an image: what is right is right above, too
  return Confidences(confidence.astype(np.float32), np.logical_and.accumulate(right, axis=1), np.full(count, LEVELS))


def of_run(workdir: str, split: str) -> Confidences:
  """Returns the confidences of a run on a split."""
  from hierjax.evaluation.predictions import predict_split
  from hierjax.functional.selective import UNSHORTENED
  from hierjax.inference.members import open_ensemble, open_images
  from hierjax.inference.pipeline import Stages
  from hierjax.runs.devices import data_mesh

  ensemble = open_ensemble([workdir], data_mesh(), "", 0)
  stages = Stages(ensemble.whole.run.options, threshold=UNSHORTENED)
  return Confidences.of(predict_split(ensemble, open_images(ensemble, split), stages))


def certified(found: Confidences, promise: Promise) -> int | None:
  """Returns the number of the threshold that is certified; None where none is."""
  certificate = certify(found, promise)
  return STRICT_FIRST.index(certificate.threshold) if certificate.certified else None


def swept(found: Confidences, promise: Promise) -> int | None:
  """Returns the number of the smallest threshold that keeps the promise on these images; None where none does."""
  trials = trials_of(found, promise.of)
  kept = np.flatnonzero((trials.total > 0) & (trials.right >= promise.right * trials.total))
  return int(kept[-1]) if len(kept) else None


CHOOSERS: dict[str, Chooser] = {"certificate": certified, "sweep": swept}


class Shares(NamedTuple):
  """What a way to choose a threshold gave over all draws.

  Attributes:
    broken: the share of draws whose threshold breaks the promise.
    coverage: the mean share of the population that gets an answer; none where no threshold was given.
    given: the share of draws with a threshold.
  """

  broken: float
  coverage: float
  given: float


def simulate(population: Confidences, promise: Promise, images: int, draws: int, seed: int) -> dict[str, Shares]:
  """Returns the shares of each way to choose a threshold, all on the same draws."""
  truth, count = trials_of(population, promise.of), len(population.length)
  kept = truth.right >= promise.right * truth.total - 1e-9
  rng, found = np.random.default_rng(seed), {name: list[int | None]() for name in CHOOSERS}
  for _ in range(draws):
    drawn = population.taken(rng.integers(0, count, images))
    for name, choose in CHOOSERS.items():
      found[name].append(choose(drawn, promise))
  given = {name: [at for at in chosen if at is not None] for name, chosen in found.items()}
  return {name: _shares(chosen, kept, truth.answers / count, draws) for name, chosen in given.items()}


def _shares(chosen: list[int], kept: np.ndarray, coverage: np.ndarray, draws: int) -> Shares:
  return Shares(float((~kept[chosen]).sum() / draws), float(coverage[chosen].sum() / draws), len(chosen) / draws)


def main(args: argparse.Namespace) -> None:
  """Prints the table."""
  rng = np.random.default_rng(args.seed)
  population = of_run(args.run, args.split) if args.run else synthetic(200_000, rng)
  what = f"{args.split} of {args.run}" if args.run else "synthetic"
  print(f"{datetime.date.today()}; population: {len(population.length):,} images, {what}; {args.draws:,} draws of")
  print(f"{args.images:,} images, seed {args.seed}; {args.right:.0%} right, {args.sure:g} sure\n")
  print("| promise of | threshold by | broken | answered | a threshold |\n|---|---|---|---|---|")
  for of in READINGS:
    promise = Promise(args.right, args.sure, of)
    for name, found in simulate(population, promise, args.images, args.draws, args.seed).items():
      error = math.sqrt(found.broken * (1 - found.broken) / args.draws)
      print(f"| {of} | {name} | {found.broken:.1%} ± {error:.1%} | {found.coverage:.1%} | {found.given:.1%} |")


def arguments() -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split(";")[0])
  parser.add_argument("--run", default="", help="a run's folder; without, synthetic images")
  parser.add_argument("--split", default="test")
  parser.add_argument("--images", type=int, default=2000, help="calibration images of a draw")
  parser.add_argument("--right", type=float, default=0.95)
  parser.add_argument("--sure", type=float, default=0.9)
  parser.add_argument("--draws", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  return parser.parse_args()


if __name__ == "__main__":
  main(arguments())
