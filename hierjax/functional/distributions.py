"""Distributions over the tree: their layout by level, sums and shares among siblings, and node probabilities.

The distributions of a head that has one at each level stand side by side, `f32[b e]`, a block a level. The block of a
level holds its nodes, and then the leaves of all levels above it, in rising order, which stand for themselves: a leaf
that ends early is its own only child (READINGS D7). Where all leaves are on the last level, e = n.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hierjax.functional.paths import complete
from hierjax.functional.search import Carry, Step, continuations, output_numbers
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, ROOT, STOP

# A smaller share of a node's probability is the rounding error of the sum over its children, and no probability that
# the path ends at the node.
_ROUNDING = 1e-5


def level_splits(tree: TreeArrays) -> tuple[int, ...]:
  """Returns where one block ends and the next begins, as static numbers: one less than there are levels."""
  return tuple(np.cumsum(tree.block_sizes)[:-1].tolist())


def split_levels(level_prob: Float[Array, "b e"], tree: TreeArrays) -> list[Float[Array, "b _"]]:
  """Returns the block of each level."""
  return jnp.split(level_prob, level_splits(tree), axis=1)


def level_blocks(tree: TreeArrays) -> tuple[Int[Array, "_"], ...]:
  """Returns the node of each entry, block by block."""
  leaves = jnp.asarray(tree.leaves)
  return tuple(
    jnp.concatenate([jnp.arange(first, end, dtype=jnp.int32), leaves[: first - inner]])
    for (first, end), inner in zip(itertools.pairwise(tree.level_offsets), tree.inner_offsets[:-1], strict=True)
  )


def block_parents(tree: TreeArrays) -> tuple[Int[Array, "_"], ...]:
  """Returns, for each level but the first, which entry of the block above each entry is below."""
  offsets, parent, leaves = tree.level_offsets, jnp.asarray(tree.parent), jnp.asarray(tree.leaves)
  found = []
  for t in range(1, tree.depth):
    first, end = offsets[t - 1 : t + 1]
    above, early = first - tree.inner_offsets[t - 1], end - tree.inner_offsets[t]  # leaves above the parents, above us
    found.append(
      jnp.concatenate(
        [
          parent[end : offsets[t + 1]] - first,
          jnp.arange(end - first, end - first + above, dtype=jnp.int32),
          leaves[above:early] - first,
        ]
      )
    )
  return tuple(found)


def sums(block: Float[Array, "b i"], parents: Int[Array, "i"], size: int) -> Float[Array, "b j"]:
  """Returns for each of the `size` entries of the block above the sum over the entries below it."""
  return jnp.zeros((block.shape[0], size), jnp.float32).at[:, parents].add(block)


def log_sums(block: Float[Array, "b i"], parents: Int[Array, "i"], size: int) -> Float[Array, "b j"]:
  """Returns the logarithms of `sums` of probabilities given as logarithms, none of which underflows."""
  largest = jnp.full((block.shape[0], size), -jnp.inf, jnp.float32).at[:, parents].max(jax.lax.stop_gradient(block))
  return largest + jnp.log(sums(jnp.exp(block - largest[:, parents]), parents, size))


def shares(block: Float[Array, "b i"], parents: Int[Array, "i"], size: int) -> Float[Array, "b i"]:
  """Returns each entry's part of the sum over its siblings and itself; equal parts where that sum is 0.

  The siblings are first divided by the largest, a constant to the gradient since the parts do not depend on it: so
  neither small probabilities nor the squares of their sums underflow.
  """
  largest = jnp.zeros((block.shape[0], size), jnp.float32).at[:, parents].max(jax.lax.stop_gradient(block))[:, parents]
  some = largest >= jnp.finfo(jnp.float32).tiny
  scaled = jnp.where(some, block / jnp.where(some, largest, 1.0), 1.0)
  return scaled / sums(scaled, parents, size)[:, parents]


def of_nodes(node_prob: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b e"]:
  """Returns what the probabilities of all nodes, each the sum of its children's, say at each level."""
  return node_prob[:, jnp.concatenate(level_blocks(tree))]


