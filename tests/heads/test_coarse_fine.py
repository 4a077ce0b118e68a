import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.metrics import evaluate_batch
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.heads.coarse_fine import STRATEGIES, CoarseFineHead
from hierjax.tree.label_tree import PAD, UNKNOWN, LabelTree
from hierjax.types import Batch, DecodeOptions, Features
from path_oracle import log_softmax, nodes_of

TREE = LabelTree.from_children(list("ABabcdefghijk"), [2, 1, 3, 2, 1, 2, 2, *[0] * 7])  # levels of 2, 4 and 7 nodes
SIZES, IMAGE, BATCH = (2, 4, 7), 9, 3
ARRAYS = tree_arrays(TREE)


@functools.cache
def setting(strategy="parallel"):
  """A head with large random weights, so that its choices differ from image to image."""
  rng = np.random.default_rng(6)
  head = CoarseFineHead(SIZES, 13, strategy)
  features = Features(stages=(), pooled=jnp.asarray(rng.normal(size=(BATCH, IMAGE)), jnp.float32))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  return head, features, jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)


def levels(x):
  return np.split(np.asarray(x), [2, 6], axis=-1)


@functools.cache
def log_probs():
  head, features, variables = setting()
  return np.concatenate([log_softmax(block) for block in levels(head.apply(variables, features))], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def run(options, variables, features, known):
  return setting()[0].apply(variables, features, known, ARRAYS, options, method="decode")


def decode(known=None, **options):
  _, features, variables = setting()
  return jax.device_get(run(DecodeOptions(**options), variables, features, known))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_layer_reads_what_its_strategy_says(strategy):
  head, features, variables = setting(strategy)
  layers = [jax.device_get(variables["params"][f"levels_{t}"]) for t in range(3)]
  order = [2, 1, 0] if strategy == "fine_to_coarse" else [0, 1, 2]
  scores, read = {}, np.asarray(features.pooled)
  for t in order:
    scores[t] = read @ layers[t]["kernel"] + layers[t]["bias"]
    read = np.asarray(features.pooled) if strategy == "parallel" else scores[t]
  logits = head.apply(variables, features)
  np.testing.assert_allclose(logits, np.concatenate([scores[t] for t in range(3)], axis=1), rtol=1e-5, atol=1e-5)

  unseen = np.linalg.svd(layers[order[0]]["kernel"].T)[2][-1]  # moves no score of the first layer
  moved = head.apply(variables, features.replace(pooled=features.pooled + 10 * jnp.asarray(unseen)[None]))
  same = [np.allclose(a, b, atol=1e-3) for a, b in zip(levels(moved), levels(logits), strict=True)]
  assert same == ([True, False, False] if strategy == "parallel" else [True, True, True])


def test_the_loss_is_the_sum_of_the_known_levels_cross_entropies():
  head, features, variables = setting()
  paths = jnp.array([[0, 3, 8], [1, UNKNOWN, PAD], [UNKNOWN] * 3], jnp.int32)
  logits = head.apply(variables, features)
  expected = -np.array([log_probs()[0, [0, 3, 8]].sum(), log_probs()[1, 1], 0])
  for targets in (paths, paths[:, None]):
    np.testing.assert_allclose(head.loss(logits, targets, ARRAYS), expected, rtol=1e-5)
  gradient = jax.grad(lambda x: head.loss(x, paths, ARRAYS).sum())(logits)
  probs = np.exp(log_probs()) - np.asarray(jax.nn.one_hot(paths, 13)).sum(1)
  known = np.repeat(np.asarray(paths) >= 0, SIZES, axis=1)
  np.testing.assert_allclose(gradient, np.where(known, probs, 0), atol=1e-6)
  with pytest.raises(ValueError, match="multi-label head"):
    head.loss(logits, jnp.zeros((BATCH, 2, 3), jnp.int32), ARRAYS)


def ranked(scores, known=()):
  """Returns (path, score) of all leaves below the known nodes, best first, scored by the sum over the other levels."""
  paths = [path for path in map(TREE.path, TREE.leaves.tolist()) if set(known) <= set(path)]
  return sorted(
    ((path, scores[[i for i in path if i not in known]].sum()) for path in paths), key=lambda pair: -pair[1]
  )


def shares():
  """Returns the log-probability of each node among its siblings."""
  found = np.zeros((BATCH, 13))
  for node in range(-1, 6):
    found[:, TREE.children(node)] = log_softmax(log_probs()[:, TREE.children(node)])
  return found


KNOWN = np.array([[UNKNOWN, 2, UNKNOWN], [UNKNOWN] * 3, [UNKNOWN, UNKNOWN, 12]], np.int32)
WITH_ANCESTORS = [(0, 2), (), (1, 5, 12)]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("normalise", ["trained", "siblings"])
def test_a_full_beam_is_exhaustive_search_and_node_probabilities_are_its_masses(normalise, given):
  found = decode(jnp.asarray(KNOWN if given else np.full_like(KNOWN, UNKNOWN)), beam=9, normalise=normalise)
  scores = log_probs() if normalise == "trained" else shares()
  for example in range(BATCH):
    known = WITH_ANCESTORS[example] if given else ()
    expected = ranked(scores[example], known)
    assert [nodes_of(p) for p in found.paths[example]] == [p for p, _ in expected] + [()] * (9 - len(expected))
    np.testing.assert_allclose(found.log_prob[example, : len(expected)], [s for _, s in expected], rtol=1e-5, atol=1e-6)
    masses = np.zeros(13)
    for path, score in ranked(shares()[example], known):
      masses[list(path)] += np.exp(score)
    np.testing.assert_allclose(found.node_prob[example], masses, rtol=1e-4, atol=1e-6)
    own = np.exp(log_probs()[example])
    for node in known:
      block = [i for i in range(13) if TREE.level[i] == TREE.level[node]]
      own[block] = np.equal(block, node)
    np.testing.assert_allclose(found.level_prob[example], own, rtol=1e-5)
    assert found.level_nodes[example].tolist() == [
      first + block.argmax() for first, block in zip((0, 2, 6), levels(own), strict=True)
    ]
  for i in range(-1, 6):
    above = found.node_prob[:, i] if i >= 0 else 1.0
    np.testing.assert_allclose(found.node_prob[:, TREE.children(i)].sum(1), above, rtol=1e-5, atol=1e-6)
  assert (found.stop_prob == 1).all()


def test_a_narrow_beam_walks_the_tree_and_a_raw_one_takes_the_best_of_every_level():
  narrow, found = decode(beam=2), decode(beam=3, restrict="raw")
  assert all(TREE.is_path(path) for path in narrow.paths.reshape(-1, 3).tolist())
  for example in range(BATCH):
    combinations = itertools.product(*(range(a, b) for a, b in itertools.pairwise((0, 2, 6, 13))))
    best = sorted(((log_probs()[example, list(c)].sum(), c) for c in combinations), reverse=True)[:3]
    assert [tuple(path) for path in found.paths[example].tolist()] == [c for _, c in best]
    np.testing.assert_allclose(found.log_prob[example], [score for score, _ in best], rtol=1e-5)
  for prediction in (narrow, found):
    np.testing.assert_array_equal(found.paths[:, 0], prediction.level_nodes)

  paths = jnp.asarray(TREE.encode([6, 7, 8]))[:, None]
  left = [not TREE.is_path(path) for path in found.level_nodes.tolist()]
  assert 0 < sum(left) < BATCH
  metrics = evaluate_batch(jax.tree.map(jnp.asarray, narrow), Batch(paths, paths, jnp.ones(BATCH)), ARRAYS)
  assert metrics["raw_leave_rate"].value() == pytest.approx(np.mean(left))


def test_sizes_dtype_and_refusals():
  head, features, _ = setting("coarse_to_fine")
  shapes = jax.eval_shape(head.copy(dtype=jnp.bfloat16).init, jax.random.key(0), features)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == (9 * 2 + 2) + (2 * 4 + 4) + (4 * 7 + 7)
  assert jax.eval_shape(head.copy(dtype=jnp.bfloat16).apply, shapes, features).dtype == jnp.float32
  with pytest.raises(ValueError, match="strategy = 'both': choose from parallel, coarse_to_fine, fine_to_coarse"):
    CoarseFineHead(SIZES, 13, "both")
  with pytest.raises(ValueError, match="a label on each level, but paths of this tree may end above its last level"):
    CoarseFineHead(SIZES, 14)
