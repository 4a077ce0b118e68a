"""Random parts of the training images: for validation, for calibration, with whole labels, and with partial labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def parts_of_training(
  ends: Int[np.ndarray, "n"], validation: float, calibration: float, seed: int
) -> Int[np.ndarray, "n"]:
  """Returns the part of each training image: 0 is trained on, 1 kept for validation, 2 for calibration.

  Validation does not depend on how many images are kept for calibration. These are drawn from the others.

  Args:
    ends: the class of each image, see `kept_for_validation`.
    validation: the fraction of all images, from 0 to below 1.
    calibration: the fraction of the images that are not kept for validation, from 0 to below 1.
    seed: 0 or more.
  """
  parts = kept_for_validation(ends, validation, seed).astype(np.int32)
  rest = np.flatnonzero(parts == 0)
  parts[rest[kept_for_validation(ends[rest], calibration, (seed, 2))]] = 2
  return parts


def kept_for_validation(
  ends: Int[np.ndarray, "n"], fraction: float, seed: int | tuple[int, int]
) -> Bool[np.ndarray, "n"]:
  """Returns which images are kept for validation: about `fraction` of each class, chosen by `seed`.

  Every class keeps at least one image to train on; of one with m images, m * fraction are kept, rounded up or down so
  that over all classes the fraction comes out.

  Args:
    ends: the class of each image, the node that its first label path ends at.
    fraction: from 0 to below 1.
    seed: 0 or more; or two such numbers.
  """
  rng = np.random.default_rng(seed)
  _, class_of, counts = np.unique(ends, return_inverse=True, return_counts=True)
  order = np.lexsort((rng.random(len(ends)), class_of))
  rank = np.empty(len(ends), np.int64)
  rank[order] = np.arange(len(ends)) - np.repeat(np.cumsum(counts) - counts, counts)
  edges = np.floor(np.cumsum(counts) * fraction + rng.random()).astype(np.int64)
  take = np.minimum(np.diff(edges, prepend=0), counts - 1)
  return rank < take[class_of]


def fine_and_coarse(
  count: int, fine: float, coarse: float, seed: int
) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
  """Returns which of `count` images are S_fine, and which S_coarse, disjoint and random (Guo et al. 2018, 4.2).

  A smaller part of a seed lies within every larger one, and neither depends on the size of the other: of one random
  order, S_fine are the first images and S_coarse the last.

  Args:
    count: n, how many images there are.
    fine: the fraction that is S_fine.
    coarse: the fraction that is S_coarse; both are at most 1 together.
    seed: 0 or more.
  """
  num_fine = round(fine * count)
  num_coarse = min(round(coarse * count), count - num_fine)
  place = np.argsort(np.random.default_rng((seed, 1)).permutation(count))
  return place < num_fine, place >= count - num_coarse
