"""The answers for images: the arrays that a model computes, and the rows that people read. Without Flax."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from hierjax.tree.label_tree import LabelTree

HEADER = ("image", "path", "probability", "rank", "node_probabilities", "log_probability", "why", "error")


class Answer(NamedTuple):
  """The answer for a batch of images; without the axis b, for one of them.

  Attributes:
    paths: `i32[b k l]`, the best paths; tokens below 0 after the end of a path.
    log_prob: `f32[b k]`, the score that ranks them (READINGS A4); -inf where there is no further path.
    node_prob: `f32[b n]`, the probability of each node.
    unshortened: `i32[b k l]`, the paths before the confidence threshold shortened them.
  """

  paths: Int[Array, "b k l"]
  log_prob: Float[Array, "b k"]
  node_prob: Float[Array, "b n"]
  unshortened: Int[Array, "b k l"]


class Row(NamedTuple):
  """One row of the answer: a path of one image, or the reason why there is none.

  Attributes:
    image: the file.
    path: `animal/dog/basenji`; a slash in a name is escaped by a backslash.
    probability: that of the path's last node, 0 to 1.
    rank: 1 for the best path of an image.
    node_probabilities: that of each node of the path, top level first.
    log_probability: the score that ranks the paths (READINGS A4).
    why: what decided: `rule`, in words; `threshold`, the confidence threshold, 0 for none; and `nodes`, the probability
      of each node of the path, those that the threshold cut off included, by their paths.
    error: why the image could not be read; empty otherwise.
  """

  image: str
  path: str = ""
  probability: float | None = None
  rank: int | None = None
  node_probabilities: tuple[float, ...] = ()
  log_probability: float | None = None
  why: Mapping[str, Any] | None = None
  error: str = ""

  def cells(self) -> tuple[str, ...]:
    """Returns the row as text, in the order of HEADER."""
    number = "" if self.probability is None else f"{self.probability:.6f}"
    score = "" if self.log_probability is None else f"{self.log_probability:.6f}"
    rank = "" if self.rank is None else str(self.rank)
    nodes = "/".join(f"{p:.4f}" for p in self.node_probabilities)
    why = "" if self.why is None else json.dumps(self.why, ensure_ascii=False)
    return (self.image, self.path, number, rank, nodes, score, why, self.error)


def paths_of(image: str, tree: LabelTree, answer: Answer, rule: Mapping[str, Any]) -> Iterator[Row]:
  """Yields a row for each different path of one image, best first; none where the answer has no path.

  Args:
    image: its name.
    tree: the label tree.
    answer: of the image, as numpy arrays without the axis b.
    rule: what decides, `rule` and `threshold` of `Row.why`.
  """
  seen: set[tuple[int, ...]] = set()
  for number, (path, score) in enumerate(zip(answer.paths, answer.log_prob, strict=True)):
    nodes = tuple(path[path >= 0].tolist())
    if nodes and nodes not in seen and np.isfinite(score):
      seen.add(nodes)
      name = tree.nodes_text(nodes)  # a raw path need not be one of the tree
      probability = tuple(float(p) for p in answer.node_prob[list(nodes)])
      yield Row(image, name, probability[-1], len(seen), probability, float(score), _why(tree, answer, number, rule))


def without_path(image: str, tree: LabelTree, answer: Answer, rule: Mapping[str, Any]) -> Row:
  """Returns the row of an image that gets no path; its `why` is that of the path which the threshold cut off."""
  return Row(image, why=_why(tree, answer, 0, rule))


def _why(tree: LabelTree, answer: Answer, number: int, rule: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `Row.why` of the path of a number, from 0."""
  nodes = [node for node in answer.unshortened[number].tolist() if node >= 0]
  return {**rule, "nodes": {tree.path_text(node): float(answer.node_prob[node]) for node in nodes}}
