import jax
import numpy as np
import pytest

from hierjax.functional.search import beam_search
from hierjax.tree.label_tree import PAD, ROOT, STOP, UNKNOWN, LabelTree
from hierjax.types import DecodeOptions
from path_oracle import TableModel, nodes_of, random_model

STOP_AT = ("bottom", "leaf", "node", "some")


def search(model, known=None, **options):
  if known is None:
    known = np.full((len(model.table), model.tree.depth), UNKNOWN, np.int32)
  options = DecodeOptions(**options)
  decode = jax.jit(lambda tree, known: beam_search(model.step, model.carry(options.beam), known, tree, options))
  return jax.device_get(decode(model.arrays, known))


def ranked(scored, normalise, forced=0):
  """Returns (nodes, score) of oracle paths, best first; the first `forced` steps count 0."""
  steps = [(nodes_of(s.path), sum((s.shares if normalise == "siblings" else s.trained)[forced:])) for s in scored]
  return sorted(steps, key=lambda pair: -pair[1])


def assert_same(found, example, expected):
  log_prob, paths = found.log_prob[example], found.paths[example]
  np.testing.assert_allclose(log_prob[: len(expected)], [score for _, score in expected], rtol=1e-5, atol=1e-5)
  assert [nodes_of(path) for path in paths[: len(expected)]] == [nodes for nodes, _ in expected]
  assert (log_prob[len(expected) :] == -np.inf).all() and (paths[len(expected) :] == PAD).all()


@pytest.mark.parametrize("normalise", ["trained", "siblings"])
@pytest.mark.parametrize("stop_at", STOP_AT)
def test_a_full_beam_is_exhaustive_search(stop_at, normalise):
  model = random_model(1, stop_at)
  found = search(model, beam=len(model.enumerate(0)) + 2, normalise=normalise)
  for example in range(2):
    expected = model.enumerate(example)
    assert_same(found, example, ranked(expected, normalise))
    by_nodes = {nodes_of(s.path): s for s in expected}
    for path, stop_prob in zip(found.paths[example], found.stop_prob[example], strict=True):
      if path[0] >= 0:
        scored = by_nodes[nodes_of(path)]
        ends_early = scored.path[-1] == STOP
        np.testing.assert_allclose(stop_prob, np.exp(scored.shares[-1]) if ends_early else 1.0, rtol=1e-5)
  if normalise == "siblings":
    np.testing.assert_allclose(np.exp(found.log_prob).sum(1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("stop_at", STOP_AT)
def test_a_narrow_beam_walks_the_tree_and_a_beam_of_one_is_greedy(stop_at):
  model = random_model(3, stop_at)
  for path in search(model, beam=3).paths.reshape(-1, model.tree.depth).tolist():
    assert model.tree.is_path(path)
  greedy = search(model, beam=1)
  for example in range(2):
    node, state, total, path = ROOT, np.float32(0), 0.0, []
    while len(path) < model.tree.depth and STOP not in path:
      state, log_prob = model.numpy_step(example, state, node)
      token = max(model.continuations(node), key=lambda t: log_prob[t if t != STOP else model.tree.num_nodes])
      total += log_prob[token if token != STOP else model.tree.num_nodes]
      path.append(token)
      node = token
    assert nodes_of(greedy.paths[example, 0]) == nodes_of(path)
    np.testing.assert_allclose(greedy.log_prob[example, 0], total, rtol=1e-5)


@pytest.mark.parametrize("stop_at", ["bottom", "leaf"])
def test_raw_decoding_is_the_plain_argmax_of_each_step(stop_at):
  model = random_model(1, stop_at)
  if stop_at == "leaf":
    model.table[:, 1:, model.tree.num_nodes] += 3.0  # so that some path stops early,
    model.table[:, 0, model.tree.num_nodes] += 9.0  # and would before its first node
  found = search(model, beam=1, restrict="raw")
  for example in range(2):
    node, state, path, stop_prob = ROOT, np.float32(0), [], 1.0
    for t in range(model.tree.depth):
      state, log_prob = model.numpy_step(example, state, node)
      best = int(np.argmax(log_prob[: model.tree.num_nodes] if t == 0 else log_prob))
      if best == model.tree.num_nodes:
        stop_prob = 1.0 if model.tree.is_leaf(node) else np.exp(log_prob[best])
        break
      path.append(best)
      node = best
    assert nodes_of(found.paths[example, 0]) == tuple(path)
    assert (found.paths[example, 0, len(path) :] == PAD).all()
    np.testing.assert_allclose(found.stop_prob[example, 0], stop_prob, rtol=1e-5)


@pytest.mark.parametrize("normalise", ["trained", "siblings"])
@pytest.mark.parametrize("stop_at", ["bottom", "leaf"])
def test_known_labels_are_forced_with_their_ancestors_and_condition_the_rest(stop_at, normalise):
  model = random_model(1, stop_at)
  tree = model.tree
  node = next(i for i in range(tree.level_offsets[1], tree.level_offsets[2]) if not tree.is_leaf(i))
  known = np.full((2, tree.depth), UNKNOWN, np.int32)
  known[0, 1] = node  # and nothing is said of its parent
  found = search(model, known, beam=len(model.enumerate(0)), normalise=normalise)
  below = [s for s in model.enumerate(0) if s.path[1] == node]
  assert_same(found, 0, ranked(below, normalise, forced=2))
  assert_same(found, 1, ranked(model.enumerate(1), normalise))
  if normalise == "siblings":
    np.testing.assert_allclose(np.exp(found.log_prob[0]).sum(), 1.0, rtol=1e-5)


def test_beams_without_a_path_do_no_harm():
  """The first windows reach past their level, so unused beams sit on leaves, where nothing can follow."""
  tree = LabelTree.from_children(list("abcde"), [1, 1, 3, 0, 0, 0])
  model = TableModel(np.random.default_rng(0), tree, "bottom")
  assert_same(search(model, beam=5, normalise="siblings"), 0, ranked(model.enumerate(0), "siblings"))


@pytest.mark.parametrize(("stop_at", "node"), [("node", 1), ("some", 1)])  # a path that is given may end anywhere
def test_a_known_stop_ends_the_path(stop_at, node):
  model = random_model(1, stop_at)
  assert (node in model.ends) == (stop_at == "node") and not model.tree.is_leaf(node)
  known = np.full((2, model.tree.depth), UNKNOWN, np.int32)
  known[0, :2] = node, STOP
  found = search(model, known, beam=2)
  assert nodes_of(found.paths[0, 0]) == (node,) and found.log_prob[0].tolist() == [0.0, -np.inf]
