"""Expected costs of every answer under a distribution over the tree, exact in any tree. `COSTS` is the table.

An answer is a node or the root, which stands for no answer. The label ends at the node m with the probability e(m): at
leaves, and where paths may end at inner nodes also there. What is missing to a sum of 1, where node probabilities are
lower bounds, counts as a label of which no node is right.

Each cost is a table `C[n + 1, n]`, and its expectation the product of e with that table. The products here are sums
along the tree, which need memory for nodes alone; `tests/functional/test_costs.py` holds them against the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierjax.functional.distributions import end_probability, sums_above, sums_below
from hierjax.functional.tree_arrays import TreeArrays, heights

Cost = Callable[[Float[Array, "b n"], TreeArrays], Float[Array, "b a"]]


def expected_edges(node_prob: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b a"]:
  """Returns the expected number of edges of the tree between each answer and the end of the label.

      E[edges(v)] = sum_u P(u) + sum_(u = v and its ancestors) (1 - 2 P(u))

  since the edge above a node u lies between v and the label's end if u is on one of their two paths. So the best answer
  is the deepest node of a probability above 1/2, and the root where there is none.

  Args:
    node_prob: 0 to 1.
    tree: the tree.

  Returns:
    Those of the root and of each node, a = n + 1.
  """
  root = node_prob.sum(axis=1, keepdims=True)
  return jnp.concatenate([root, root + sums_above(1 - 2 * node_prob, tree)], axis=1)


def expected_height(node_prob: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b a"]:
  """Returns the expected height of the lowest common ancestor of each answer and the end of the label.

  The height of a node is the number of edges down to its farthest leaf (Bertinetto et al. 2020, Making better
  mistakes). An answer that is the end of the label costs 0, and an ancestor of that end costs its own height:

      E[height(v)] = h(v) (P(v) - e(v)) + sum_(u = v and its ancestors) h(parent(u)) (P(parent(u)) - P(u))

  Arguments and result are those of `expected_edges`.
  """
  height, parent = heights(tree).astype(jnp.float32), jnp.asarray(tree.parent)
  above = jnp.concatenate([jnp.ones_like(node_prob[:, :1]), node_prob], axis=1)[:, parent + 1]
  own = height[1:][None] * (node_prob - end_probability(node_prob, tree))
  found = own + sums_above(height[parent + 1][None] * (above - node_prob), tree)
  return jnp.concatenate([jnp.broadcast_to(height[0], (len(found), 1)), found], axis=1)


def expected_f_loss(beta: float, node_prob: Float[Array, "b n"], tree: TreeArrays) -> Float[Array, "b a"]:
  """Returns 1 less the expected hierarchical F measure of each answer (Kiritchenko et al. 2005, the root left out).

  With d the number of nodes of a path, and i that of the nodes that answer and label share,

      hF_beta = (1 + beta^2) hP hR / (beta^2 hP + hR) = (1 + beta^2) i / (beta^2 d(label) + d(answer)),

  where hP = i / d(answer) and hR = i / d(label). No answer has hF = 0.

  Args:
    beta: above 1, precision counts less than recall; below 1, more.
    node_prob: 0 to 1.
    tree: the tree.

  Returns:
    Those of the root and of each node, a = n + 1.
  """
  ends = end_probability(node_prob, tree)
  depth = jnp.asarray(np.repeat(np.arange(1, tree.depth + 1), np.diff(tree.level_offsets)), jnp.float32)[None]

  def add(total: Float[Array, "b n"], length: Float[Array, ""]) -> tuple[Float[Array, "b n"], None]:
    shared = sums_above(sums_below(jnp.where(depth == length, ends, 0.0), tree), tree)
    return total + (1 + beta**2) * shared / (beta**2 * length + depth), None

  found, _ = jax.lax.scan(add, jnp.zeros_like(node_prob), jnp.arange(1, tree.depth + 1, dtype=jnp.float32))
  return 1 - jnp.concatenate([jnp.zeros_like(found[:, :1]), found], axis=1)


COSTS: dict[str, Cost] = {
  "edges": expected_edges,
  "height": expected_height,
  "hf0.5": partial(expected_f_loss, 0.5),
  "hf1": partial(expected_f_loss, 1.0),
  "hf2": partial(expected_f_loss, 2.0),
}
"""Costs that `decode.rule` and `--minimise` name."""
