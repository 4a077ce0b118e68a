import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.decoding import decode
from hierjax.functional.losses import sibling_cross_entropy
from hierjax.functional.search import continuations, output_numbers
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN, LabelTree
from hierjax.types import DecodeOptions, Features
from path_oracle import log_softmax, nodes_of
from random_trees import random_tree

WIDTH, EMBED, IMAGE = 6, 5, 4


@pytest.fixture(scope="module")
def setting():
  """A head with large random weights over the toy tree, so that its choices differ from image to image."""
  tree = LabelTree.from_children(
    ["animal", "thing", "dog", "cat", "cup", "basenji", "leonberg"], [2, 2, 1, 2, 0, 0, 0, 0]
  )
  arrays = tree_arrays(tree)
  head = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=WIDTH, embed_width=EMBED)
  features = Features(stages=(), pooled=jax.random.normal(jax.random.key(3), (3, IMAGE)))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)
  return tree, arrays, head, features, variables


@functools.partial(jax.jit, static_argnums=0)
def run(head, variables, features, known, arrays, options):
  return decode(head.apply(variables, features, known, arrays, options, method="distribution"), arrays, options)


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def applied(head, variables, *inputs, method=None):
  return head.apply(variables, *inputs, method=method)


loss = jax.jit(lambda head, outputs, paths, arrays: head.loss(outputs, paths, arrays), static_argnums=0)


def decoded(setting, known=None, head=None, **options):
  _, arrays, default, features, variables = setting
  known = np.full((3, 3), UNKNOWN, np.int32) if known is None else known
  return jax.device_get(run(head or default, variables, features, known, arrays, DecodeOptions(**options)))


def factor(params):
  """Returns the scale of the logits."""
  return 2 * np.exp(0.6 * params["scale"]["s"])


def numpy_step(variables, v, h, c, previous):
  """Equations 2-7 and the softmax, for one image."""
  p = jax.tree.map(np.asarray, variables["params"])
  x = p["embed"]["embedding"][previous + 1]
  gates = x @ p["label"]["kernel"] + h @ p["lstm"]["hidden"]["kernel"] + v @ p["image"]["kernel"] + p["image"]["bias"]
  i, f, o, g = np.split(gates, 4)
  c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
  h = np.tanh(c) / (1 + np.exp(-o))
  return (
    h,
    c,
    log_softmax(factor(p) * (h @ p["output"]["kernel"] + p["output"]["bias"])),
  )


def numpy_path(setting, example, tokens):
  """Returns the log-probabilities of each step of a path, fed to itself."""
  variables, v = setting[4], np.asarray(setting[3].pooled)[example]
  h, c, previous, steps = np.zeros(WIDTH), np.zeros(WIDTH), -1, []
  for token in tokens:
    h, c, log_prob = numpy_step(variables, v, h, c, previous)
    steps.append(log_prob)
    previous = token
  return steps


ALL_PATHS = [(0, 2, 5), (0, 2, 6), (0, 3, STOP), (1, 4, STOP)]


def score(setting, example, path):
  return sum(steps[7 if y == STOP else y] for steps, y in zip(numpy_path(setting, example, path), path, strict=True))


def test_teacher_forcing_is_stepping_is_the_equations(setting):
  _, _, head, features, variables = setting
  targets = np.array([[0, 2, 6], [1, 4, STOP], [0, UNKNOWN, UNKNOWN]], np.int32)
  logits = np.asarray(applied(head, variables, features, targets))
  np.testing.assert_array_equal(logits, applied(head, variables, features, targets[:, None]))
  expected = [numpy_path(setting, i, path) for i, path in enumerate(targets.tolist()[:2])]
  np.testing.assert_allclose(log_softmax(logits)[:2], expected, rtol=1e-4, atol=1e-4)
  states = np.asarray(applied(head, variables, features, targets, method="states"))
  output = variables["params"]["output"]
  expected = factor(variables["params"]) * (states @ output["kernel"] + output["bias"])
  np.testing.assert_allclose(expected, logits, rtol=1e-5, atol=1e-5)

  image = applied(head, variables, features, method="image_gates")
  carry = (np.zeros((3, 1, WIDTH), np.float32),) * 2
  previous = np.full((3, 1), -1, np.int32)
  for t in range(3):
    carry, step = applied(head, variables, carry, previous, image, method="step")
    np.testing.assert_allclose(np.asarray(step)[:, 0], log_softmax(logits[:, t]), rtol=1e-5, atol=1e-5)
    previous = targets[:, t, None]
  first = np.asarray(applied(head, variables, features))[:, 0]
  np.testing.assert_allclose(first, logits[:, 0], rtol=1e-5, atol=1e-5)


