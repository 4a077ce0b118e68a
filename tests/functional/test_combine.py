"""Means of predictions against means of what they were made of."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.combine import average, best_paths, end_probability, ensemble, read_off
from hierjax.functional.decoding import beam_search
from hierjax.functional.distributions import by_levels
from hierjax.functional.multilabel import several_prediction
from hierjax.functional.node_probability import by_paths
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.flat import FlatHead
from hierjax.tree.label_tree import PAD, ROOT, UNKNOWN
from hierjax.types import DecodeOptions, Features, Prediction
from path_oracle import TableModel, nodes_of, random_model

STOP_AT = ("bottom", "leaf", "node")
BATCH = 2
averaged = jax.jit(average, static_argnames="beam")


def stack(predictions):
  return jax.tree.map(lambda *x: jnp.stack(x), *predictions)


def with_node_prob(node_prob, level_prob=None):
  """Returns a prediction that says nothing else."""
  shapes = {"paths": (BATCH, 1, 1), "log_prob": (BATCH, 1), "stop_prob": (BATCH, 1), "level_nodes": (BATCH, 1)}
  rest = {name: jnp.zeros(shape) for name, shape in shapes.items()}
  return Prediction(node_prob=jnp.asarray(node_prob), level_prob=level_prob, **rest)


@functools.partial(jax.jit, static_argnames="beam")
def flat_prediction(logits, arrays, beam):
  """Returns what a flat head says whose logits these are."""
  head = FlatHead(arrays.num_leaves)
  variables = {"params": {"output": {"kernel": jnp.eye(arrays.num_leaves), "bias": jnp.zeros(arrays.num_leaves)}}}
  features = Features((), jnp.asarray(logits, jnp.float32))
  return head.apply(variables, features, None, arrays, DecodeOptions(beam=beam), method="decode")


def assert_same(found, expected):
  np.testing.assert_array_equal(found.paths, expected.paths)
  np.testing.assert_array_equal(found.level_nodes, expected.level_nodes)
  for name in ("log_prob", "stop_prob", "node_prob"):
    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-5, atol=1e-6, err_msg=name)


def test_of_heads_of_several_paths_it_is_that_of_the_mean_score(rng):
  arrays = random_model(1, "node").arrays
  scores = rng.random((3, BATCH, arrays.num_nodes)).astype(np.float32)
  thresholds = (0.4,)
  one_view = jax.jit(lambda scores: several_prediction(scores, None, arrays, thresholds, 4))
  found = average(stack([one_view(view) for view in scores]), arrays, 4, thresholds)
  expected = one_view(jnp.asarray(scores.mean(0)))
  assert_same(found, expected)
  np.testing.assert_allclose(found.node_score, scores.mean(0), rtol=1e-6)
  assert (found.paths >= 0).any()
  strict = average(stack([one_view(view) for view in scores]), arrays, 4, (0.99,))
  assert (strict.paths < 0).all()


@pytest.mark.parametrize("beam", [3, 40])
@pytest.mark.parametrize("stop_at", STOP_AT)
def test_of_flat_heads_it_is_the_head_of_the_mean_softmax(stop_at, beam, rng):
  arrays = random_model(1, stop_at).arrays
  logits = 3 * rng.normal(size=(4, BATCH, arrays.num_leaves))
  softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  found = averaged(stack([flat_prediction(view, arrays, beam) for view in logits]), arrays, beam=beam)
  assert_same(found, flat_prediction(np.log(softmax.mean(0)), arrays, beam))
  np.testing.assert_allclose(found.node_prob[:, arrays.leaves], softmax.mean(0), rtol=1e-5)
  one = flat_prediction(logits[0], arrays, beam)
  assert_same(averaged(stack([one] * 10), arrays, beam=beam), one)


@functools.cache
def path_probs(stop_at, views=3):
  """Returns a tree's arrays, and by view and example the probability of each path, from models of that tree."""
  first = random_model(1, stop_at)
  models = [first, *(TableModel(np.random.default_rng(seed), first.tree, stop_at) for seed in range(1, views))]
  return first.arrays, [
    [{nodes_of(s.path): np.exp(sum(s.shares)) for s in model.enumerate(example)} for example in range(BATCH)]
    for model in models
  ]


