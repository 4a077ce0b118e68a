"""A validation split carved from the training images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def kept_for_validation(ends: Int[np.ndarray, "n"], fraction: float, seed: int) -> Bool[np.ndarray, "n"]:
  """Returns which images are kept for validation: about `fraction` of each class, chosen by `seed`.

  Every class keeps at least one image to train on; of one with m images, m * fraction are kept, rounded up or down so
  that over all classes the fraction comes out.

  Args:
    ends: the class of each image, the node that its first label path ends at.
    fraction: from 0 to below 1.
    seed: 0 or more.
  """
  rng = np.random.default_rng(seed)
  _, class_of, counts = np.unique(ends, return_inverse=True, return_counts=True)
  order = np.lexsort((rng.random(len(ends)), class_of))
  rank = np.empty(len(ends), np.int64)
  rank[order] = np.arange(len(ends)) - np.repeat(np.cumsum(counts) - counts, counts)
  edges = np.floor(np.cumsum(counts) * fraction + rng.random()).astype(np.int64)
  take = np.minimum(np.diff(edges, prepend=0), counts - 1)
  return rank < take[class_of]
