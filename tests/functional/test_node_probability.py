import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.decoding import beam_search
from hierjax.functional.node_probability import by_chain_rule, by_leaves, by_paths
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import STOP, UNKNOWN, LabelTree
from hierjax.types import DecodeOptions
from path_oracle import TableModel, nodes_of, random_model
from random_trees import random_tree


@pytest.mark.parametrize("stop_at", ["bottom", "leaf", "node"])
def test_the_chain_rule_is_the_sum_over_all_paths(stop_at):
  model = random_model(2, stop_at)
  tree = model.tree
  node = next(i for i in range(tree.num_nodes) if tree.level[i] == 1 and not tree.is_leaf(i))
  known = np.full((2, tree.depth), UNKNOWN, np.int32)
  known[1, 1] = node
  paths = [model.enumerate(0), model.enumerate(1)]
  k = len(paths[0])

  @jax.jit
  def both(arrays, known):
    chain = by_chain_rule(model.step, model.carry(1), known, arrays)
    beams = beam_search(model.step, model.carry(k), known, arrays, DecodeOptions(beam=k, normalise="siblings"))
    return chain, by_paths(beams.paths, beams.log_prob, arrays)

  expected = np.zeros((2, tree.num_nodes))
  stopped = np.zeros((2, tree.num_nodes))
  for example in range(2):
    for scored in paths[example]:
      forced = 2 if example == 1 else 0
      if forced and scored.path[1] != node:
        continue
      mass = np.exp(sum(scored.shares[forced:]))
      expected[example, list(nodes_of(scored.path))] += mass
      stopped[example, nodes_of(scored.path)[-1]] += mass * (scored.path[-1] == STOP)
  for found in both(model.arrays, jnp.asarray(known)):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for i in range(-1, tree.num_nodes):
      children = list(tree.children(i))
      if children:
        parent = found[:, i] - stopped[:, i] if i >= 0 else 1.0
        np.testing.assert_allclose(found[:, np.array(children)].sum(1), parent, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1, list(tree.path(node))], 1.0, rtol=1e-5)


def test_leaves_sum_up_to_their_ancestors(rng):
  tree = random_tree(rng, depth=4, most_children=3)
  probs = rng.dirichlet(np.ones(len(tree.leaves)), size=3).astype(np.float32)
  expected = np.zeros((3, tree.num_nodes))
  for column, leaf in enumerate(tree.leaves.tolist()):
    expected[:, list(tree.path(leaf))] += probs[:, [column]]
  np.testing.assert_allclose(by_leaves(jnp.asarray(probs), tree_arrays(tree)), expected, rtol=1e-5)


def test_a_tree_of_one_level():
  tree = LabelTree.from_children(["a", "b"], [2, 0, 0])
  model = TableModel(np.random.default_rng(0), tree, "bottom")
  known = jnp.full((2, 1), UNKNOWN, jnp.int32)
  found = jax.jit(lambda known: by_chain_rule(model.step, model.carry(1), known, model.arrays))(known)
  expected = [[np.exp(s.shares[0]) for s in model.enumerate(example)] for example in range(2)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
