"""A probability for every node, consistent with the tree: never larger than the parent's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hierjax.functional.decoding import Carry, Step, continuations, output_numbers
from hierjax.functional.paths import complete
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import ROOT, STOP


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


def by_paths(paths: Int[Array, "b k l"], log_prob: Float[Array, "b k"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns, for each node, the mass of those of the paths that go through it: a lower bound of its probability."""
  rows = jnp.arange(paths.shape[0])[:, None, None]
  mass = jnp.broadcast_to(jnp.exp(log_prob)[..., None], paths.shape)
  nodes = jnp.where(paths >= 0, paths, tree.num_nodes)
  return jnp.zeros((paths.shape[0], tree.num_nodes), jnp.float32).at[rows, nodes].add(mass, mode="drop")


def by_leaves(probs: Float[Array, "b m"], tree: TreeArrays) -> Float[Array, "b n"]:
  """Returns for each node the sum over the leaves below it; `probs` in the order of `tree.leaves`."""
  parent = jnp.asarray(tree.parent)
  total = jnp.zeros((probs.shape[0], tree.num_nodes), jnp.float32).at[:, jnp.asarray(tree.leaves)].set(probs)
  for first, end in reversed(list(zip(tree.level_offsets[1:-1], tree.level_offsets[2:], strict=True))):
    total = total.at[:, parent[first:end]].add(total[:, first:end])
  return total