def by_levels(level_prob: Float[Array, "b e"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns a probability for each node, by the chain rule: P(child) = P(parent) x its share among the siblings.

  The top level's are its distribution; the children of a node sum to it, in equal parts where the level below gives
  them nothing. Of consistent levels they are what all of them say.
  """
  blocks = split_levels(level_prob, tree)
  found, sizes = [blocks[0]], tree.block_sizes
  for block, parents, size in zip(blocks[1:], block_parents(tree), sizes[:-1], strict=True):
    found.append(found[-1][:, parents] * shares(block, parents, size))
  numbers = np.diff(tree.level_offsets).tolist()
  return jnp.concatenate([prob[:, :number] for prob, number in zip(found, numbers, strict=True)], axis=1)


def level_argmax(level_prob: Float[Array, "b e"], tree: TreeArrays) -> Int[Array, "b l"]:
  """Returns the best node of each level; PAD where a leaf above has more than any of them."""
  best = []
  for block, first, end in zip(
    split_levels(level_prob, tree), tree.level_offsets[:-1], tree.level_offsets[1:], strict=True
  ):
    node = first + block.argmax(axis=1).astype(jnp.int32)
    best.append(jnp.where(node < end, node, PAD))
  return jnp.stack(best, axis=1)


def by_chain_rule(step: Step, carry: Carry, known: Int[Array, "b l"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns P(node) = P(parent) x P(node | parent), by running the step below every inner node.

  P(node | parent) is normalised over the siblings, and STOP where a path may end at the parent (READINGS A4); so the
  children of a node, and stopping there, sum to it.

  Args:
    step: the model, see `decoding.Step`.
    carry: its state before the first step, a pytree of `[b 1 ...]`.
    known: labels that are given, UNKNOWN elsewhere; the probabilities are those given them.
    tree: the tree.
  """
  tree = jax.tree.map(jnp.asarray, tree)
  known = complete(known, tree)
  parents = jnp.full((1,), ROOT, jnp.int32)
  parent_prob = jnp.zeros((known.shape[0], 1), jnp.float32)
  levels = []
  for t in range(tree.depth):
    first, end = tree.level_offsets[t : t + 2]
    previous = parents[None]  # the same for all examples
    tokens, allowed = continuations(previous, tree)
    carry, scores = step(carry, previous, output_numbers(tokens, tree))
    share = jax.nn.log_softmax(jnp.where(allowed, scores, -jnp.inf), axis=-1)

    nodes = jnp.arange(first, end, dtype=jnp.int32)
    above = tree.parent[first:end]
    row = jnp.searchsorted(parents, above)
    log_prob = parent_prob[:, row] + share[:, row, nodes - tokens[0, row, 0]]
    given = known[:, t, None]
    log_prob = jnp.where(given >= 0, jnp.where(nodes[None] == given, 0.0, -jnp.inf), log_prob)
    levels.append(jnp.where(given == STOP, -jnp.inf, log_prob))

    parents = tree.inner[tree.inner_offsets[t] : tree.inner_offsets[t + 1]]
    parent_prob = levels[-1][:, parents - first]
    carry = jax.tree.map(lambda x, rows=row[parents - first]: x[:, rows], carry)
  return jnp.exp(jnp.concatenate(levels, axis=1))


def by_siblings(logits: Float[Array, "b o"], tree: TreeArrays) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
  """Returns log P(node), and the logarithm of the share of each node that ends there: 0 at leaves.

  P(node) = P(parent) x the node's part of a softmax over the siblings. Where paths may end at inner nodes (`stop_at` is
  `node`), such an end is one of the siblings below its node.

  Args:
    logits: one a node, and then, in such a tree, one for the end at each inner node: o is n, or n + i.
    tree: the tree.
  """
  parent, inner, n, b = jnp.asarray(tree.parent), jnp.asarray(tree.inner), tree.num_nodes, logits.shape[0]
  stop = jnp.full((b, n), -jnp.inf, jnp.float32)
  if tree.stop_at == "node":
    stop = stop.at[:, inner].set(jnp.where(jnp.asarray(tree.may_end)[inner][None], logits[:, n:], -jnp.inf))
  found, share = [jax.nn.log_softmax(logits[:, : tree.level_offsets[1]], axis=1)], []
  for above, (first, end) in zip(tree.level_offsets, itertools.pairwise(tree.level_offsets[1:]), strict=False):
    block, parents, here = logits[:, first:end], parent[first:end] - above, stop[:, above:first]
    mass = jnp.logaddexp(log_sums(block, parents, first - above), here)
    share.append(here - jnp.where(jnp.isfinite(mass), mass, 0.0))
    found.append(found[-1][:, parents] + block - mass[:, parents])
  share.append(stop[:, tree.level_offsets[-2] :])
  is_leaf = jnp.ones(n, bool).at[inner].set(False)[None]
  return jnp.concatenate(found, axis=1), jnp.where(is_leaf, 0.0, jnp.concatenate(share, axis=1))


def by_paths(paths: Int[Array, "b k l"], log_prob: Float[Array, "b k"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns, for each node, the mass of those of the paths that go through it: a lower bound of its probability."""
  rows = jnp.arange(paths.shape[0])[:, None, None]
  mass = jnp.broadcast_to(jnp.exp(log_prob)[..., None], paths.shape)
  nodes = jnp.where(paths >= 0, paths, tree.num_nodes)
  return jnp.zeros((paths.shape[0], tree.num_nodes), jnp.float32).at[rows, nodes].add(mass, mode="drop")


def by_leaves(probs: Float[Array, "b m"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns for each node the sum over the leaves below it; `probs` in the order of `tree.leaves`."""
  total = jnp.zeros((probs.shape[0], tree.num_nodes), jnp.float32).at[:, jnp.asarray(tree.leaves)].set(probs)
  return sums_below(total, tree)


def sums_below(values: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns for each node the sum over the node and its descendants."""
  parent = jnp.asarray(tree.parent)
  for first, end in reversed(list(itertools.pairwise(tree.level_offsets[1:]))):
    values = values.at[:, parent[first:end]].add(values[:, first:end])
  return values


def sums_above(values: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns for each node the sum over the node and its ancestors."""
  parent, offsets = jnp.asarray(tree.parent), tree.level_offsets
  found = [values[:, : offsets[1]]]
  for above, (first, end) in zip(offsets, itertools.pairwise(offsets[1:]), strict=False):
    found.append(values[:, first:end] + found[-1][:, parent[first:end] - above])
  return jnp.concatenate(found, axis=1)


def end_probability(node_prob: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns the probability that the path ends at each node: its own probability less the sum over its children.

  Above a leaf it is 0 where paths may not end there, and where it is no more than rounding.
  """
  parent, leaves = jnp.asarray(tree.parent), jnp.asarray(tree.leaves)
  if tree.stop_at != "node":
    return jnp.zeros_like(node_prob).at[:, leaves].set(node_prob[:, leaves])
  top = tree.level_offsets[1]
  left = node_prob.at[:, parent[top:]].add(-node_prob[:, top:])
  return jnp.where(jnp.asarray(tree.may_end)[None] & (left > _ROUNDING * node_prob), left, 0.0)