def node_prob_of(view, arrays):
  """Returns for each example and node the sum over the paths through it."""
  found = np.zeros((BATCH, arrays.num_nodes), np.float32)
  for example, probs in enumerate(view):
    for path, prob in probs.items():
      found[example, list(path)] += prob
  return found


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
    np.testing.assert_array_equal(found.level_nodes[example], paths[0])


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_of_recurrent_heads_it_ranks_all_paths_by_their_mean_probability(stop_at):
  arrays, views = path_probs(stop_at)
  node_probs = [node_prob_of(view, arrays) for view in views]
  found = averaged(stack([with_node_prob(p) for p in node_probs]), arrays, beam=60)
  np.testing.assert_allclose(found.node_prob, np.mean(node_probs, axis=0), rtol=1e-6)
  assert_ranks(found, views)


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_it_is_a_full_beam_over_the_shares_of_the_mean(stop_at):
  arrays, views = path_probs(stop_at)
  mean = jnp.asarray(np.mean([node_prob_of(view, arrays) for view in views], axis=0))
  ends = end_probability(mean, arrays)
  np.testing.assert_allclose(ends.sum(axis=1), 1, rtol=1e-5)
  found = best_paths(mean, arrays, beam=40)

  def step(carry, previous, candidates):
    rows = jnp.arange(BATCH)[:, None]
    above = jnp.where(previous == ROOT, 1.0, mean[rows, previous])
    stop = ends[rows, previous]
    below = mean[rows[..., None], candidates]
    return carry, jnp.log(jnp.where(candidates == arrays.num_nodes, stop[..., None], below) / above[..., None])

  known = jnp.full((BATCH, arrays.depth), UNKNOWN, jnp.int32)
  search = jax.jit(lambda known: beam_search(step, jnp.zeros((BATCH, 40)), known, arrays, DecodeOptions(beam=40)))
  searched = search(known)
  np.testing.assert_array_equal(found.paths, searched.paths)
  np.testing.assert_allclose(found.log_prob, searched.log_prob, rtol=1e-4)
  real = np.isfinite(found.log_prob)
  np.testing.assert_allclose(found.stop_prob[real], searched.stop_prob[real], rtol=1e-3)


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
    bounds.append(by_paths(jnp.asarray(paths), jnp.asarray(log_prob), arrays))
  assert_ranks(averaged(stack([with_node_prob(p) for p in bounds]), arrays, beam=8), kept)


def test_levels_of_their_own_are_averaged_level_by_level(toy_tree):
  arrays = tree_arrays(toy_tree)  # levels of 2, 3 and 2 nodes; the leaves of the second are on the last level too
  level_prob = np.array(
    [
      [[0.6, 0.4, 0.1, 0.7, 0.2, 0.0, 0.1, 0.5, 0.4], [0.5, 0.5, 0.2, 0.3, 0.5, 0.3, 0.4, 0.1, 0.2]],
      [[0.2, 0.8, 0.3, 0.5, 0.2, 0.1, 0.0, 0.7, 0.2], [0.7, 0.3, 0.3, 0.2, 0.5, 0.1, 0.4, 0.3, 0.2]],
    ],
    np.float32,
  )
  views = [with_node_prob(np.full((BATCH, 7), 0.1, np.float32), jnp.asarray(view)) for view in level_prob]
  views = [view.replace(summed_levels=(1,)) for view in views]
  found = averaged(stack(views), arrays, beam=1)
  np.testing.assert_allclose(found.level_prob, level_prob.mean(0), rtol=1e-6)
  np.testing.assert_array_equal(found.level_nodes, [[1, 3, PAD], [0, 4, 6]])
  assert found.summed_levels == (1,) and not found.level_nodes_walk


