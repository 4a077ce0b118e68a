import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.decoding import decode
from hierjax.functional.metrics import evaluate_batch
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.coarse_fine import CoarseFineHead
from hierjax.tree.label_tree import PAD, ROOT, STOP, UNKNOWN, LabelTree
from hierjax.types import Batch, DecodeOptions, Features
from path_oracle import log_softmax, nodes_of

IMAGE, BATCH = 9, 3
TREES = {
  "even": LabelTree.from_children(list("ABabcdefghijk"), [2, 1, 3, 2, 1, 2, 2, *[0] * 7]),  # 2, 4 and 7 nodes
  "early": LabelTree.from_children(list("ABCabcdefg"), [3, 2, 1, 0, 2, 0, 2, *[0] * 4]),  # C and b are leaves above
}
TREE = TREES["even"]
ARRAYS = {name: tree_arrays(tree) for name, tree in TREES.items()}


def blocks_of(tree):
  """Returns the nodes that each level tells apart."""
  early = [[leaf for leaf in tree.leaves.tolist() if leaf < first] for first in tree.level_offsets[:-1]]
  return [[*range(*tree.level_offsets[t : t + 2]), *early[t]] for t in range(tree.depth)]


def carried(tree, leaf):
  """Returns what a leaf's path has at each level; a leaf that ends early has itself below."""
  path = tree.path(leaf)
  return [*path, *[leaf] * (tree.depth - len(path))]


@functools.cache
def setting(name="even", strategy="parallel", branch_levels=()):
  """A head with large random weights, so that its choices differ from image to image."""
  rng = np.random.default_rng(6)
  sizes = tuple(len(block) for block in blocks_of(TREES[name]))
  head = CoarseFineHead(sizes, ARRAYS[name].stop_at, strategy, branch_levels)
  features = Features(stages=(), pooled=rng.normal(size=(BATCH, IMAGE)).astype(np.float32))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  return head, features, jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)


@functools.partial(jax.jit, static_argnums=0)
def applied(head, variables, features):
  return head.apply(variables, features)


def levels(x, name="even"):
  return np.split(np.asarray(x), np.cumsum([len(block) for block in blocks_of(TREES[name])])[:-1], axis=-1)


@functools.cache
def log_probs(name="even"):
  head, features, variables = setting(name)
  return [log_softmax(block) for block in levels(applied(head, variables, features), name)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(name, options, variables, features, known):
  found = setting(name)[0].apply(variables, features, known, ARRAYS[name], options, method="distribution")
  return decode(found, ARRAYS[name], options), found.summed_levels


def decoded(name="even", known=None, **options):
  _, features, variables = setting(name)
  prediction, summed_levels = run(name, DecodeOptions(**options), variables, features, known)
  assert summed_levels == ()
  return jax.device_get(prediction)


@pytest.mark.parametrize("strategy", ["parallel", "coarse_to_fine", "fine_to_coarse"])
def test_each_layer_reads_what_its_strategy_says(strategy):
  head, features, variables = setting("even", strategy)
  layers = [variables["params"][f"levels_{t}"] for t in range(3)]
  order = [2, 1, 0] if strategy == "fine_to_coarse" else [0, 1, 2]
  scores, read = {}, features.pooled
  for t in order:
    scores[t] = read @ layers[t]["kernel"] + layers[t]["bias"]
    read = features.pooled if strategy == "parallel" else scores[t]
  logits = applied(head, variables, features)
  np.testing.assert_allclose(logits, np.concatenate([scores[t] for t in range(3)], axis=1), rtol=1e-5, atol=1e-5)

  unseen = np.linalg.svd(layers[order[0]]["kernel"].T)[2][-1]  # moves no score of the first layer
  moved = applied(head, variables, features.replace(pooled=features.pooled + 10 * unseen))
  same = [np.allclose(a, b, atol=1e-3) for a, b in zip(levels(moved), levels(logits), strict=True)]
  assert same == ([True, False, False] if strategy == "parallel" else [True, True, True])


def compatible(tree, label):
  """Returns which entries of each level an image of this label may have: the label's ancestor, or what is below it."""
  leaves = [leaf for leaf in tree.leaves.tolist() if label == ROOT or label in tree.path(leaf)]
  may = [{carried(tree, leaf)[t] for leaf in leaves} for t in range(tree.depth)]
  return [[node in here for node in block] for here, block in zip(may, blocks_of(tree), strict=True)]


@pytest.mark.parametrize("name", TREES)
def test_the_loss_is_each_levels_cross_entropy_down_to_the_label_and_then_of_what_is_below_it(name, rng):
  tree, (head, _, _) = TREES[name], setting(name)
  labels = range(ROOT, tree.num_nodes)
  paths = np.concatenate([tree.encode(list(labels)), np.full((1, 3), PAD)]).astype(np.int32)
  logits = (3 * rng.normal(size=(len(paths), sum(head.block_sizes)))).astype(np.float32)
  expected, gradients = np.zeros(len(paths)), np.zeros_like(logits)
  for row, label in enumerate(labels):
    gradient = []
    for scores, may in zip(levels(logits[row], name), compatible(tree, label), strict=True):
      prob = np.exp(log_softmax(scores))
      expected[row] -= np.log(prob[may].sum())
      gradient.append(prob - np.where(may, prob, 0) / prob[may].sum())
    gradients[row] = np.concatenate(gradient)

  @jax.jit
  def run(logits, paths):
    found, pullback = jax.vjp(lambda x: head.loss(x, paths, ARRAYS[name]), logits)
    return found, *pullback(jnp.ones(len(paths)))

  for targets in (paths, paths[:, None]):
    found, gradient = jax.device_get(run(logits, targets))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, gradients, rtol=1e-4, atol=1e-6)
    assert (found[[0, -1]] == 0).all() and (gradient[0] == 0).all() and (gradient[-1] == 0).all()
  with pytest.raises(ValueError, match="multi-label head"):
    run(logits, np.zeros((len(paths), 2, 3), np.int32))