def test_dropout_zeroes_features_in_training_and_scales_the_others_by_what_is_kept(setting):
  _, _, head, features, variables = setting
  image_gates = jax.jit(
    functools.partial(head.clone(dropout=0.75).apply, method="image_gates"), static_argnames="train"
  )
  pooled = np.asarray(features.pooled)
  kernel, bias = (np.asarray(variables["params"]["image"][name], np.float64) for name in ("kernel", "bias"))

  def inputs(**how):
    """Returns the features that the image's product reads, from the product: it has more rows than there are."""
    gates = np.asarray(image_gates(variables, features, **how), np.float64)
    return np.linalg.lstsq(kernel.T, (gates - bias).T, rcond=None)[0].T

  np.testing.assert_allclose(inputs(), pooled, atol=1e-4)
  for seed in range(3):
    read = inputs(train=True, rngs={"dropout": jax.random.key(seed)})
    kept = abs(read) > 1e-3
    np.testing.assert_allclose(read, np.where(kept, 4 * pooled, 0), atol=1e-4)
    assert 0 < kept.sum() < kept.size


@functools.partial(jax.jit, static_argnums=0)
def together_and_apart(head, variables, images, paths):
  """Returns the states and their gradients, of the whole batch and of its examples one by one."""

  def states(variables, images, paths):
    return head.apply(variables, Features((), images), paths, method="states")

  def of_each(variables, images, paths):
    return jax.lax.map(lambda one: states(variables, *one)[0], (images[:, None], paths[:, None]))

  def with_gradients(states):
    found, pullback = jax.vjp(lambda variables: states(variables, images, paths), variables)
    return found, pullback(jnp.ones_like(found))

  return with_gradients(states), with_gradients(of_each)


@pytest.mark.parametrize("distinct", [1, 4, 7, 16])
def test_however_many_labels_occur_a_batch_has_the_states_and_gradients_of_its_examples(distinct, rng):
  head = PathRNNHead(16, 16, width=WIDTH, embed_width=EMBED)
  paths = np.resize(rng.permutation(16)[:distinct], (9, 4)).astype(np.int32)
  paths[0, 1:] = PAD
  images = rng.normal(size=(9, IMAGE)).astype(np.float32)
  variables = jax.jit(head.init)(jax.random.key(0), Features((), images[:1]))
  (together, gradient), (apart, gradient_apart) = together_and_apart(head, variables, images, paths)
  np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5), gradient, gradient_apart
  )


def test_a_full_beam_finds_every_path_with_the_score_of_equation_8(setting):
  found = decoded(setting, beam=5)
  _, arrays, head, features, variables = setting
  for example in range(3):
    scores = {nodes_of(path): score(setting, example, path) for path in ALL_PATHS}
    expected = sorted(scores.items(), key=lambda item: -item[1])
    assert [nodes_of(path) for path in found.paths[example]] == [nodes for nodes, _ in expected] + [()]
    np.testing.assert_allclose(found.log_prob[example, :4], [value for _, value in expected], rtol=1e-4)
  best = np.where(found.paths[:, 0] >= 0, found.paths[:, 0], STOP)
  losses = loss(head, applied(head, variables, features, best), best, arrays)
  np.testing.assert_allclose(losses, -found.log_prob[:, 0], rtol=1e-5)  # the score is what training lowers


def test_raw_nodes_are_the_papers_inference(setting):
  found = decoded(setting, beam=5)
  for example in range(3):
    path: list[int] = []
    for t in range(3):
      log_prob = numpy_path(setting, example, [*path, 0])[t]
      best = int(np.argmax(log_prob[:7] if t == 0 else log_prob))
      if best == 7:
        break
      path.append(best)
    assert found.raw_nodes[example].tolist() == path + [PAD] * (3 - len(path))


