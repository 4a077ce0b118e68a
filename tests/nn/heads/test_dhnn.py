"""The heads of Koo et al.: their equations, their decoding, and that all of the network learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from initial_weights import initial_weights

from hierjax.errors import UserError
from hierjax.functional.decoding import decode, end_probability
from hierjax.functional.losses import path_cross_entropy
from hierjax.functional.multilabel import step_cross_entropy
from hierjax.functional.paths import are_walks
from hierjax.functional.search import beam_search, lookup_step
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN, LabelTree
from hierjax.types import DecodeOptions, Features
from path_oracle import log_softmax, nodes_of

FIXED = LabelTree.from_children(list("ABCDEFG"), [2, 2, 3, 0, 0, 0, 0, 0])  # the slides': A has C, D; B has E, F, G
VARIABLE = LabelTree.from_children(list("ABabcde"), [2, 2, 1, 2, 0, 0, 0, 0])
STAGES = tuple(jax.random.normal(jax.random.key(i), (3, 4, 4, 4 * (i + 1))) for i in range(3))
FEATURES = Features(stages=STAGES, pooled=np.zeros((3, 12), np.float32))
IMAGES = jax.random.normal(jax.random.key(9), (3, 8, 8, 3))
BACKBONE = {"name": "small_resnet", "widths": (4, 4, 8), "blocks": 1}
SMALL = {"width": 4, "size": 16}


def method(tree, name, short_labels="unknown", **head):
  return make_method(ModelConfig(BACKBONE, {"name": name, **SMALL, **head}), tree_arrays(tree, short_labels))


def started(head, features=FEATURES):
  """Returns large random weights, so that choices differ from image to image."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(head.init, jax.random.key(0), features)
  return jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), shapes)


def at_the_start(method):
  return initial_weights(jax.eval_shape(method.module.init, jax.random.key(0), IMAGES))


@functools.partial(jax.jit, static_argnums=0)
def prediction_of(head, variables, known, arrays, options):
  distribution = head.apply(variables, FEATURES, known, arrays, options, method="distribution")
  return decode(distribution, arrays, options)


def decoded(*given):
  return jax.device_get(prediction_of(*given))


encoded = jax.jit(lambda head, variables: head.apply(variables, FEATURES, method="encode"), static_argnums=0)
applied = jax.jit(lambda head, variables, *paths: head.apply(variables, FEATURES, *paths), static_argnums=0)
loss_of = jax.jit(lambda head, outputs, paths, arrays: head.loss(outputs, paths, arrays), static_argnums=0)
path_cross_entropy = jax.jit(path_cross_entropy, static_argnames=("weights", "epsilon"))
step_cross_entropy, end_probability, are_walks = map(jax.jit, (step_cross_entropy, end_probability, are_walks))


def nothing_known(tree):
  return np.full((3, tree.depth), UNKNOWN, np.int32)


def test_the_slides_example():  # READINGS K10
  probs = np.float32([[[0.3, 0.4, 0.1, 0.1, 0.1, 0.1, 0.0], [0.0, 0.1, 0.0, 0.1, 0.1, 0.2, 0.5]]])
  arrays = tree_arrays(FIXED)

  @jax.jit
  def search(probs):
    known = jnp.full((1, 2), UNKNOWN, jnp.int32)
    return beam_search(lookup_step(jnp.log(probs)), jnp.zeros((1, 1), jnp.int32), known, arrays, DecodeOptions())

  found = jax.device_get(search(probs))
  assert FIXED.nodes_text(found.paths[0, 0].tolist()) == "B/G"
  np.testing.assert_allclose(found.log_prob, np.log(0.4 * 0.5), rtol=1e-6)  # not renormalised over siblings