def test_improbable_labels_have_finite_losses_and_gradients():
  """Also where a level without a layer would have a sum of nothing but underflow."""
  logits, paths = np.full((1, 7), -2000.0, np.float32), np.array([[1, UNKNOWN, UNKNOWN]], np.int32)
  logits[0, 0] = 0
  head, _, _ = setting("even", "parallel", (3,))
  loss, gradient = jax.jit(jax.value_and_grad(lambda x: head.loss(x, jnp.asarray(paths), ARRAYS["even"])[0]))(logits)
  np.testing.assert_allclose(loss, 2000 - np.log(5), rtol=1e-6)
  np.testing.assert_allclose(gradient, [[1, 0, *[-0.2] * 5]], rtol=1e-5)


def ranked(name, scores, known=()):
  """Returns (path, score) of all leaves below the known nodes, best first; `scores` says what a leaf's is."""
  tree = TREES[name]
  leaves = [leaf for leaf in tree.leaves.tolist() if set(known) <= set(tree.path(leaf))]
  return sorted(((tree.path(leaf), scores(leaf)) for leaf in leaves), key=lambda pair: -pair[1])


def trained(name, example, known):
  """Returns the score of a leaf: the sum over all levels, those below it too, of the nodes that are not known."""
  tree = TREES[name]
  tables = [dict(zip(b, p[example], strict=True)) for b, p in zip(blocks_of(tree), log_probs(name), strict=True)]
  return lambda leaf: sum(tables[t][node] for t, node in enumerate(carried(tree, leaf)) if node not in known)


def shares(name, example, known):
  """Returns the score of a leaf: the sum over its path of each node's share among its siblings."""
  tree = TREES[name]
  found = np.zeros(tree.num_nodes)
  for node in range(ROOT, tree.num_nodes):
    if children := tree.children(node):
      level = tree.level[children[0]]
      found[children] = log_softmax(log_probs(name)[level][example][np.array(children) - tree.level_offsets[level]])
  return lambda leaf: sum(found[node] for node in tree.path(leaf) if node not in known)


