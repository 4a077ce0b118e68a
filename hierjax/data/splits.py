"""Random parts of the training images: for validation, for calibration, with whole labels, and with partial labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Shaped


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
  rank = _rank_in_class(rng.random(len(ends)), class_of, counts)
  edges = np.floor(np.cumsum(counts) * fraction + rng.random()).astype(np.int64)
  take = np.minimum(np.diff(edges, prepend=0), counts - 1)
  return rank < take[class_of]


def with_whole_labels(ends: Int[np.ndarray, "n"], fraction: float, per_label: int, seed: int) -> Bool[np.ndarray, "n"]:
  """Returns which images are S_fine: random ones of all, or so many of each class (Guo et al. 2018, 4.2).

  A smaller S_fine of a seed lies within every larger one of its kind.

  Args:
    ends: the class of each image, see `kept_for_validation`.
    fraction: of all images, which is not read where `per_label` is above 0.
    per_label: how many of each class, of a class with fewer all; 0: the fraction.
    seed: 0 or more.
  """
  place = _random_places(len(ends), seed)
  if not per_label:
    return place < round(fraction * len(ends))
  _, class_of, counts = np.unique(ends, return_inverse=True, return_counts=True)
  return _rank_in_class(place, class_of, counts) < per_label


def with_partial_labels(fine: Bool[np.ndarray, "n"], fraction: float, seed: int) -> Bool[np.ndarray, "n"]:
  """Returns which images are S_coarse: random ones that are not S_fine.

  A smaller S_coarse of a seed lies within every larger one. Where S_fine is a fraction of all images, S_coarse does not
  depend on it: of one random order, S_fine are the first images and S_coarse the last.

  Args:
    fine: S_fine, as `with_whole_labels` returns it.
    fraction: of all images; all the others, where there are fewer.
    seed: that of `with_whole_labels`.
  """
  order = np.argsort(_random_places(len(fine), seed))
  others = order[~fine[order]]
  chosen = np.zeros(len(fine), bool)
  chosen[others[max(len(others) - round(fraction * len(fine)), 0) :]] = True
  return chosen


def _random_places(count: int, seed: int) -> Int[np.ndarray, "n"]:
  return np.argsort(np.random.default_rng((seed, 1)).permutation(count))


def _rank_in_class(
  keys: Shaped[np.ndarray, "n"], class_of: Int[np.ndarray, "n"], counts: Int[np.ndarray, "c"]
) -> Int[np.ndarray, "n"]:
  """Returns the place of each image among those of its class, ordered by their keys."""
  rank = np.empty(len(keys), np.int64)
  rank[np.lexsort((keys, class_of))] = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
  return rank
