"""Label trees that ship with the package; licences and sources are in data/NOTICE.md."""

from __future__ import annotations

import importlib.resources

from hierjax.tree.builders import build
from hierjax.tree.draft import Draft
from hierjax.tree.label_finder import class_nodes as class_nodes
from hierjax.tree.label_tree import LabelTree, TreeError
from hierjax.tree.readers.tables import read_csv

_FILES = {
  "cifar100": "cifar100.csv",
  "cifar100_wordnet": "cifar100_wordnet.csv",
  "imagenet1k": "imagenet1k.csv",
  "openimages30": "openimages30.csv",
  "openimages600": "openimages600.csv",
}


def names() -> tuple[str, ...]:
  """Returns the names of the trees that ship with the package."""
  return tuple(_FILES)


def load(name: str) -> LabelTree:
  """Returns a tree of the catalogue.

  Args:
    name: `cifar100`, 20 superclasses of 5 classes; `cifar100_wordnet`, the same 100 leaves 2 to 8 levels deep in a
      grouping after WordNet; `imagenet1k`, the 1000 classes of ILSVRC-2012 4 to 18 levels deep in WordNet, ids are
      WordNet's (READINGS G13); `openimages600`, the boxable classes of Open Images V4, ids are `/m/...`;
      `openimages30`, 30 of them, a node's children being its parts, in the shape that the code of Koo et al. fixes: 2,
      4 and 24 nodes on 3 levels. The names of theirs are not in the paper's text; these are ours (READINGS K12).

  Raises:
    TreeError: there is no tree of that name; the choices are listed.
  """
  return build(read(name))


def read(name: str) -> Draft:
  """Returns the draft of a tree of the catalogue; raises TreeError as `load` does."""
  if name not in _FILES:
    raise TreeError(f"tree {name!r}: choose from {', '.join(_FILES)}")
  with importlib.resources.as_file(importlib.resources.files(__package__) / "data" / _FILES[name]) as path:
    return read_csv(path)
