"""The CNN-based generators of Guo et al. 2018: one softmax a level, side by side or one after the other."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from hierjax.config import checked
from hierjax.functional.decoding import level_scorer
from hierjax.functional.distributions import block_parents, by_chain_rule, level_blocks, log_sums
from hierjax.functional.losses import level_cross_entropy
from hierjax.functional.paths import complete, ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes
from hierjax.nn.heads.defaults import HeadDefaults
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import DecodeOptions, Distribution, Features


@checked
class CoarseFineHead(HeadDefaults, nn.Module):
  """Classifies every level on its own (section 3.1, Fig. 2).

  With `parallel` (strategy 3) each level's layer reads the image's features. With `coarse_to_fine` (strategy 1) only
  that of the top level does, and every other one reads the scores, before the softmax, of the level above it;
  `fine_to_coarse` (strategy 2) is the reverse (READINGS G6). The tree only reads the answer. A leaf that ends above the
  last level is a class of every level below its own too: each image has a label on each level.

  Attributes:
    block_sizes: classes of each level, the top level first: its nodes, and the leaves of the levels above.
    stop_at: where paths of the tree may end; a tree where that is any `node` is refused.
    strategy: which layer reads what.
    branch_levels: of a merged network, the levels, from 1, that have a branch of their own, whose vectors stand side by
      side in the pooled one; the last is among them, and a level without a branch is the sum of the one below it. ()
      where all levels read one vector.
    dtype: of the products; weights and probabilities are float32.
  """

  block_sizes: tuple[int, ...]
  stop_at: str
  strategy: Literal["parallel", "coarse_to_fine", "fine_to_coarse"] = "parallel"
  branch_levels: tuple[int, ...] = ()
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for a field that makes no head."""
    if self.stop_at == "node":
      raise ValueError(
        "this head gives every image a label on each level, down to a leaf, but paths of this tree may end above one; "
        "choose path_rnn, or set tree.short_labels = unknown"
      )
    if self.strategy != "parallel" and len(self.branch_levels) > 1:
      raise ValueError(
        f"strategy = {self.strategy}: it reads one branch of a merged network, and the others would not train; set "
        "config.head.strategy = parallel, where each level reads its own, or config.merged.shared = -1"
      )
    super().__post_init__()

  @classmethod
  def for_tree(cls, arrays: TreeArrays, **fields: Any) -> CoarseFineHead:
    """Returns the head for a tree; `fields` are the attributes that have a default."""
    return cls(arrays.block_sizes, arrays.stop_at, **fields)

  def setup(self) -> None:
    """Names the weights."""
    self.levels = {str(t): nn.Dense(self.block_sizes[t], dtype=self.dtype) for t in self._learnt()}

  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b o"]:
    """Returns the logits of the classes of every level that has a layer, level after level; `targets` are not read."""
    order = -1 if self.strategy == "fine_to_coarse" else 1
    learnt = self._learnt()
    own = jnp.split(features.pooled, len(learnt), axis=1) if self.branch_levels else [features.pooled] * len(learnt)
    scores: list[Array] = []
    for t, vector in list(zip(learnt, own, strict=True))[::order]:
      read = vector if self.strategy == "parallel" or not scores else scores[-1]
      scores.append(self.levels[str(t)](read))
    return jnp.concatenate(scores[::order], axis=1).astype(jnp.float32)

  @nn.nowrap
  def _learnt(self) -> tuple[int, ...]:
    """Returns the levels, from 0, that have a layer."""
    return tuple(level - 1 for level in self.branch_levels) or tuple(range(len(self.block_sizes)))

  @nn.nowrap
  def _own_log_probs(self, outputs: Float[Array, "b o"]) -> dict[int, Float[Array, "b _"]]:
    """Returns the logarithm of the softmax of each level that has a layer."""
    learnt = self._learnt()
    splits = np.cumsum([self.block_sizes[t] for t in learnt])[:-1].tolist()
    logits = jnp.split(outputs, splits, axis=1)
    return {t: jax.nn.log_softmax(block, axis=1) for t, block in zip(learnt, logits, strict=True)}

  @nn.nowrap
  def _log_probs(self, outputs: Float[Array, "b o"], tree: TreeArrays) -> Float[Array, "b e"]:
    """Returns the logarithm of the level distributions: each level's own, or the sums of the level below."""
    own, parents = self._own_log_probs(outputs), block_parents(tree)
    levels: list[Array] = []
    for t in reversed(range(tree.depth)):
      levels.append(own[t] if t in own else log_sums(levels[-1], parents[t], tree.block_sizes[t]))
    return jnp.concatenate(levels[::-1], axis=1)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b o"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the sum over the levels that have a layer of their `level_cross_entropy` (eq. 1; READINGS D5).

    On levels below the deepest known node, that is of the summed probability of its descendants there; it is 0 where
    nothing is known.
    """
    nodes, blocks = ends(single_path(paths)), level_blocks(tree)
    losses = [level_cross_entropy(own, blocks[t], nodes, tree) for t, own in self._own_log_probs(outputs).items()]
    return jnp.stack(losses, axis=1).sum(axis=1)

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    blocks = [tuple(np.asarray(block).tolist()) for block in level_blocks(tree)]
    order = self._learnt()[:: -1 if self.strategy == "fine_to_coarse" else 1]
    before = {} if self.strategy == "parallel" else {t: blocks[read] for read, t in itertools.pairwise(order)}
    layers = [dense_axes(f"levels_{t}", blocks[t], before.get(t)) for t in order]
    return {name: axes for layer in layers for name, axes in layer.items()}

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the softmax of each level, and node probabilities by the chain rule.

    The paper's own inference is `Prediction.raw_nodes`, the argmax of each level. A beam of 1 with `restrict = raw`
    gives the same nodes, down to the level at which a leaf above has more than any node. Where a label is known, its
    level's distribution is certain of it, and so are those below a leaf.
    """
    log_probs = self._log_probs(self(features), tree)
    batch = log_probs.shape[0]
    known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32) if known is None else complete(known, tree)
    scorer = level_scorer(log_probs, tree)
    return Distribution(
      node_prob=by_chain_rule(scorer.step, jnp.zeros((batch, 1), jnp.int32), known, tree),
      level_prob=_given(jnp.exp(log_probs), known, tree),
      known=known,
      scorer=scorer,
      summed_levels=tuple(t for t in range(tree.depth) if t not in self._learnt()),
    )


def _given(prob: Float[Array, "b e"], known: Int[Array, "b l"], tree: TreeArrays) -> Float[Array, "b e"]:
  """Returns the level distributions, certain of a node where it is known, and below it where it is a leaf."""
  last, offsets = ends(known)[:, None], jnp.asarray(tree.child_offsets)
  is_leaf = (last >= 0) & (offsets[last + 1] == offsets[last + 2])
  given = jnp.where((known < 0) & is_leaf, last, known)[:, _level_of_entries(tree)]
  certain = given == jnp.concatenate(level_blocks(tree))[None]
  return jnp.where(given >= 0, certain.astype(jnp.float32), prob)


def _level_of_entries(tree: TreeArrays) -> NDArray[np.int32]:
  return np.repeat(np.arange(tree.depth, dtype=np.int32), tree.block_sizes)