def test_node_probabilities_are_exact_or_bounds(setting):
  _, arrays, _, _, _ = setting
  exact = decoded(setting, beam=5, normalise="siblings")
  assert exact.node_prob[:, :2].sum(1) == pytest.approx([1, 1, 1], abs=1e-5)
  assert exact.node_prob[:, 2:4].sum(1) == pytest.approx(exact.node_prob[:, 0], abs=1e-5)
  assert exact.node_prob[:, 4] == pytest.approx(exact.node_prob[:, 1], abs=1e-5)
  assert exact.node_prob[:, 5:].sum(1) == pytest.approx(exact.node_prob[:, 2], abs=1e-5)
  ends = [nodes_of(path)[-1] for path in exact.paths[:, 0]]
  np.testing.assert_allclose(np.exp(exact.log_prob[:, 0]), exact.node_prob[np.arange(3), ends], rtol=1e-4)

  bounds = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=WIDTH, embed_width=EMBED, exact_inner_nodes=0)
  wide = decoded(setting, head=bounds, beam=4, restrict="raw")
  np.testing.assert_allclose(wide.node_prob, exact.node_prob, rtol=1e-4, atol=1e-6)
  narrow = decoded(setting, head=bounds, beam=2)
  assert (narrow.node_prob <= exact.node_prob + 1e-6).all() and (narrow.node_prob < exact.node_prob - 1e-6).any()
  assert (narrow.node_prob <= np.where(arrays.parent < 0, 1, narrow.node_prob[:, arrays.parent]) + 1e-6).all()


def test_known_labels_condition_everything(setting):
  free = decoded(setting, beam=5, normalise="siblings")
  known = np.array([[0, UNKNOWN, UNKNOWN], [1, UNKNOWN, UNKNOWN], [UNKNOWN] * 3], np.int32)
  given = decoded(setting, known, beam=5, normalise="siblings")
  for example, top in ((0, 0), (1, 1)):
    inside = [tuple(p) for p in free.paths[example].tolist() if p[0] == top]
    assert [tuple(p) for p in given.paths[example].tolist() if p[0] >= 0] == inside
    kept = np.isin(free.paths[example, :, 0], top)
    expected = free.log_prob[example, kept] - np.log(free.node_prob[example, top])
    np.testing.assert_allclose(given.log_prob[example, : len(inside)], expected, rtol=1e-4, atol=1e-4)
    assert given.node_prob[example, top] == 1 and given.node_prob[example, 1 - top] == 0
    assert given.raw_nodes[example, 0] == top
  np.testing.assert_allclose(given.node_prob[2], free.node_prob[2], rtol=1e-6)


def with_siblings(setting):
  """Returns a head with a softmax over siblings, and the weights of `setting` for it."""
  _, arrays, _, _, variables = setting
  head = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=WIDTH, embed_width=EMBED, softmax="siblings")
  return head, transposed(variables)


def transposed(variables):
  output = variables["params"]["output"]
  return {"params": {**variables["params"], "output": {**output, "kernel": output["kernel"].T}}}