@pytest.mark.parametrize("size", [16, 8])  # 8 is h_t's, where A is left out (READINGS K6)
def test_the_residual_arc_is_the_equation(size):
  head = method(FIXED, "dhnn_rnn", size=size, layers=1).module.head
  variables = started(head)
  p = jax.tree.map(np.asarray, variables["params"])
  assert ("align" in p) == (size != 8)

  @jax.jit
  def inner(variables):
    bound = head.bind(variables)
    u = bound.sequence(FEATURES)
    return u, bound.recurrence(u)[1]

  u, h = map(np.asarray, inner(variables))
  arc = u + (h @ p["align"]["kernel"] if size != 8 else h)
  expected = np.einsum("btp,tpn->btn", arc, p["output_kernel"]) + p["output_bias"]
  np.testing.assert_allclose(applied(head, variables), expected, rtol=1e-4, atol=1e-4)

  head = method(FIXED, "dhnn_rnn", size=size, layers=1, residual=False).module.head
  assert jax.eval_shape(head.init, jax.random.key(0), FEATURES)["params"]["output_kernel"].shape == (2, 8, 7)


def test_a_level_has_a_distribution_of_its_own():
  found = method(FIXED, "dhnn_rnn")
  head, tree = found.module.head, found.tree
  variables = started(head)
  known = nothing_known(FIXED)
  known[0, 0] = 1
  prediction = decoded(head, variables, known, tree, DecodeOptions(beam=5))
  log_probs = log_softmax(np.asarray(applied(head, variables), np.float64))
  for t, (first, end) in enumerate(((0, 2), (2, 7))):
    block = np.exp(log_probs[:, t, first:end])
    expected = block / block.sum(1, keepdims=True)
    expected[0] = [0, 1] if t == 0 else expected[0]
    np.testing.assert_allclose(prediction.level_prob[:, first:end], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(prediction.raw_nodes[:, t], first + expected.argmax(1))
  for example in (1, 2):  # a full beam finds all five paths
    paths = [(0, 2), (0, 3), (1, 4), (1, 5), (1, 6)]
    scores = {path: log_probs[example, 0, path[0]] + log_probs[example, 1, path[1]] for path in paths}
    expected = sorted(scores, key=lambda path: -scores[path])
    assert [tuple(path) for path in prediction.paths[example].tolist()] == expected
    np.testing.assert_allclose(prediction.log_prob[example], [scores[path] for path in expected], rtol=1e-4)
  assert {path[0] for path in prediction.paths[0].tolist()[:3]} == {1}


def test_the_loss_weighs_levels():
  outputs = np.asarray(jax.random.normal(jax.random.key(0), (2, 2, 7)))
  paths = np.array([[0, 3], [1, UNKNOWN]], np.int32)
  arrays = tree_arrays(FIXED)
  log_probs = log_softmax(np.asarray(outputs, np.float64))
  expected = [-3 * log_probs[0, 0, 0] - 0.5 * log_probs[0, 1, 3], -3 * log_probs[1, 0, 1]]
  np.testing.assert_allclose(path_cross_entropy(outputs, paths, arrays, weights=(3.0, 0.5)), expected, rtol=1e-5)
  head = method(FIXED, "dhnn_rnn", level_weights=(3.0, 0.5)).module.head
  np.testing.assert_allclose(loss_of(head, outputs, paths, arrays), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["dhnn_rnn", "dhnn_s2s"])
def test_smoothed_labels_reach_the_loss(name):
  arrays = tree_arrays(FIXED)
  outputs = np.asarray(jax.random.normal(jax.random.key(0), (2, 2, arrays.num_outputs)))
  paths = np.array([[0, 3], [1, UNKNOWN]], np.int32)
  head = method(FIXED, name, label_smoothing=0.2, level_weights=(3.0, 0.5)).module.head
  expected = path_cross_entropy(outputs, paths, arrays, weights=(3.0, 0.5), epsilon=0.2)
  found, plain = (np.asarray(loss_of(h, outputs, paths, arrays)) for h in (head, head.clone(label_smoothing=0.0)))
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert (found != plain).all()


def is_kept_or_zero(read, whole, rate):
  """Whether numbers are zero or, of the others, what dropout of this rate makes of them, and both occur."""
  kept = read != 0
  np.testing.assert_allclose(read, np.where(kept, whole / (1 - rate), 0), rtol=1e-4, atol=1e-5)
  return 0 < kept.sum() < kept.size


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def read_vectors(head, variables, train=False, rngs=None):
  """Returns what passes through the head's dropout in a call, first to last."""

  def of_dropout(module, method):
    return module.name == "drop"

  how = {"capture_intermediates": of_dropout, "mutable": ["intermediates"]}
  found = head.apply(variables, FEATURES, train=train, rngs=rngs, **how)
  return found[1]["intermediates"]["drop"]["__call__"]


def test_dropout_of_the_fixed_length_head_is_on_vectors_and_states_in_training_alone():
  head = method(FIXED, "dhnn_rnn", dropout=0.75, layers=1).module.head
  variables = started(head)
  u = np.asarray(read_vectors(head, variables)[0])
  sequence, recurrence = (
    jax.jit(functools.partial(head.apply, method=method))
    for method in (lambda head, x: head.sequence(x), lambda head, u: head.recurrence(u)[1])
  )
  np.testing.assert_array_equal(u, sequence(variables, FEATURES))
  dropped, states = jax.device_get(read_vectors(head, variables, train=True, rngs={"dropout": jax.random.key(0)}))
  assert is_kept_or_zero(dropped, u, 0.75)
  assert is_kept_or_zero(states, recurrence(variables, dropped), 0.75)


@pytest.mark.parametrize("feedback", ["soft", "labels"])
def test_dropout_of_the_sequence_head_is_on_vectors_and_states_in_training_alone(feedback):
  head = method(VARIABLE, "dhnn_s2s", dropout=0.75, feedback=feedback).module.head

  @jax.jit
  def run(variables, paths):
    apply, keys = functools.partial(head.apply, variables), {"dropout": jax.random.key(0)}
    fed, carry = jnp.ones((3, 16)), apply(FEATURES, method="encode")
    encodings = carry, apply(FEATURES, True, method="encode", rngs=keys)
    steps = apply(carry, fed, method="step"), apply(carry, fed, True, method="step", rngs=keys)
    calls = [apply(FEATURES, paths, train, rngs=keys) for train in (False, True)]
    return encodings, steps, calls, head.clone(dropout=0.0).apply(variables, FEATURES, paths, True)

  encodings, steps, calls, without = jax.device_get(run(started(head), VARIABLE.encode(np.zeros((3, 1), int))))
  assert (encodings[1][0] != encodings[0][0]).any()
  ((_, c), whole), ((_, dropped), read) = steps
  np.testing.assert_array_equal(c, dropped)  # the state is whole
  assert (read != whole).any()
  assert (calls[0] != calls[1]).any()
  np.testing.assert_array_equal(calls[0], without)


def numpy_feedback(head, variables, example, tokens=None):
  """Returns the decoder's log-probabilities at each step, fed the softmax of the one before, or the tokens."""
  p = jax.tree.map(lambda w: np.asarray(w, np.float64), variables["params"])
  h, c = (np.asarray(x[example], np.float64) for x in jax.device_get(encoded(head, variables)))
  fed, steps = p["embed"]["embedding"][-1], []
  for t in range(VARIABLE.depth):
    inputs, state = p["decoder"]["inputs"], p["decoder"]["state"]["hidden"]["kernel"]
    i, f, o, g = np.split(fed @ inputs["kernel"] + inputs["bias"] + h @ state, 4)
    c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    h = np.tanh(c) / (1 + np.exp(-o))
    steps.append(log_softmax(h @ p["scores"]["kernel"] + p["scores"]["bias"]))
    shares = np.exp(steps[-1]) if tokens is None else np.eye(8)[tokens[t]]
    fed = shares @ p["embed"]["embedding"][:-1]
  return np.array(steps)


ALL_PATHS = [(0, 2, 5), (0, 2, 6), (0, 3, STOP), (1, 4, STOP)]


@pytest.mark.parametrize("feedback", ["soft", "labels"])
def test_a_full_beam_finds_every_path_of_any_length(feedback):  # READINGS K7, K8, K10
  found = method(VARIABLE, "dhnn_s2s", feedback=feedback)
  head, arrays = found.module.head, found.tree
  variables = started(head)
  prediction = decoded(head, variables, nothing_known(VARIABLE), arrays, DecodeOptions(beam=5))
  for example in range(3):
    scores = {}
    for path in ALL_PATHS:
      tokens = [7 if y == STOP else y for y in path]
      steps = numpy_feedback(head, variables, example, None if feedback == "soft" else tokens)
      scores[nodes_of(path)] = sum(steps[t, y] for t, y in enumerate(tokens))
    expected = sorted(scores, key=lambda path: -scores[path])
    assert [nodes_of(path) for path in prediction.paths[example].tolist()] == [*expected, ()]
    np.testing.assert_allclose(prediction.log_prob[example, :4], [scores[path] for path in expected], rtol=1e-4)

  best = np.where(prediction.paths[:, 0] >= 0, prediction.paths[:, 0], STOP)
  losses = loss_of(head, applied(head, variables, best), best, arrays)
  np.testing.assert_allclose(losses, -prediction.log_prob[:, 0], rtol=1e-4)  # the score is what training lowers


@pytest.mark.parametrize("feedback", ["soft", "labels"])
@pytest.mark.parametrize("normalise", ["trained", "siblings"])
def test_no_path_ends_where_no_training_label_does(feedback, normalise):
  tree = VARIABLE.with_label_ends([2, 3, 4, 5, 6])  # the leaves, and C, but neither A nor B
  found = method(tree, "dhnn_s2s", "stop", feedback=feedback)
  variables = started(found.module.head)
  options = DecodeOptions(beam=9, normalise=normalise)
  prediction = decoded(found.module.head, variables, nothing_known(tree), found.tree, options)
  for example, stops in enumerate(np.asarray(end_probability(prediction.node_prob, found.tree))):
    ends = tree.ends(prediction.paths[example])
    assert sorted(ends.tolist()) == [-1, -1, -1, -1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(stops.sum(), 1, rtol=1e-5)
    assert not stops[[0, 1]].any() and stops[2] > 0
    if normalise == "siblings":
      np.testing.assert_allclose(np.exp(prediction.log_prob[example, :5]), stops[ends[:5]], rtol=1e-4)


@pytest.mark.parametrize("feedback", ["soft", "labels"])
def test_known_labels_are_fed_to_the_steps_after_them(feedback):
  found = method(VARIABLE, "dhnn_s2s", feedback=feedback)
  head, variables = found.module.head, started(found.module.head)
  known = nothing_known(VARIABLE)
  known[:, 0] = 0
  prediction = decoded(head, variables, known, found.tree, DecodeOptions(beam=3, normalise="siblings"))
  for example in range(3):
    tokens = [0, int(prediction.paths[example, 0, 1]), 0]
    steps = numpy_feedback(head, variables, example, tokens)[1]
    shares = log_softmax(steps[[2, 3]])
    assert tokens[1] in (2, 3)
    np.testing.assert_allclose(prediction.node_prob[example, 2:4], np.exp(shares), rtol=1e-4)
  assert np.asarray(are_walks(prediction.paths[:, 0], found.tree)).all()


@pytest.mark.parametrize(
  ("name", "tree", "more"),
  [("dhnn_rnn", FIXED, {"conversion": "conv", "cell": "gru"}), ("dhnn_s2s", VARIABLE, {"conversion": "pool"})],
)
def test_every_part_of_the_network_learns(name, tree, more):  # READINGS K15
  found = method(tree, name, **more)
  variables = at_the_start(found)
  paths = jax.device_put(tree.encode(np.array([[tree.num_nodes - 1], [3], [4]])))

  def loss(params):
    outputs = found.module.apply({**variables, "params": params}, IMAGES, paths)
    return found.loss(outputs, paths).sum()

  for path, gradient in jax.tree_util.tree_flatten_with_path(jax.jit(jax.grad(loss))(variables["params"]))[0]:
    assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_a_sequence_head_at_its_start_depends_on_images_and_labels():
  head = method(VARIABLE, "dhnn_s2s", width=32, size=64, feedback="labels").module.head
  stages = tuple(jax.random.normal(jax.random.key(i), (64, 1, 1, 64)) for i in range(3))
  features = Features(stages=stages, pooled=np.zeros((64, 64), np.float32))
  variables = jax.jit(head.init)(jax.random.key(0), features)
  apply = jax.jit(head.apply)
  one, other = (
    np.asarray(apply(variables, features, np.array([path] * 64, np.int32))) for path in ([0, 2, STOP], [1, 4, 7])
  )
  by_image, by_label = one.std(axis=0).mean(axis=-1), np.abs(one - other).mean(axis=(0, 2))
  assert (by_image > 0.15).all() and by_label[0] == 0 and (by_label[1:] > 0.15).all()


def test_a_path_may_end_anywhere_with_stop():
  found = method(VARIABLE, "dhnn_s2s", short_labels="stop")
  variables = started(found.module.head)
  prediction = decoded(found.module.head, variables, nothing_known(VARIABLE), found.tree, DecodeOptions(beam=7))
  assert {nodes_of(path) for path in prediction.paths[0].tolist()} == {
    (0,), (1,), (0, 2), (0, 3), (1, 4), (0, 2, 5), (0, 2, 6)
  }  # fmt: skip
  assert (prediction.paths[0, 0] >= PAD).all()


def test_the_conversion_of_each_stage_is_described():
  lines = method(FIXED, "dhnn_rnn", conversion="conv").describe(IMAGES)
  assert lines[0] == "stage 1, 8x8x4: 1 filters of 2x2, stride 2x2, padding 0x0"
  assert make_method(ModelConfig(BACKBONE, {"name": "flat"}), tree_arrays(FIXED)).describe(IMAGES) == []


@pytest.mark.parametrize(
  ("name", "settings", "message"),
  [
    ("dhnn_rnn", {"tree": VARIABLE}, "paths of one length.*choose dhnn_s2s, or set config.tree.levels"),
    ("dhnn_rnn", {"tree": FIXED, "short_labels": "stop"}, "choose dhnn_s2s, or set config.tree.short_labels = unknown"),
    ("dhnn_rnn", {"level_weights": (1.0,)}, r"level_weights = \(1.0,\): give 2 of them"),
    ("dhnn_rnn", {"cell": "rnn"}, "config.head.cell = 'rnn': choose from lstm, gru"),
    (
      "dhnn_rnn",
      {"conversion": "max"},
      "config.head.conversion = 'max': choose from linear, conv, pool, pool_average, pool_linear, pool_dense, dense",
    ),
    ("dhnn_s2s", {"own_level": True}, "own_level = True: it is for several paths an image; set output = sigmoid"),
    ("dhnn_rnn", {"label_smoothing": -0.1}, "label_smoothing = -0.1: must be from 0 to 1"),
    ("dhnn_s2s", {"output": "sigmoid", "label_smoothing": 0.1}, "label_smoothing = 0.1: it is for one path an image"),
    ("dhnn_rnn", {"order": "random"}, "config.head.order = 'random': choose from deep_first, shallow_first"),
    ("dhnn_rnn", {"width": 0}, "width = 0, layers = 3: must be 1 or more"),
    ("dhnn_s2s", {"feedback": "hard"}, "config.head.feedback = 'hard': choose from soft, labels"),
    ("dhnn_s2s", {"size": 0}, "size = 0, side = 4: must be 1 or more"),
  ],
)
def test_refusals(name, settings, message):
  with pytest.raises(UserError, match=message):
    method(settings.pop("tree", FIXED), name, **settings)


def test_features_without_stages_are_refused():
  found = make_method(ModelConfig({"name": "features", "width": 4}, {"name": "dhnn_rnn", **SMALL}), tree_arrays(FIXED))
  with pytest.raises(UserError, match=r"stages, .*`features`"):
    jax.eval_shape(found.module.init, jax.random.key(0), jnp.zeros((1, 4)))


MULTILABEL = {"dhnn_rnn": FIXED, "dhnn_s2s": VARIABLE, "multilabel": VARIABLE}


def multilabel(name, **head):
  section = {"name": name, "output": "sigmoid", **SMALL, **head} if name != "multilabel" else {"name": name, **head}
  return make_method(ModelConfig(BACKBONE, section), tree_arrays(MULTILABEL[name]))


@pytest.mark.parametrize("name", MULTILABEL)
def test_several_paths_an_image_learn_and_pass(name):  # READINGS K7, K11
  found, tree = multilabel(name), MULTILABEL[name]
  variables = at_the_start(found)
  last = tree.num_nodes - 1
  paths = jax.device_put(tree.encode(np.array([[last, 4], [3, PAD], [last, 3]])))

  rms = optax.rmsprop(0.01)

  @jax.jit
  def step(params, state):
    def loss(params):
      return found.loss(found.module.apply({**variables, "params": params}, IMAGES, paths), paths).sum()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = rms.update(gradient, state)
    return value, gradient, optax.apply_updates(params, updates), state

  params, losses = variables["params"], []
  state = jax.jit(rms.init)(params)
  for i in range(150):
    value, gradient, params, state = step(params, state)
    losses.append(float(value))
    if i == 0:
      assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
  assert losses[-1] < 0.3 * losses[0]
  options = DecodeOptions(beam=3, thresholds=(0.5,))
  prediction = jax.jit(found.predict, static_argnums=3)({**variables, "params": params}, IMAGES, None, options)
  for truth, answer in zip(paths.tolist(), prediction.paths.tolist(), strict=True):
    nodes = {node for path in truth for node in path if node >= 0}
    assert {node for path in answer for node in path if node >= 0} == nodes


def test_a_step_of_sigmoids_is_fed_those_of_its_own_level():
  head = multilabel("dhnn_s2s", own_level=True).module.head
  variables = started(head)
  before = np.asarray(applied(head, variables))
  variables["params"]["scores"]["bias"][2:] += 3  # not those of the first level
  after = np.asarray(applied(head, variables))
  np.testing.assert_allclose(after[:, 1, 0], before[:, 1, 0], rtol=1e-4)  # the second step was fed the same
  assert np.abs(after[:, 2, 0] - before[:, 2, 0]).max() > 1e-3


def test_sigmoids_are_of_steps_that_are_fed_the_softmax():  # READINGS K7
  """The logits are those of the head for one path, and the loss is the authors', over all outputs of each step."""
  head, several = (found.module.head for found in (method(VARIABLE, "dhnn_s2s"), multilabel("dhnn_s2s")))
  variables, arrays = started(several), tree_arrays(VARIABLE)
  logits = applied(several, variables)
  np.testing.assert_array_equal(logits, applied(head, variables))
  assert logits.shape == (3, 3, 8)
  paths = VARIABLE.encode(np.array([[6, 4], [3, PAD], [4, 3]]))
  np.testing.assert_array_equal(loss_of(several, logits, paths, arrays), step_cross_entropy(logits, paths, arrays))


@pytest.mark.parametrize(
  ("name", "settings", "options", "message"),
  [
    ("dhnn_s2s", {"feedback": "labels"}, {}, "with output = sigmoid no step is fed a label; set soft"),
    ("dhnn_rnn", {"output": "probit"}, {}, "config.head.output = 'probit': choose from softmax, sigmoid"),
    ("dhnn_rnn", {}, {"thresholds": (0.1,) * 3}, r"thresholds = .*: give one, or 2, one a level"),
    ("multilabel", {"level_weights": (1.0,)}, {}, r"level_weights = \(1\.0,\): give 3 of them"),
  ],
)
def test_refusals_of_multi_label_heads(name, settings, options, message):
  with pytest.raises(UserError, match=message):
    multilabel(name, **settings).module.head.validate(DecodeOptions(**options))