def members_of(tree, rng):
  """Returns members of four kinds, and what each says of each level, None where it has no distribution of its own.

  They are: a softmax a level, the chain rule, one level learnt and the upper ones its sums, the top two levels alone.
  """

  def levels(sizes):
    return [rng.dirichlet(np.ones(size), BATCH).astype(np.float32) for size in sizes]

  def prediction(blocks, nodes, **fields):
    return with_node_prob(np.zeros((BATCH, nodes), np.float32), np.concatenate(blocks, axis=1)).replace(**fields)

  leaves = levels([4])[0]  # cat, cup, basenji, leonberg
  dog = leaves[:, 2] + leaves[:, 3]
  second = np.stack([dog, leaves[:, 0], leaves[:, 1]], axis=1)
  chain = [np.stack([dog + leaves[:, 0], leaves[:, 1]], axis=1), second, leaves[:, [2, 3, 0, 1]]]
  own, last, top = levels((2, 3, 4)), levels((2, 3, 4)), levels((2, 3))
  return [
    (prediction(own, 7), own),
    (with_node_prob(np.concatenate([chain[0], chain[1], chain[2][:, :2]], axis=1)), chain),
    (prediction(last, 7, summed_levels=(0, 1)), [None, None, last[2]]),
    (prediction(top, 5), [*top, None]),
  ]


def test_an_ensemble_is_the_mean_of_those_that_have_their_own_distribution_level_by_level(toy_tree, rng):
  arrays = tree_arrays(toy_tree)
  members, own = zip(*members_of(toy_tree, rng), strict=True)
  run = jax.jit(lambda members, chosen: ensemble(members, arrays, 2, chosen))
  read = jax.jit(lambda level_prob: read_off(by_levels(level_prob, arrays), level_prob, (), arrays, 2))
  for chosen in ([1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1]):
    found = run(members, np.array(chosen, np.float32))
    for t, block in enumerate(np.split(found.level_prob, [2, 5], axis=1)):
      says = [levels[t] for levels, taken in zip(own, chosen, strict=True) if taken and levels[t] is not None]
      np.testing.assert_allclose(block, np.mean(says, axis=0), rtol=1e-5)
    chex.assert_trees_all_close(found, read(found.level_prob), rtol=1e-5)


def test_where_no_member_has_its_own_the_mean_is_of_the_sums(toy_tree, rng):
  one, other = members_of(toy_tree, rng)[2][0], members_of(toy_tree, rng)[2][0]
  found = jax.jit(ensemble, static_argnums=2)([one, other], tree_arrays(toy_tree), 1)
  np.testing.assert_allclose(found.level_prob, (one.level_prob + other.level_prob) / 2, rtol=1e-5)
  assert found.summed_levels == (0, 1)


def test_an_ensemble_of_the_chain_rule_is_averaged_as_views_are_and_one_member_is_itself(toy_tree, rng):
  chain = [with_node_prob(0.1 * rng.random((BATCH, 7)).astype(np.float32)) for _ in range(3)]
  arrays = tree_arrays(toy_tree, "stop")
  found = jax.jit(ensemble, static_argnums=2)(chain, arrays, 2)
  chex.assert_trees_all_close(found, averaged(stack(chain), arrays, beam=2), rtol=1e-5)
  assert found.level_prob is None and found.level_nodes_walk
  assert ensemble(chain[:1], arrays, 2) is chain[0]


def test_one_prediction_is_its_own_mean(toy_tree, rng):
  arrays = tree_arrays(toy_tree)
  one = with_node_prob(rng.random((BATCH, 7)).astype(np.float32))
  chex.assert_trees_all_equal(averaged(stack([one]), arrays, beam=3), one)


@pytest.mark.parametrize(("short_labels", "expected"), [("unknown", [0, 0, 0, 0.2, 0.1, 0.1, 0.2]), ("stop", None)])
def test_what_is_missing_below_a_node_is_an_end_where_the_tree_has_such_ends(toy_tree, short_labels, expected):
  node_prob = np.array([[0.7, 0.2, 0.4, 0.2, 0.1, 0.1, 0.2]], np.float32)
  found = end_probability(jnp.asarray(node_prob), tree_arrays(toy_tree, short_labels))
  np.testing.assert_allclose(found[0], expected or [0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.2], atol=1e-6)


def test_rounding_is_no_wish_to_stop(rng):
  arrays = random_model(1, "node").arrays
  flat = flat_prediction(rng.normal(size=(BATCH, arrays.num_leaves)), arrays, 1)
  assert (np.asarray(end_probability(flat.node_prob, arrays))[:, arrays.inner] == 0).all()