def test_siblings_have_the_shares_of_the_nodes_logits(setting):
  tree, arrays, nodes, features, variables = setting
  head, weights = with_siblings(setting)
  expected = decoded(setting, beam=4, normalise="siblings")
  found = decoded((tree, arrays, head, features, weights), beam=4)
  for name in ("paths", "log_prob", "stop_prob", "node_prob"):
    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6, err_msg=name)
  np.testing.assert_allclose(np.exp(found.log_prob).sum(axis=1), 1.0, rtol=1e-5)
  for example in range(3):
    path: list[int] = []
    while not path or tree.children(path[-1]):
      log_prob = numpy_path(setting, example, [*path, 0])[-1]
      path.append(max(tree.children(path[-1] if path else -1), key=lambda node, p=log_prob: p[node]))
    assert nodes_of(found.raw_nodes[example]) == tuple(path)

  targets = np.array([[0, 2, 6], [1, 4, STOP], [0, UNKNOWN, UNKNOWN]], np.int32)
  before = np.array([[-1, 0, 2], [-1, 1, 4], [-1, 0, -1]], np.int32)

  def whole(variables, targets, before):
    tokens, allowed = continuations(before, arrays)
    logits = nodes.apply(variables, features, targets)
    logits = jnp.take_along_axis(logits, output_numbers(tokens, arrays), axis=-1)
    return sibling_cross_entropy(logits, tokens, allowed, targets).sum()

  def ours(variables, targets):
    return head.loss(head.apply(variables, features, targets[:, None]), targets[:, None], arrays).sum()

  expected, expected_gradient = jax.device_get(jax.jit(jax.value_and_grad(whole))(variables, targets, before))
  found, gradient = jax.jit(jax.value_and_grad(ours))(weights, targets)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (gradient, transposed(expected_gradient))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_smoothed_labels_reach_the_loss_of_both_softmaxes(setting):
  _, arrays, nodes, features, its_weights = setting
  targets = np.array([[0, 2, 6], [1, 4, STOP], [0, UNKNOWN, UNKNOWN]], np.int32)

  @functools.partial(jax.jit, static_argnums=0)
  def losses(head, weights, targets):
    outputs = head.apply(weights, features, targets)
    return [head.clone(label_smoothing=epsilon).loss(outputs, targets, arrays) for epsilon in (0.0, 0.1, 0.2)]

  for head, weights in ((nodes, its_weights), with_siblings(setting)):
    plain, tenth, fifth = jax.device_get(losses(head, weights, targets))
    np.testing.assert_allclose(tenth - plain, (fifth - plain) / 2, rtol=1e-3, atol=1e-5)  # it is linear in the share
    assert (np.abs(tenth - plain) > 1e-3).all()


def every_path(tree, node=-1, path=()):
  """Yields all paths of a tree in which a path may end anywhere."""
  for child in tree.children(node):
    longer = (*path, child)
    if len(longer) < tree.depth:
      yield (*longer, STOP, *[PAD] * (tree.depth - len(longer) - 1))
    else:
      yield longer
    yield from every_path(tree, child, longer)


def dense_logits(head, variables, features, paths):
  """Returns the logits of all outputs at each step of each path, whatever the head's softmax runs over."""
  many = features.replace(pooled=np.repeat(features.pooled, len(paths), axis=0))
  outputs = jax.device_get(applied(head, variables, many, np.tile(paths, (len(features.pooled), 1))))
  if head.softmax == "siblings":
    outputs = outputs.states @ outputs.kernel.T + outputs.bias
  return outputs.reshape(-1, *paths.shape, head.num_outputs)


def scores(tree, logits, path, siblings, forced):
  """Returns the log-probability of a path after its first `forced` steps."""
  total, node = 0.0, -1
  for t, token in enumerate(path):
    following = [*tree.children(node), *[tree.num_nodes] * (node >= 0)]
    number = tree.num_nodes if token == STOP else token
    log_prob = (
      dict(zip(following, log_softmax(logits[t, following]), strict=True)) if siblings else log_softmax(logits[t])
    )
    total += log_prob[number] if t >= forced else 0.0
    if token == STOP:
      break
    node = token
  return total


@pytest.mark.parametrize("normalise", ["trained", "siblings"])
@pytest.mark.parametrize("softmax", ["nodes", "siblings"])
def test_a_full_beam_is_exhaustive_on_a_random_tree(softmax, normalise, rng):
  tree = random_tree(np.random.default_rng(53), depth=3, most_children=3)
  arrays = tree_arrays(tree, "stop")
  head = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=WIDTH, softmax=softmax)
  features = Features((), rng.normal(size=(2, IMAGE)).astype(np.float32))
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  variables = jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)
  paths = np.array(list(every_path(tree)), np.int32)
  assert not tree.uniform and len(paths) == tree.num_nodes > 12
  assert tree.child_offsets[arrays.inner[-1] + 1] > tree.num_nodes - tree.max_children  # a window that must not run out
  known = np.full((2, 3), UNKNOWN, np.int32)
  known[1, 1] = given = next(i for i in range(tree.num_nodes) if tree.level[i] == 1 and not tree.is_leaf(i))
  found = decoded((tree, arrays, head, features, variables), known, beam=len(paths), normalise=normalise)

  logits = dense_logits(head, variables, features, paths)
  for example, forced in ((0, 0), (1, 2)):
    rows = [i for i, path in enumerate(paths) if not forced or path[1] == given]
    of_siblings = "siblings" in (softmax, normalise)
    values = {
      nodes_of(paths[i]): scores(tree, logits[example, i], paths[i].tolist(), of_siblings, forced) for i in rows
    }
    ranked = sorted(values, key=lambda nodes: -values[nodes])
    assert [nodes_of(path) for path in found.paths[example]] == ranked + [()] * (len(paths) - len(rows))
    np.testing.assert_allclose(found.log_prob[example, : len(rows)], [values[n] for n in ranked], rtol=1e-4, atol=1e-4)
    if of_siblings:
      np.testing.assert_allclose(np.exp(found.log_prob[example]).sum(), 1.0, rtol=1e-4)


