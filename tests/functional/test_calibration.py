"""Temperature scaling, node by node in float64."""

import functools

import jax
import numpy as np
import pytest

from hierjax.functional.calibration import calibrated
from hierjax.functional.decoding import decode, end_probability
from hierjax.functional.distributions import split_levels
from hierjax.functional.multilabel import multilabel_distribution
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.types import DecodeOptions, Distribution, Scorer
from path_oracle import log_softmax, node_prob_of, path_probs, random_model

STOP_AT = ("bottom", "leaf", "node", "some")
TEMPERATURES = (0.5, 2.0)
calibrate, end_probability = jax.jit(calibrated), jax.jit(end_probability)


def step_by_step(node_prob):
  """Returns the distribution of a head that decides step by step; its step is not called."""
  return Distribution(node_prob, scorer=Scorer(lambda carry, previous, candidates: (carry, previous), ()))


@functools.partial(jax.jit, static_argnums=2)
def calibrated_shares(node_prob, temperature, stop_at):
  return calibrated(step_by_step(node_prob), temperature, random_model(1, stop_at).arrays).node_prob


def by_definition(tree, row, ends, temperature):
  """Returns each node's probability, of the shares of the children of its parent and of the end there."""
  found = {ROOT: 1.0}
  row, ends = {ROOT: 1.0, **dict(enumerate(row))}, {ROOT: 0.0, **dict(enumerate(ends))}
  for node in range(ROOT, tree.num_nodes):
    masses = {child: row[child] for child in tree.children(node)} | {"end": ends[node]}
    powers = {key: (mass / row[node]) ** (1 / temperature) for key, mass in masses.items()}
    found |= {key: found[node] * power / sum(powers.values()) for key, power in powers.items() if key != "end"}
  return [found[node] for node in range(tree.num_nodes)]


def test_a_temperature_of_1_gives_back_the_same_object():
  distribution = Distribution(np.ones((1, 2), np.float32))
  assert calibrated(distribution, 1.0, random_model(1, "leaf").arrays) is distribution


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("stop_at", STOP_AT)
def test_node_probabilities_are_those_of_the_equation(stop_at, temperature):
  arrays, views = path_probs(stop_at)
  tree = random_model(1, stop_at).tree
  node_prob = node_prob_of(views[0], arrays)
  found = np.asarray(calibrated_shares(node_prob, temperature, stop_at))
  ends = np.zeros((len(node_prob), tree.num_nodes))
  for example, probs in enumerate(views[0]):
    for path, prob in probs.items():
      ends[example, path[-1]] += prob
  for row, end, expected_of in zip(found, ends, node_prob.astype(np.float64), strict=True):
    np.testing.assert_allclose(row, by_definition(tree, expected_of, end, temperature), rtol=1e-3, atol=1e-6)
  np.testing.assert_allclose(found[:, : arrays.level_offsets[1]].sum(axis=1), 1, rtol=1e-5)
  left = np.asarray(end_probability(found, arrays))
  for node in range(tree.num_nodes):
    if children := tree.children(node):
      np.testing.assert_allclose(found[:, list(children)].sum(axis=1) + left[:, node], found[:, node], rtol=1e-4)
      assert stop_at in ("node", "some") or (left[:, node] == 0).all()