KNOWN = {
  "even": ([[UNKNOWN, 2, UNKNOWN], [UNKNOWN] * 3, [UNKNOWN, UNKNOWN, 12]], [(0, 2), (), (1, 5, 12)]),
  "early": ([[0, 4, STOP], [UNKNOWN, 3, UNKNOWN], [2, STOP, PAD]], [(0, 4), (0, 3), (2,)]),
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("normalise", ["trained", "siblings"])
@pytest.mark.parametrize("name", TREES)
def test_a_full_beam_is_exhaustive_search_and_node_probabilities_are_its_masses(name, normalise, given):
  tree = TREES[name]
  labels, with_ancestors = KNOWN[name]
  labels = np.array(labels if given else [[UNKNOWN] * 3] * BATCH, np.int32)
  found = decoded(name, labels, beam=9, normalise=normalise)
  scores = trained if normalise == "trained" else shares
  for example in range(BATCH):
    known = with_ancestors[example] if given else ()
    expected = ranked(name, scores(name, example, known), known)
    assert [nodes_of(p) for p in found.paths[example]] == [p for p, _ in expected] + [()] * (9 - len(expected))
    np.testing.assert_allclose(found.log_prob[example, : len(expected)], [s for _, s in expected], rtol=1e-5, atol=1e-6)
    masses = np.zeros(tree.num_nodes)
    for path, score in ranked(name, shares(name, example, known), known):
      masses[list(path)] += np.exp(score)
    np.testing.assert_allclose(found.node_prob[example], masses, rtol=1e-4, atol=1e-6)
    certain = carried(tree, known[-1]) if known and tree.is_leaf(known[-1]) else [*known]
    own = [np.exp(block[example]) for block in log_probs(name)]
    own[: len(certain)] = [np.equal(block, c) for block, c in zip(blocks_of(tree), certain, strict=False)]
    np.testing.assert_allclose(found.level_prob[example], np.concatenate(own), rtol=1e-5)
    best = [block[prob.argmax()] for block, prob in zip(blocks_of(tree), own, strict=True)]
    assert found.raw_nodes[example].tolist() == [node if tree.level[node] == t else PAD for t, node in enumerate(best)]
  for i in range(ROOT, tree.num_nodes):
    if children := tree.children(i):
      above = found.node_prob[:, i] if i >= 0 else 1.0
      np.testing.assert_allclose(found.node_prob[:, children].sum(1), above, rtol=1e-5, atol=1e-6)
  assert (found.stop_prob[found.log_prob > -np.inf] == 1).all()


def test_a_narrow_beam_walks_the_tree_and_a_raw_one_takes_the_best_of_every_level():
  narrow, found = decoded(beam=2), decoded(beam=3, restrict="raw")
  assert all(TREE.is_path(path) for path in narrow.paths.reshape(-1, 3).tolist())
  every = np.concatenate(log_probs(), axis=1)
  for example in range(BATCH):
    combinations = itertools.product(*(range(a, b) for a, b in itertools.pairwise((0, 2, 6, 13))))
    best = sorted(((every[example, list(c)].sum(), c) for c in combinations), reverse=True)[:3]
    assert [tuple(path) for path in found.paths[example].tolist()] == [c for _, c in best]
    np.testing.assert_allclose(found.log_prob[example], [score for score, _ in best], rtol=1e-5)
  for prediction in (narrow, found):
    np.testing.assert_array_equal(found.paths[:, 0], prediction.raw_nodes)

  paths = TREE.encode([6, 7, 8])[:, None]
  left = [not TREE.is_path(path) for path in found.raw_nodes.tolist()]
  assert 0 < sum(left) < BATCH
  metrics = jax.jit(evaluate_batch)(narrow, Batch(paths, paths, np.ones(BATCH, np.float32)), ARRAYS["even"])
  assert metrics["inconsistent_predictions"].value() == pytest.approx(np.mean(left))


def test_a_raw_path_ends_where_a_leaf_above_has_more_than_a_node():
  """All sequences of a node a level, the best leaf above as STOP; a beam of 1 is each level's argmax up to that."""
  found, greedy = decoded("early", beam=48, restrict="raw"), decoded("early", beam=1, restrict="raw")
  tables = log_probs("early")
  for example in range(BATCH):
    expected = {}
    for path in itertools.product(range(3), [3, 4, 5, PAD], [6, 7, 8, 9, PAD]):
      nodes = tuple(itertools.takewhile(lambda node: node >= 0, path))
      steps = [tables[t][example][node - first] for t, (node, first) in enumerate(zip(nodes, (0, 3, 6), strict=False))]
      stop = [tables[len(nodes)][example][(3, 3, 4)[len(nodes)] :].max()] if len(nodes) < 3 else []
      expected[nodes] = sum([*steps, *stop])
    ranks = sorted(expected, key=expected.get, reverse=True)
    assert [nodes_of(path) for path in found.paths[example].tolist()] == ranks and len(ranks) == 48
    np.testing.assert_allclose(found.log_prob[example], [expected[path] for path in ranks], rtol=1e-5)
    best = greedy.raw_nodes[example].tolist()
    assert nodes_of(greedy.paths[example, 0].tolist()) == tuple(itertools.takewhile(lambda node: node >= 0, best))
  assert (greedy.raw_nodes == PAD).any()


def test_a_level_without_a_layer_is_the_sum_of_the_one_below_and_learns_nothing():
  """Levels 1 and 3 have a branch: each reads its own part of the pooled vector."""
  tree, arrays = TREES["early"], ARRAYS["early"]
  head = CoarseFineHead(arrays.block_sizes, arrays.stop_at, branch_levels=(1, 3))
  _, features, whole = setting("early")
  halves = [features.pooled, 2 * features.pooled]
  features = Features((), np.concatenate(halves, axis=1))
  layers = {f"levels_{t}": whole["params"][f"levels_{t}"] for t in (0, 2)}

  @jax.jit
  def run(features, layers):
    paths = jnp.asarray(tree.encode([6, 7, 8]))
    found = head.apply({"params": layers}, features, None, arrays, DecodeOptions(), method="distribution")
    assert found.summed_levels == (1,)
    return found.level_prob, head.loss(head.apply({"params": layers}, features), paths, arrays)

  level_prob, loss = run(features, layers)
  tables = [
    np.exp(log_softmax(half @ layer["kernel"] + layer["bias"]))
    for half, layer in zip(halves, layers.values(), strict=True)
  ]
  top, middle, last = levels(level_prob, "early")
  np.testing.assert_allclose(top, tables[0], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(last, tables[1], rtol=1e-4, atol=1e-6)
  blocks = blocks_of(tree)
  for i, node in enumerate(blocks[1]):
    below = [j for j, leaf in enumerate(blocks[2]) if node in carried(tree, leaf)]
    np.testing.assert_allclose(middle[:, i], last[:, below].sum(1), rtol=1e-5)
  tops = [tree.path(leaf)[0] for leaf in (6, 7, 8)]
  expected = [-np.log(tables[0][i, tops[i]]) - np.log(tables[1][i, blocks[2].index(6 + i)]) for i in range(BATCH)]
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_a_head_learns_a_tree_of_any_depth(rng):
  head, _, _ = setting("early")
  tree = TREES["early"]
  labels = np.repeat(tree.leaves, 3)
  features = Features((), jax.device_put(rng.normal(size=(len(labels), 40)).astype(np.float32)))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  weights = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
  paths = jax.device_put(tree.encode(labels))

  @jax.jit
  def step(weights):
    loss, gradient = jax.value_and_grad(lambda w: head.loss(head.apply(w, features), paths, ARRAYS["early"]).mean())(
      weights
    )
    return loss, jax.tree.map(lambda w, g: w - 0.5 * g, weights, gradient)

  losses = []
  for _ in range(20):
    loss, weights = step(weights)
    losses.append(float(loss))
  assert losses[0] == pytest.approx(np.log([3, 4, 6]).sum(), rel=1e-5) and losses[-1] < 0.2 * losses[0]


def test_sizes_dtype_and_refusals():
  head, features, _ = setting("even", "coarse_to_fine")
  shapes = jax.eval_shape(head.copy(dtype=jnp.bfloat16).init, jax.random.key(0), features)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == (9 * 2 + 2) + (2 * 4 + 4) + (4 * 7 + 7)
  assert jax.eval_shape(head.copy(dtype=jnp.bfloat16).apply, shapes, features).dtype == jnp.float32
  with pytest.raises(ValueError, match="strategy = 'both': choose from parallel, coarse_to_fine, fine_to_coarse"):
    CoarseFineHead((2, 4), "bottom", "both")
  with pytest.raises(ValueError, match=r"short_labels = unknown"):
    CoarseFineHead((2, 4), "node")
