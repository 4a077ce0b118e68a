"""Restriction to some ends of paths, against a sum over all paths of random trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.decoding import decode
from hierjax.functional.distributions import level_blocks, split_levels
from hierjax.functional.restriction import restricted
from hierjax.tree.label_tree import PAD
from hierjax.types import DecodeOptions, Distribution, Scorer
from path_oracle import node_prob_of, nodes_of, path_probs, random_model

STOP_AT = ("bottom", "leaf", "node", "some")
restrict = jax.jit(restricted)


@functools.cache
def setting(stop_at):
  """Returns a tree, the probability of each path by example, and a third of the ends that the paths have."""
  model = random_model(1, stop_at)
  views = path_probs(stop_at)[1][0]
  ends = sorted({path[-1] for path in views[0]})
  allowed = np.zeros(model.tree.num_nodes, bool)
  allowed[np.random.default_rng(5).choice(ends, len(ends) // 3, replace=False)] = True
  return model, views, allowed


def test_no_restriction_gives_back_the_same_object():
  distribution = Distribution(jnp.ones((1, 2)))
  assert restricted(distribution, None, random_model(1, "leaf").arrays) is distribution


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_node_probabilities_are_given_that_the_path_ends_at_an_allowed_node(stop_at):
  model, views, allowed = setting(stop_at)
  found = restrict(Distribution(node_prob_of(views, model.arrays)), allowed, model.arrays)
  kept = [{path: prob for path, prob in probs.items() if allowed[path[-1]]} for probs in views]
  given = [{path: prob / sum(probs.values()) for path, prob in probs.items()} for probs in kept]
  np.testing.assert_allclose(found.node_prob, node_prob_of(given, model.arrays), rtol=1e-3, atol=1e-6)
  decoded = jax.device_get(jax.jit(lambda found: decode(found, model.arrays, DecodeOptions(beam=40)))(found))
  for paths, log_prob, probs in zip(decoded.paths, decoded.log_prob, given, strict=True):
    assert [nodes_of(path) for path in paths[: len(probs)]] == sorted(probs, key=probs.get, reverse=True)
    assert (paths[len(probs) :] == PAD).all()
    np.testing.assert_allclose(np.exp(log_prob[: len(probs)]), sorted(probs.values(), reverse=True), rtol=2e-3)


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_all_ends_allowed_change_nothing(stop_at):
  model, views, _ = setting(stop_at)
  node_prob = node_prob_of(views, model.arrays)
  found = restrict(Distribution(node_prob), np.ones(model.tree.num_nodes, bool), model.arrays)
  np.testing.assert_allclose(found.node_prob, node_prob, rtol=1e-4, atol=1e-6)


def test_where_no_allowed_end_has_a_probability_there_is_no_path():
  model, _, allowed = setting("leaf")

  @jax.jit
  def run(node_prob, allowed):
    found = restricted(Distribution(node_prob), allowed, model.arrays)
    return decode(found, model.arrays, DecodeOptions())

  found = jax.device_get(run(np.zeros((2, model.tree.num_nodes), np.float32), allowed))
  assert (found.node_prob == 0).all()
  assert (found.paths == PAD).all()


@pytest.mark.parametrize(("normalise", "beam"), [("trained", 2), ("trained", 40), ("siblings", 40)])
@pytest.mark.parametrize("stop_at", STOP_AT)
def test_a_heads_own_paths_end_at_allowed_nodes_only(stop_at, normalise, beam):
  """A full beam finds them all; a narrow one spends no place on a path that leads to no allowed node."""
  model, views, allowed = setting(stop_at)
  options = DecodeOptions(beam=beam, normalise=normalise)
  node_prob = jax.device_put(node_prob_of(views, model.arrays))

  @jax.jit
  def run(state, allowed):
    own = Distribution(node_prob, scorer=Scorer(model.step, {"state": state}))
    return decode(restricted(own, allowed, model.arrays), model.arrays, options)

  found = jax.device_get(run(np.zeros(len(model.table), np.float32), allowed))
  for example in range(len(views)):
    ends = {nodes_of(path)[-1] for path in found.paths[example] if path[0] >= 0}
    assert all(allowed[end] for end in ends) and len(ends) == min(beam, allowed.sum())
    if beam == 40:
      scores = {nodes_of(s.path): sum(s.trained) for s in model.enumerate(example) if allowed[nodes_of(s.path)[-1]]}
      assert {nodes_of(path) for path in found.paths[example] if path[0] >= 0} == scores.keys()
      if normalise == "trained":
        assert [nodes_of(path) for path in found.paths[example][: len(scores)]] == sorted(
          scores, key=lambda p: -scores[p]
        )
        np.testing.assert_allclose(found.log_prob[example][: len(scores)], sorted(scores.values())[::-1], rtol=1e-4)
      else:
        np.testing.assert_allclose(np.exp(found.log_prob[example]).sum(), 1, rtol=1e-4)


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("stop_at", ["bottom", "leaf"])
def test_level_distributions_keep_what_leads_to_an_allowed_node(stop_at, scored, rng):
  """The best paths are the best of the allowed, also where the head has a step of its own."""
  model, views, allowed = setting(stop_at)
  tree, arrays = model.tree, model.arrays
  blocks = [rng.dirichlet(np.ones(size), 2) for size in arrays.block_sizes]
  scorer = Scorer(model.step, {"state": np.zeros(2, np.float32)}) if scored else None
  level_prob = jax.device_put(np.concatenate(blocks, axis=1).astype(np.float32))

  @jax.jit
  def run(allowed):
    own = Distribution(jnp.asarray(node_prob_of(views, arrays)), level_prob, scorer=scorer)
    found = restricted(own, allowed, arrays)
    blocks = zip(split_levels(found.level_prob, arrays), level_blocks(arrays), strict=True)
    return list(blocks), decode(found, arrays, DecodeOptions(beam=40))

  levels, found = jax.device_get(run(allowed))
  leaves = [leaf for leaf in tree.leaves.tolist() if allowed[leaf]]
  reach = {node for leaf in leaves for node in tree.path(leaf)}
  tables = []
  for (block, nodes), own in zip(levels, blocks, strict=True):
    kept = np.where([node in reach for node in nodes.tolist()], own, 0)
    np.testing.assert_allclose(block, kept / kept.sum(axis=1, keepdims=True), rtol=1e-4)
    tables.append(dict(zip(nodes.tolist(), block.T, strict=True)))
  for example in range(2):

    def score(leaf, example=example):
      path = tree.path(leaf)
      carried = [*path, *[leaf] * (tree.depth - len(path))]
      return sum(np.log(tables[t][node][example]) for t, node in enumerate(carried))

    best = sorted(leaves, key=score, reverse=True)
    assert [nodes_of(path) for path in found.paths[example] if path[0] >= 0] == [tree.path(leaf) for leaf in best]
    np.testing.assert_allclose(found.log_prob[example][: len(best)], [score(leaf) for leaf in best], rtol=1e-4)
