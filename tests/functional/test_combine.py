"""Means over views and members, against means of the probabilities that they are made of."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional import combine
from hierjax.functional.combine import mean_of_members, mean_of_views
from hierjax.functional.decoding import decode
from hierjax.functional.distributions import by_levels, by_paths
from hierjax.functional.multilabel import multilabel_distribution
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.flat import FlatHead
from hierjax.tree.label_tree import PAD
from hierjax.types import DecodeOptions, Distribution, Features
from path_oracle import node_prob_of, nodes_of, path_probs, random_model

STOP_AT = ("bottom", "leaf", "node", "some")
BATCH = 2
mean_of_members, mean_of_views = jax.jit(mean_of_members), jax.jit(mean_of_views)
by_levels, by_paths = jax.jit(by_levels), jax.jit(by_paths)


def stack(distributions):
  return jax.tree.map(lambda *x: np.stack(x), *distributions)


@functools.partial(jax.jit, static_argnums=2)
def decoded(distribution, arrays, options):
  return decode(distribution, arrays, options)


def averaged(views, arrays, **options):
  """Returns the prediction for the mean of the views."""
  return jax.device_get(decoded(mean_of_views(stack(views), arrays), arrays, DecodeOptions(**options)))


@jax.jit
def flat_distribution(logits, arrays):
  """Returns the distribution of a flat head that has these logits."""
  head = FlatHead(arrays.num_leaves)
  variables = {"params": {"output": {"kernel": jnp.eye(arrays.num_leaves), "bias": jnp.zeros(arrays.num_leaves)}}}
  features = Features((), jnp.asarray(logits, jnp.float32))
  return head.apply(variables, features, None, arrays, DecodeOptions(), method="distribution")


def flat_prediction(logits, arrays, beam):
  return decoded(flat_distribution(logits, arrays), arrays, DecodeOptions(beam=beam))


def assert_same(found, expected):
  np.testing.assert_array_equal(found.paths, expected.paths)
  np.testing.assert_array_equal(found.raw_nodes, expected.raw_nodes)
  for name in ("log_prob", "stop_prob", "node_prob"):
    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-5, atol=1e-6, err_msg=name)


def test_of_multi_label_heads_it_is_that_of_the_mean_score(rng):
  arrays = random_model(1, "node").arrays
  scores = rng.random((3, BATCH, arrays.num_nodes)).astype(np.float32)
  thresholds = (0.4,)
  of_scores = jax.jit(lambda scores: multilabel_distribution(scores, None, arrays))
  views = [of_scores(view) for view in scores]
  found = averaged(views, arrays, beam=4, thresholds=thresholds)
  expected = decoded(of_scores(scores.mean(0)), arrays, DecodeOptions(beam=4, thresholds=thresholds))
  assert_same(found, expected)
  np.testing.assert_allclose(found.node_score, scores.mean(0), rtol=1e-6)
  assert (found.paths >= 0).any()
  strict = averaged(views, arrays, beam=4, thresholds=(0.99,))
  assert (strict.paths < 0).all()


@pytest.mark.parametrize("beam", [3, 40])
@pytest.mark.parametrize("stop_at", STOP_AT)
def test_of_flat_heads_it_is_the_head_of_the_mean_softmax(stop_at, beam, rng):
  arrays = random_model(1, stop_at).arrays
  logits = 3 * rng.normal(size=(4, BATCH, arrays.num_leaves))
  softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  found = averaged([flat_distribution(view, arrays) for view in logits], arrays, beam=beam)
  assert_same(found, flat_prediction(np.log(softmax.mean(0)), arrays, beam))
  np.testing.assert_allclose(found.node_prob[:, arrays.leaves], softmax.mean(0), rtol=1e-5)
  ten = [flat_distribution(logits[0], arrays)] * 10
  assert_same(averaged(ten, arrays, beam=beam), flat_prediction(logits[0], arrays, beam))


def assert_ranks(found, views):
  """Asserts that the paths are those of the views, by falling mean probability."""
  for example in range(BATCH):
    mean = {}
    for view in views:
      for path, prob in view[example].items():
        mean[path] = mean.get(path, 0) + prob / len(views)
    expected = sorted(mean, key=mean.get, reverse=True)
    paths, log_prob = found.paths[example], found.log_prob[example]
    assert [nodes_of(path) for path in paths[: len(expected)]] == expected
    np.testing.assert_allclose(np.exp(log_prob[: len(expected)]), [mean[path] for path in expected], rtol=1e-3)
    assert (log_prob[len(expected) :] == -np.inf).all() and (paths[len(expected) :] == PAD).all()
    np.testing.assert_array_equal(found.raw_nodes[example], paths[0])


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_of_recurrent_heads_it_ranks_all_paths_by_their_mean_probability(stop_at):
  arrays, views = path_probs(stop_at)
  node_probs = [node_prob_of(view, arrays) for view in views]
  found = averaged([Distribution(p) for p in node_probs], arrays, beam=60)
  np.testing.assert_allclose(found.node_prob, np.mean(node_probs, axis=0), rtol=1e-6)
  assert_ranks(found, views)


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_lower_bounds_give_the_best_of_the_paths_they_came_from(stop_at):
  arrays, views = path_probs(stop_at)
  kept = [[dict(sorted(probs.items(), key=lambda item: -item[1])[:2]) for probs in view] for view in views]
  bounds = []
  for view in kept:
    paths = np.full((BATCH, 2, arrays.depth), PAD, np.int32)
    for example, probs in enumerate(view):
      for row, path in enumerate(probs):
        paths[example, row, : len(path)] = path
    log_prob = np.log([list(probs.values()) for probs in view]).astype(np.float32)
    bounds.append(by_paths(paths, log_prob, arrays))
  assert_ranks(averaged([Distribution(p) for p in bounds], arrays, beam=8), kept)


def test_levels_of_their_own_are_averaged_level_by_level(toy_tree):
  arrays = tree_arrays(toy_tree)  # levels of 2, 3 and 2 nodes; the leaves of the second are on the last level too
  level_prob = np.array(
    [
      [[0.6, 0.4, 0.1, 0.7, 0.2, 0.0, 0.1, 0.5, 0.4], [0.5, 0.5, 0.2, 0.3, 0.5, 0.3, 0.4, 0.1, 0.2]],
      [[0.2, 0.8, 0.3, 0.5, 0.2, 0.1, 0.0, 0.7, 0.2], [0.7, 0.3, 0.3, 0.2, 0.5, 0.1, 0.4, 0.3, 0.2]],
    ],
    np.float32,
  )
  node_prob = np.full((BATCH, 7), 0.1, np.float32)
  views = [Distribution(node_prob, view, summed_levels=(1,)) for view in level_prob]
  mean = mean_of_views(stack(views), arrays)
  np.testing.assert_allclose(mean.level_prob, level_prob.mean(0), rtol=1e-6)
  assert mean.summed_levels == (1,)
  found = decoded(mean, arrays, DecodeOptions())
  np.testing.assert_array_equal(found.level_prob, mean.level_prob)
  np.testing.assert_array_equal(found.raw_nodes, [[1, 3, PAD], [0, 4, 6]])
  assert not found.raw_consistent


def members_of(tree, rng):
  """Returns members of four kinds, and the level distributions of each, None where it has none of its own.

  They are: a softmax a level, the chain rule, one level learnt and the upper ones its sums, the top two levels alone.
  """

  def levels(sizes):
    return [rng.dirichlet(np.ones(size), BATCH).astype(np.float32) for size in sizes]

  def member(blocks, nodes, **fields):
    return Distribution(np.zeros((BATCH, nodes), np.float32), np.concatenate(blocks, axis=1), **fields)

  leaves = levels([4])[0]  # cat, cup, basenji, leonberg
  dog = leaves[:, 2] + leaves[:, 3]
  second = np.stack([dog, leaves[:, 0], leaves[:, 1]], axis=1)
  chain = [np.stack([dog + leaves[:, 0], leaves[:, 1]], axis=1), second, leaves[:, [2, 3, 0, 1]]]
  own, last, top = levels((2, 3, 4)), levels((2, 3, 4)), levels((2, 3))
  return [
    (member(own, 7), own),
    (Distribution(np.concatenate([chain[0], chain[1], chain[2][:, :2]], axis=1)), chain),
    (member(last, 7, summed_levels=(0, 1)), [None, None, last[2]]),
    (member(top, 5), [*top, None]),
  ]


def test_an_ensemble_is_the_mean_of_those_that_have_their_own_distribution_level_by_level(toy_tree, rng):
  arrays = tree_arrays(toy_tree)
  members, own = zip(*members_of(toy_tree, rng), strict=True)
  for chosen in ([1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1]):
    found = jax.device_get(mean_of_members(members, arrays, np.array(chosen, np.float32)))
    for t, block in enumerate(np.split(found.level_prob, [2, 5], axis=1)):
      says = [levels[t] for levels, taken in zip(own, chosen, strict=True) if taken and levels[t] is not None]
      np.testing.assert_allclose(block, np.mean(says, axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.node_prob, by_levels(found.level_prob, arrays), rtol=1e-5)


def test_where_no_member_has_its_own_the_mean_is_of_the_sums(toy_tree, rng):
  one, other = members_of(toy_tree, rng)[2][0], members_of(toy_tree, rng)[2][0]
  found = mean_of_members([one, other], tree_arrays(toy_tree))
  np.testing.assert_allclose(found.level_prob, (one.level_prob + other.level_prob) / 2, rtol=1e-5)
  assert found.summed_levels == (0, 1)


def test_an_ensemble_of_the_chain_rule_is_averaged_as_views_are_and_one_member_is_itself(toy_tree, rng):
  chain = [Distribution(np.float32(0.1 * rng.random((BATCH, 7)))) for _ in range(3)]
  arrays = tree_arrays(toy_tree, "stop")
  found = mean_of_members(chain, arrays)
  chex.assert_trees_all_close(found, mean_of_views(stack(chain), arrays), rtol=1e-5)
  assert found.level_prob is None and decoded(found, arrays, DecodeOptions(beam=2)).raw_consistent
  assert combine.mean_of_members(chain[:1], arrays) is chain[0]


def test_one_view_is_its_own_mean(toy_tree, rng):
  one = Distribution(rng.random((BATCH, 7)).astype(np.float32))
  chex.assert_trees_all_equal(mean_of_views(stack([one]), tree_arrays(toy_tree)), one)
