"""Random label trees, to hold laws against."""

import numpy as np

from hierjax.tree.label_tree import LabelTree


def random_tree(rng: np.random.Generator, depth: int, most_children: int, early_leaf: float = 0.3) -> LabelTree:
  """Returns a tree of `depth` levels; below the top, a node is a leaf with probability `early_leaf`."""
  names: list[str] = []
  counts: list[int] = []
  level_size = 1
  for level in range(depth):
    early = (level > 0) & (rng.random(level_size) < early_leaf)
    here = np.where(early, 0, rng.integers(1, most_children + 1, size=level_size)).tolist()
    if sum(here) == 0:
      here[0] = most_children
    counts += here
    names += [f"{level}.{i}" for i in range(sum(here))]
    level_size = sum(here)
  return LabelTree.from_children(names, counts + [0] * level_size)
