"""The CNN-based generators of Guo et al. 2018: one softmax a level, side by side or one after the other."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from hierjax.functional.decoding import Step, beam_search
from hierjax.functional.label_paths import complete, single_path
from hierjax.functional.node_probability import by_chain_rule
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import DecodeOptions, Features, Prediction

STRATEGIES = ("parallel", "coarse_to_fine", "fine_to_coarse")


class CoarseFineHead(nn.Module):
  """Classifies every level on its own (section 3.1, Fig. 2), of a tree whose paths all reach the last level.

  With `parallel` (strategy 3) each level's layer reads the image's features. With `coarse_to_fine` (strategy 1) only
  that of the top level does, and every other one reads the scores, before the softmax, of the level above it;
  `fine_to_coarse` (strategy 2) is the reverse (READINGS G6). The tree only reads the answer.

  Attributes:
    level_sizes: nodes of each level, the top level first.
    num_outputs: of a head with one a node, and one more where paths may end above the last level: such trees are
      refused.
    strategy: which layer reads what.
    dtype: of the products; weights and probabilities are float32.
  """

  level_sizes: tuple[int, ...]
  num_outputs: int
  strategy: Literal["parallel", "coarse_to_fine", "fine_to_coarse"] = "parallel"
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for a field that makes no head."""
    if self.strategy not in STRATEGIES:
      raise ValueError(f"strategy = {self.strategy!r}: choose from {', '.join(STRATEGIES)}")
    if self.num_outputs != sum(self.level_sizes):
      raise ValueError(
        "this head gives every image a label on each level, but paths of this tree may end above its last level; "
        "choose path_rnn, or a tree whose leaves are all on one level, with tree.short_labels = unknown"
      )
    super().__post_init__()

  def setup(self) -> None:
    """Names the weights."""
    self.levels = tuple(nn.Dense(size, dtype=self.dtype) for size in self.level_sizes)

  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b n"]:
    """Returns the logits of all nodes, level after level; `targets` are not read."""
    order = -1 if self.strategy == "fine_to_coarse" else 1
    read, scores = features.pooled, []
    for layer in self.levels[::order]:
      scores.append(layer(read))
      read = features.pooled if self.strategy == "parallel" else scores[-1]
    return jnp.concatenate(scores[::order], axis=1).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b n"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the sum over the known levels of their cross-entropies (eq. 1); 0 where none is known."""
    paths = single_path(paths)
    picked = jnp.take_along_axis(_log_probs(outputs, tree), jnp.maximum(paths, 0), axis=1)
    return -jnp.where(paths >= 0, picked, 0.0).sum(axis=1)

  @nn.nowrap
  def check(self, options: DecodeOptions) -> None:
    """Takes any options."""

  def decode(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Prediction:
    """Returns the best paths by the sum of their levels' log-probabilities.

    `level_nodes` is the paper's own inference, the argmax of each level; so is a beam of 1 with `restrict = raw`. Where
    a label is known, its level's distribution is certain of it.
    """
    log_probs = _log_probs(self(features), tree)
    batch = log_probs.shape[0]
    known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32) if known is None else complete(known, tree)
    level_prob = _given(jnp.exp(log_probs), known, tree)
    step = _step(log_probs, tree)
    best = beam_search(step, jnp.zeros((batch, options.beam), jnp.int32), known, tree, options)
    return Prediction(
      paths=best.paths,
      log_prob=best.log_prob,
      stop_prob=best.stop_prob,
      node_prob=by_chain_rule(step, jnp.zeros((batch, 1), jnp.int32), known, tree),
      level_nodes=_argmax(level_prob, tree),
      level_prob=level_prob,
    )


def _levels(nodes: Float[Array, "b n"], tree: TreeArrays) -> list[Float[Array, "b _"]]:
  """Returns the block of each level."""
  return jnp.split(nodes, tree.level_offsets[1:-1], axis=1)


def _log_probs(logits: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the logarithm of each level's softmax."""
  return jnp.concatenate([jax.nn.log_softmax(block, axis=1) for block in _levels(logits, tree)], axis=1)


def _argmax(nodes: Float[Array, "b n"], tree: TreeArrays) -> Int[Array, "b l"]:
  """Returns the best node of each level."""
  best = [block.argmax(axis=1).astype(jnp.int32) for block in _levels(nodes, tree)]
  return jnp.stack(best, axis=1) + jnp.asarray(tree.level_offsets[:-1], jnp.int32)[None]


def _given(prob: Float[Array, "b n"], known: Int[Array, "b l"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the distributions of the levels, certain of a node where it is known."""
  given = known[:, _level_of_nodes(tree)]
  certain = given == jnp.arange(tree.num_nodes, dtype=jnp.int32)[None]
  return jnp.where(given >= 0, certain.astype(jnp.float32), prob)


def _level_of_nodes(tree: TreeArrays) -> NDArray[np.int32]:
  return np.repeat(np.arange(tree.depth, dtype=np.int32), np.diff(tree.level_offsets))


def _step(log_probs: Float[Array, "b n"], tree: TreeArrays) -> Step:
  """Returns a step that looks up `log_probs`; what it carries is the number of the level, `i32[b k]`."""

  def step(level: Array, previous: Array, candidates: Array | None) -> tuple[Array, Array]:
    if candidates is not None:
      return level + 1, log_probs[jnp.arange(len(log_probs))[:, None, None], candidates]
    here = _level_of_nodes(tree)[None, None] == level[..., None]
    return level + 1, jnp.where(here, log_probs[:, None], -jnp.inf)

  return step