def test_what_has_no_probability_has_none_at_another_temperature():
  arrays = random_model(1, "leaf").arrays
  node_prob = np.zeros((1, arrays.num_nodes), np.float32)
  path = random_model(1, "leaf").tree.path(arrays.num_nodes - 1)
  node_prob[:, list(path)] = 1
  found = calibrate(Distribution(node_prob), 2.0, arrays).node_prob
  np.testing.assert_array_equal(found, node_prob)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_each_level_distribution_is_scaled_over_its_level(temperature, rng):
  arrays = random_model(1, "leaf").arrays
  blocks = [rng.dirichlet(np.ones(size), 2) for size in arrays.block_sizes]
  node_prob = node_prob_of(path_probs("leaf")[1][0], arrays)
  level_prob = np.float32(np.concatenate(blocks, axis=1))
  found = calibrate(Distribution(node_prob, level_prob, summed_levels=(1,)), temperature, arrays)
  for block, own in zip(jax.jit(split_levels)(found.level_prob, arrays), blocks, strict=True):
    powers = own ** (1 / temperature)
    np.testing.assert_allclose(block, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
  assert found.summed_levels == (1,)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("stop_at", STOP_AT)
def test_one_softmax_over_the_ends_is_scaled_over_the_ends(stop_at, temperature):
  arrays, views = path_probs(stop_at)
  node_prob = node_prob_of(views[0], arrays)
  found = np.asarray(calibrate(Distribution(node_prob), temperature, arrays).node_prob)
  for row, probs in zip(found, views[0], strict=True):
    powers = {path: float(prob) ** (1 / temperature) for path, prob in probs.items()}
    for node in range(arrays.num_nodes):
      expected = sum(power for path, power in powers.items() if node in path) / sum(powers.values())
      np.testing.assert_allclose(row[node], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_the_paths_and_their_ranking_stay(stop_at):
  model = random_model(1, stop_at)
  options = DecodeOptions(beam=40)
  node_prob = jax.device_put(node_prob_of(path_probs(stop_at)[1][0], model.arrays))

  @jax.jit
  def run(state, temperature):
    own = Distribution(node_prob, scorer=Scorer(model.step, {"state": state}))
    ends = Distribution(node_prob)
    return [decode(calibrated(x, temperature, model.arrays), model.arrays, options) for x in (own, ends)]

  state = np.zeros(len(model.table), np.float32)
  before, *others = [run(state, np.float32(t)) for t in (1.0, *TEMPERATURES)]
  for after in others:
    for x, y in zip(before, after, strict=True):
      np.testing.assert_array_equal(x.paths, y.paths)
      np.testing.assert_array_equal(x.raw_nodes, y.raw_nodes)
    np.testing.assert_array_equal(before[0].log_prob, after[0].log_prob)


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_a_traced_temperature_of_1_changes_no_bit(stop_at):
  node_prob = node_prob_of(path_probs(stop_at)[1][0], random_model(1, stop_at).arrays)
  np.testing.assert_array_equal(calibrated_shares(node_prob, np.float32(1), stop_at), node_prob)
  found = calibrate(Distribution(node_prob), np.float32(1), random_model(1, stop_at).arrays)
  np.testing.assert_array_equal(found.node_prob, node_prob)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_sigmoids_are_scaled_between_presence_and_absence(temperature, rng):
  model = random_model(1, "node")
  scores = rng.random((3, model.tree.num_nodes))

  @jax.jit
  def run(scores):
    return calibrated(multilabel_distribution(scores, None, model.arrays), temperature, model.arrays)

  found = run(np.float32(scores))
  present, absent = scores ** (1 / temperature), (1 - scores) ** (1 / temperature)
  expected = present / (present + absent)
  np.testing.assert_allclose(found.node_score, expected, rtol=1e-4)
  smallest = [[min(row[node] for node in model.tree.path(i)) for i in range(model.tree.num_nodes)] for row in expected]
  np.testing.assert_allclose(found.node_prob, smallest, rtol=1e-4)


def test_a_temperature_divides_the_logits_of_a_flat_tree(rng):
  """On one level, temperature scaling is that of Guo et al. 2017."""
  logits = 3 * rng.normal(size=(4, 5))
  arrays = tree_arrays(LabelTree.from_children(list("abcde"), [5, 0, 0, 0, 0, 0]))
  found = calibrate(Distribution(np.float32(np.exp(log_softmax(logits)))), 3.0, arrays)
  np.testing.assert_allclose(found.node_prob, np.exp(log_softmax(logits / 3)), rtol=1e-5)