def test_decoding_by_siblings_holds_nothing_of_the_size_of_the_tree():
  """Beyond its arguments; node probabilities, an output of that size, are not asked for. Softmax over nodes must."""
  counts = np.concatenate([[50], np.full(50, 50), np.full(2500, 8), np.zeros(20_000, np.int64)])
  arrays = tree_arrays(LabelTree.from_children([str(i) for i in range(counts.sum())], counts))
  features, beam, width = Features((), jnp.zeros((8, IMAGE))), 5, 16

  @functools.partial(jax.jit, static_argnums=0)
  def paths(head, variables, features, tree):
    options = DecodeOptions(beam=beam)
    found = decode(head.apply(variables, features, None, tree, options, method="distribution"), tree, options)
    return found.paths, found.log_prob, found.stop_prob

  taken = {}
  for softmax in ("siblings", "nodes"):
    head = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=width, softmax=softmax)
    shapes = jax.eval_shape(head.init, jax.random.key(0), features)
    memory = paths.lower(head, shapes, features, arrays).compile().memory_analysis()
    taken[softmax] = memory.temp_size_in_bytes
  assert taken["siblings"] < 4 * arrays.num_nodes * 8 < 4 * arrays.num_nodes * 8 * beam <= taken["nodes"]


def test_what_is_unknown_changes_nothing(setting):
  _, arrays, head, features, variables = setting

  @jax.jit
  def gradient(targets):
    return jax.grad(lambda v: head.loss(head.apply(v, features, targets), targets, arrays).sum())(variables)

  labels = [[0, UNKNOWN, UNKNOWN], [0, PAD, PAD], [UNKNOWN] * 3]
  short, padded, nothing = (jax.device_get(gradient(np.array([label] * 3, np.int32))) for label in labels)
  for a, b, zero in zip(*map(jax.tree.leaves, (short, padded, nothing)), strict=True):
    np.testing.assert_array_equal(a, b)
    assert (zero == 0).all()
  embedding = short["params"]["embed"]["embedding"]
  assert (embedding[0] != 0).any() and (embedding[1:] == 0).all()  # START alone was fed


def test_another_tree_of_the_same_shape_is_not_compiled_again(setting):
  tree, _, head, features, variables = setting
  decoded(setting, beam=5)
  compiled = run._cache_size()
  other = LabelTree.from_children(["a", "b", "c", "d", "e", "f", "g"], [2, 1, 2, 2, 0, 0, 0, 0])
  found = decoded((other, tree_arrays(other), head, features, variables), beam=5)
  assert run._cache_size() == compiled
  for path in found.paths[:, :4].reshape(-1, 3).tolist():
    assert other.is_path(path)
  assert not all(tree.is_path(path) for path in found.paths[:, :4].reshape(-1, 3).tolist())


