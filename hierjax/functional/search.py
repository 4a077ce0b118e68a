"""Beam search along the tree: from the step of a head to its best paths. A beam of 1 is greedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hierjax.functional.paths import complete, may_stop
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, ROOT, STOP
from hierjax.types import DecodeOptions, Leaf

# `step(carry, previous: i32[b k], candidates: i32[b k w] | None) -> (carry, log_prob: f32[b k w])`: feeds each beam its
# previous node and returns the log-probabilities of the candidate outputs; None stands for all outputs, in order. With
# `normalise = siblings` and for the chain rule they may lack a term that a beam's candidates share: logits will do.
# `previous` and `candidates` have a leading 1 where they are the same for all examples; the carry has b.
Carry = Any
Step = Callable[[Carry, Array, Array | None], tuple[Carry, Array]]


@struct.dataclass
class Paths:
  """Decoded paths, best first.

  Attributes:
    paths: `i32[b k l]`, PAD after the end; all PAD where fewer than k exist.
    log_prob: `f32[b k]`, -inf there.
    stop_prob: `f32[b k]`, the probability among the siblings (and STOP) that a path which came this far ends here.
  """

  paths: Leaf
  log_prob: Leaf
  stop_prob: Leaf


def continuations(previous: Int[Array, "b k"], tree: TreeArrays) -> tuple[Int[Array, "b k w"], Bool[Array, "b k w"]]:
  """Returns what can follow each node: its children, and STOP where a path may end at it.

  The window is as wide as the largest fan-out: a range of nodes, and then the last of them again. The range ends at the
  last child. It starts at the first, or before it where a whole window would reach past the last node of the tree. One
  more column, the last, is STOP's if the tree needs it.

  Returns:
    The nodes, and STOP in the last column; and which of them are real.
  """
  offsets = jnp.asarray(tree.child_offsets)
  first, end = offsets[previous + 1][..., None], offsets[previous + 2][..., None]
  width = jnp.arange(tree.max_children, dtype=jnp.int32)[None, None]
  start = jnp.minimum(first, tree.num_nodes - tree.max_children)
  nodes = start + width
  real = (first <= nodes) & (nodes < end)
  nodes = jnp.minimum(nodes, jnp.where(first < end, end - 1, start))
  if not tree.has_stop:
    return nodes, real
  return (
    jnp.concatenate([nodes, jnp.full_like(first, STOP)], axis=-1),
    jnp.concatenate([real, may_stop(previous, tree)[..., None]], axis=-1),
  )


def _anything(previous: Int[Array, "b k"], tree: TreeArrays) -> tuple[Int[Array, "1 1 o"], Bool[Array, "b k o"]]:
  """Returns all outputs, and which may follow each node: STOP may not come first, for a path has at least one node."""
  tokens = jnp.arange(tree.num_outputs, dtype=jnp.int32)
  tokens = jnp.where(tokens == tree.num_nodes, STOP, tokens)[None, None]
  return tokens, (tokens >= 0) | (previous[..., None] >= 0)


def output_numbers(tokens: Int[Array, "*b"], tree: TreeArrays) -> Int[Array, "*b"]:
  """Returns the number of the output for each node, or for STOP."""
  return jnp.where(tokens == STOP, tree.num_nodes, tokens)


class _Beams(NamedTuple):
  carry: Any
  paths: Leaf  # i32[b k l]
  last: Leaf  # i32[b k], the deepest node so far
  ended: Leaf  # bool[b k]
  log_prob: Leaf  # f32[b k], -inf for a beam that is not in use
  stop_prob: Leaf  # f32[b k]


def _reorder(beams: Any, parent: Int[Array, "b k"]) -> Any:
  """Returns `beams` with beam j of each example taken from its beam `parent[j]`."""
  rows = jnp.arange(parent.shape[0])[:, None]
  return jax.tree.map(lambda x: x[rows, parent], beams)


def beam_search(step: Step, carry: Carry, known: Int[Array, "b l"], tree: TreeArrays, options: DecodeOptions) -> Paths:
  """Returns the best paths that a beam of `options.beam` finds.

  A path that has ended keeps its score and its place. A path's score is the sum of its log-probabilities as the step
  gives them, STOP's included, or with `normalise = siblings` as shares of the continuations' mass (READINGS A4).

  Args:
    step: the model, see `Step`.
    carry: its state before the first step, a pytree of `[b k ...]`.
    known: labels that are given, UNKNOWN elsewhere. They are forced, their ancestors too, and count 0 in the score.
    tree: the tree.
    options: beam, restriction and score; see `DecodeOptions`.
  """
  tree = jax.tree.map(jnp.asarray, tree)
  known = complete(known, tree)
  (b, depth), k = known.shape, options.beam
  raw = options.restrict == "raw"
  window = tree.num_nodes if raw else tree.max_children

  def advance(beams: _Beams, now: tuple[Array, Array]) -> tuple[_Beams, None]:
    t, given = now
    tokens, allowed = _anything(beams.last, tree) if raw else continuations(beams.last, tree)
    carry, trained = step(beams.carry, beams.last, None if raw else output_numbers(tokens, tree))
    trained = jnp.where(allowed, trained, -jnp.inf)
    share = jnp.where(allowed, trained - jax.nn.logsumexp(trained, axis=-1, keepdims=True), -jnp.inf)
    scores = share if options.normalise == "siblings" else trained

    given = given[:, None, None]
    forced = jnp.where((allowed | (tokens == STOP)) & (tokens == given), 0.0, -jnp.inf)
    scores = jnp.where((given >= 0) | (given == STOP), forced, scores)
    first_column = jnp.arange(tokens.shape[-1])[None, None] == 0
    scores = jnp.where(beams.ended[..., None], jnp.where(first_column, 0.0, -jnp.inf), scores)

    log_prob, best = jax.lax.top_k((beams.log_prob[..., None] + scores).reshape(b, -1), k)
    parent, column = jnp.divmod(best, tokens.shape[-1])
    first = jnp.broadcast_to(tokens[..., 0], (b, k))  # a window is a range, and then STOP: no need to gather from it
    beams, first, stop_share = _reorder((beams._replace(carry=carry), first, jnp.exp(share[..., -1])), parent)
    token = jnp.where(column == window, STOP, first + column)
    token = jnp.where(beams.ended, PAD, token)
    return beams._replace(
      paths=beams.paths.at[:, :, t].set(jnp.maximum(token, PAD)),
      last=jnp.where(token >= 0, token, beams.last),
      ended=beams.ended | (token == STOP),
      log_prob=log_prob,
      stop_prob=jnp.where(token == STOP, stop_share, beams.stop_prob),
    ), None

  start = _Beams(
    carry=carry,
    paths=jnp.full((b, k, depth), PAD, jnp.int32),
    last=jnp.full((b, k), ROOT, jnp.int32),
    ended=jnp.zeros((b, k), bool),
    log_prob=jnp.full((b, k), -jnp.inf, jnp.float32).at[:, 0].set(0.0),
    stop_prob=jnp.ones((b, k), jnp.float32),
  )
  beams, _ = jax.lax.scan(advance, start, (jnp.arange(depth), known.T))
  found = beams.log_prob > -jnp.inf
  offsets = tree.child_offsets
  is_leaf = offsets[beams.last + 1] == offsets[beams.last + 2]
  return Paths(
    paths=jnp.where(found[..., None], beams.paths, PAD),
    log_prob=beams.log_prob,
    stop_prob=jnp.where(is_leaf, 1.0, beams.stop_prob),
  )


def lookup_step(log_probs: Float[Array, "b l o"]) -> Step:
  """Returns the step of a head whose scores at each level do not depend on the labels before.

  Its carry is the number of the level, `i32[b k]`.
  """

  def step(level: Array, previous: Array, candidates: Array | None) -> tuple[Array, Array]:
    rows = jnp.arange(len(log_probs))[:, None]
    if candidates is None:
      return level + 1, log_probs[rows, level]
    return level + 1, log_probs[rows[..., None], level[..., None], candidates]

  return step