def test_sizes_dtype_and_refusals(setting):
  _, arrays, _, features, _ = setting
  head = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=WIDTH, embed_width=EMBED, dtype=jnp.bfloat16)
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert count == 8 * EMBED + 4 * WIDTH * (EMBED + WIDTH + IMAGE + 1) + 8 * (WIDTH + 1) + 1
  assert jax.eval_shape(head.apply, shapes, features).dtype == jnp.float32
  for softmax in ("nodes", "siblings"):
    shapes = jax.eval_shape(head.clone(softmax=softmax).init, jax.random.key(0), features)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
  with pytest.raises(
    UserError, match=r"decode\.restrict = raw: with config\.head\.softmax = siblings only the children"
  ):
    decoded(setting, head=with_siblings(setting)[0], restrict="raw")
  with pytest.raises(ValueError, match="choose from nodes, siblings"):
    PathRNNHead(7, 8, softmax="leaves")
  for sizes in ({"width": 0}, {"embed_width": 0}, {"embed_width": -3}):
    with pytest.raises(ValueError, match="must be 1 or more"):
      PathRNNHead(7, 8, **sizes)
  with pytest.raises(ValueError, match=r"label_smoothing = 1\.5: must be from 0 to 1"):
    PathRNNHead(7, 8, label_smoothing=1.5)
  with pytest.raises(ValueError, match="choose from sum, mean"):
    PathRNNHead(7, 8, reduction="max")
  with pytest.raises(ValueError, match="multi-label head"):
    loss(head, np.zeros((3, 3, 8), np.float32), np.zeros((3, 2, 3), np.int32), arrays)


@pytest.mark.parametrize("softmax", ["nodes", "siblings"])
def test_logits_start_with_the_variance_of_a_usual_output_layer(setting, softmax):
  arrays, features = setting[1], setting[3]
  head = PathRNNHead(arrays.num_nodes, arrays.num_outputs, width=2000, embed_width=4, softmax=softmax)

  @jax.jit
  def start(features):
    params = head.init(jax.random.key(0), features)["params"]
    return {name: params[name] for name in ("scale", "output")}

  params = jax.device_get(start(features))
  np.testing.assert_allclose(factor(params) * params["output"]["kernel"].std(), 2000**-0.5, rtol=0.03)


def test_layer_norm_of_the_features(setting, rng):
  """Scale and mean of the features change nothing; those in float16 do not overflow."""
  arrays, head, variables = setting[1], setting[2], setting[4]
  image = rng.normal(size=(3, IMAGE)).astype(np.float32)
  scale, shift = rng.normal(size=(2, IMAGE)).astype(np.float32)
  normed = (image - image.mean(1, keepdims=True)) / np.sqrt(image.var(1, keepdims=True) + 1e-6) * scale + shift
  with_norm = {"params": {**variables["params"], "feature_norm": {"scale": scale, "bias": shift}}}
  targets = np.array([[0, 2, 5], [0, 3, PAD], [1, 4, PAD]], np.int32)
  expected = applied(head, variables, Features((), normed), targets)
  for changed in (image, 30 * image + 7):
    found = applied(head.clone(norm="layer"), with_norm, Features((), changed), targets)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
  half = head.clone(norm="layer", dtype=jnp.float16)
  assert np.isfinite(applied(half, with_norm, Features((), (3e4 + 1e4 * image).astype(np.float16)), targets)).all()
  with pytest.raises(ValueError, match="choose from none, layer"):
    PathRNNHead(arrays.num_nodes, arrays.num_outputs, norm="batch")


def test_image_gain_scales_the_initial_values_of_the_image_matrix():
  @functools.partial(jax.jit, static_argnums=0)
  def kernels(head):
    params = head.init(jax.random.key(0), Features((), jnp.zeros((1, 400))))["params"]
    return params["image"]["kernel"], params["label"]["kernel"]

  head = PathRNNHead(7, 8, width=64, embed_width=4)
  usual, label = jax.device_get(kernels(head.clone(image_gain=1.0)))
  np.testing.assert_allclose(usual.std(), 400**-0.5, rtol=0.02)
  for gain in (0.5, 2.0):
    other, same = jax.device_get(kernels(head.clone(image_gain=gain)))
    np.testing.assert_allclose(other, gain * usual, rtol=1e-6)
    np.testing.assert_array_equal(same, label)
  np.testing.assert_array_equal(jax.device_get(kernels(head))[0], other)  # the default is 2
  for gain in (0.0, -1.0):
    with pytest.raises(ValueError, match=f"image_gain = {gain}: must be more than 0"):
      PathRNNHead(7, 8, image_gain=gain)
