"""The prediction pipeline for every head: defaults change no bit, and decoding options hold through all stages."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.inference.pipeline import Stages, answer, finish, view_distributions
from hierjax.nn.classifier import Classifier, ModelMethod
from hierjax.nn.registry import HEADS
from hierjax.tree.label_tree import PAD, LabelTree
from hierjax.types import Batch, DecodeOptions, Features

BATCH, BEAM = 3, 5  # a beam of another size than the batch, the depth, the leaves and the views
TREES = {  # by the number of their nodes
  7: LabelTree.from_children(list("ABabcde"), [2, 2, 1, 2, 0, 0, 0, 0]),  # A: a (d, e), b; B: c; leaves on two levels
  6: LabelTree.from_children(list("ABabcd"), [2, 2, 2, 0, 0, 0, 0]),
}
DHNN = {"width": 4, "size": 8, "layers": 1}
KINDS = {
  "flat": ("flat", {}),
  "flat_ends": ("flat_ends", {}),
  "path_rnn": ("path_rnn", {"width": 4}),
  "path_rnn siblings": ("path_rnn", {"width": 4, "softmax": "siblings"}),
  "coarse_fine": ("coarse_fine", {}),
  "coarse_fine coarse_to_fine": ("coarse_fine", {"strategy": "coarse_to_fine"}),
  "coarse_fine fine_to_coarse": ("coarse_fine", {"strategy": "fine_to_coarse"}),
  "dhnn_rnn": ("dhnn_rnn", DHNN),
  "dhnn_rnn sigmoid": ("dhnn_rnn", {**DHNN, "output": "sigmoid"}),
  "dhnn_s2s": ("dhnn_s2s", DHNN),
  "dhnn_s2s labels": ("dhnn_s2s", {**DHNN, "feedback": "labels"}),
  "dhnn_s2s sigmoid": ("dhnn_s2s", {**DHNN, "output": "sigmoid"}),
  "multilabel": ("multilabel", {}),
  "sibling_softmax": ("sibling_softmax", {}),
}
SINGLE_PATH = [kind for kind in KINDS if "sigmoid" not in kind and kind != "multilabel"]
# With a step of its own or none, and level distributions or none: a rule of another package sees nothing else.
OF_EACH_DISTRIBUTION = ["flat", "path_rnn", "coarse_fine", "dhnn_rnn"]
WITH_LEVELS = [kind for kind in KINDS if kind.startswith("coarse_fine")] + ["dhnn_rnn"]


def staged(kinds):
  """Returns the kinds; two strategies, whose distributions are made as those of the third, belong to the slow tests."""
  return [pytest.param(kind, marks=pytest.mark.slow) if "_to_" in kind else kind for kind in kinds]


ONLY, THRESHOLD = 1, 0.3  # a restriction allows the leaves from this one on


class Plain(nn.Module):
  """A backbone without weights: the images at three sizes, and their numbers as one vector."""

  def __call__(self, inputs, train=False):
    return Features((inputs, inputs[:, ::2, ::2], inputs[:, ::4, ::4]), inputs.reshape(len(inputs), -1))


@functools.cache
def setting(kind):
  """Returns a model with large random weights, so that its choices differ from image to image, and images."""
  name, fields = KINDS[kind]
  arrays = tree_arrays(TREES[6 if kind == "dhnn_rnn" else 7])
  method = ModelMethod(Classifier(Plain(), HEADS[name].for_tree(arrays, **fields)), arrays)
  rng = np.random.default_rng(3)
  images = rng.normal(size=(BATCH, 4, 4, 2)).astype(np.float32)
  shapes = jax.eval_shape(method.module.init, jax.random.key(0), images)
  variables = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), jnp.float32), shapes)
  return method, variables, jnp.asarray(images)


def seen(method, variables, images, options):
  """Returns the mean distribution over the views that the options ask for; a later view is darker."""

  def see(number):
    paths = jnp.full((BATCH, 1, method.tree.depth), PAD, jnp.int32)
    return Batch(images * (1 - number.astype(jnp.float32) / 20), paths, jnp.ones(BATCH))

  return view_distributions(method, variables, see, options)[0]


def through_each_stage(method, variables, images, options):
  """Returns the prediction after each stage that changes the distribution or the answer, and after all of them."""
  one = method.distribution(variables, images, None, options)
  ten = dataclasses.replace(options, views=10)
  views = seen(method, variables, images, ten)
  only = tuple(TREES[method.tree.num_nodes].leaves[ONLY:].tolist())
  found = {
    "views": finish(views, Stages(ten), method.tree),
    "adaptation": finish(one, Stages(options, alpha=0.5), method.tree),
    "abstaining": finish(one, Stages(options, threshold=THRESHOLD), method.tree),
  }
  if method.module.head.multilabel:  # neither ensembles nor restriction are for these heads
    return found
  every = Stages(ten, alpha=0.5, only=only, threshold=THRESHOLD)
  return found | {
    "members": answer([one, one], Stages(options), method.tree),
    "restriction": finish(one, Stages(options, only=only), method.tree),
    "all": answer([views, views], every, method.tree),
  }


@functools.partial(jax.jit, static_argnums=3)
def predicted(method, variables, images, options):
  return method.predict(variables, images, None, options)


run_stages = jax.jit(through_each_stage, static_argnums=3)


def test_every_head_of_the_registry_is_here():
  assert {name for name, _ in KINDS.values()} == set(HEADS)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_at_their_defaults_change_no_bit(kind):
  method, variables, images = setting(kind)
  options = DecodeOptions(beam=2, thresholds=(0.1,))

  @jax.jit
  def run(method, variables, images):
    distribution = method.distribution(variables, images, None, options)
    stages = Stages(options, alpha=0.0, only=None, threshold=0.0)
    assert stages == Stages(options) and stages.keep_probabilities
    return method.predict(variables, images, None, options), {
      "one member": answer([distribution], stages, method.tree),
      "no stage": finish(distribution, stages, method.tree),
      "one view": finish(seen(method, variables, images, options), stages, method.tree),
    }

  expected, through_stages = run(method, variables, images)
  assert (expected.paths[:, 0] >= 0).any(axis=1).all()
  for name, found in through_stages.items():
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for field in ("paths", "log_prob", "stop_prob", "node_prob", "raw_nodes", "level_prob", "node_score"):
      np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=f"{name}: {field}")


@pytest.mark.parametrize("kind", staged(KINDS))
def test_a_beam_holds_through_every_stage(kind):
  method, variables, images = setting(kind)
  run = functools.partial(through_each_stage, options=DecodeOptions(beam=BEAM))
  for stage, found in jax.eval_shape(run, method, variables, images).items():
    assert found.paths.shape == (BATCH, BEAM, method.tree.depth), stage
    assert found.log_prob.shape == found.stop_prob.shape == (BATCH, BEAM), stage


@pytest.mark.parametrize("kind", staged(SINGLE_PATH))
def test_scores_among_siblings_hold_through_every_stage(kind):
  """A full beam then finds all paths, and their probabilities sum to 1; after a restriction, those of the allowed."""
  method, variables, images = setting(kind)
  leaves = method.tree.leaves.tolist()
  options = DecodeOptions(beam=len(leaves) + 1, normalise="siblings")
  for stage, found in run_stages(method, variables, images, options).items():
    ends = set(leaves) - (set(leaves[:ONLY]) if stage in ("restriction", "all") else set())
    prob = np.exp(found.log_prob)
    np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-4, err_msg=stage)
    assert ((prob > 0).sum(axis=1) == len(ends)).all() and (np.diff(prob) <= 0).all(), stage
    if stage not in ("abstaining", "all"):
      assert all({max(path) for path in paths} == {*ends, PAD} for paths in found.paths.tolist()), stage


@pytest.fixture(scope="module")
def rule(tmp_path_factory):
  """A decoding rule of another package: the leaves of the largest numbers, whatever their probability."""
  folder = tmp_path_factory.mktemp("rule")
  (folder / "my_rule.py").write_text(
    "import jax.numpy as jnp\n"
    "from hierjax.functional.paths import climb\n"
    "from hierjax.functional.search import Paths\n"
    "\n"
    "def last_leaves(distribution, tree, options):\n"
    "  ends = jnp.asarray(tree.leaves)[::-1][None, : options.beam]\n"
    "  ends = jnp.broadcast_to(ends, (distribution.node_prob.shape[0], options.beam))\n"
    "  score = jnp.take_along_axis(distribution.node_prob, ends, axis=1)\n"
    "  return Paths(climb(ends, tree), jnp.log(score), jnp.ones_like(score))\n"
  )
  sys.path.insert(0, str(folder))
  yield "my_rule:last_leaves"
  sys.path.remove(str(folder))
  sys.modules.pop("my_rule", None)


@pytest.mark.parametrize("kind", OF_EACH_DISTRIBUTION)
def test_a_rule_of_ones_own_holds_through_every_stage(kind, rule):
  method, variables, images = setting(kind)
  tree = TREES[method.tree.num_nodes]
  ends = tree.leaves[::-1][:2]
  paths = np.maximum(tree.encode(ends), PAD)[None].repeat(BATCH, axis=0)
  for stage, found in run_stages(method, variables, images, DecodeOptions(beam=2, rule=rule)).items():
    np.testing.assert_allclose(np.exp(found.log_prob), found.node_prob[:, ends], rtol=1e-5, err_msg=stage)
    expected = paths
    if stage in ("abstaining", "all"):  # which shortens a path, and does not decode again
      confident = np.take_along_axis(np.asarray(found.node_prob), np.maximum(paths, 0).reshape(BATCH, -1), axis=1)
      expected = np.where(confident.reshape(paths.shape) >= np.float32(THRESHOLD), paths, PAD)
    np.testing.assert_array_equal(found.paths, expected, err_msg=stage)


@pytest.mark.parametrize("kind", staged(WITH_LEVELS))
def test_raw_decoding_is_the_argmax_of_each_level_after_every_stage(kind):
  """By its own scores, which calibration and abstaining keep, dhnn_rnn takes the argmax of all nodes at a step."""
  method, variables, images = setting(kind)
  offsets, sizes = method.tree.level_offsets, np.cumsum(method.tree.block_sizes)
  for stage, found in run_stages(method, variables, images, DecodeOptions(restrict="raw")).items():
    best = [block.argmax(axis=1) for block in np.split(np.asarray(found.level_prob), sizes[:-1], axis=1)]
    nodes = [np.where(i < b - a, a + i, PAD) for i, a, b in zip(best, offsets[:-1], offsets[1:], strict=True)]
    raw = np.stack(nodes, axis=1).astype(np.int32)
    np.testing.assert_array_equal(found.raw_nodes, raw, err_msg=stage)
    assert not found.raw_consistent
    if stage not in ("abstaining", "all") and (kind, stage) != ("dhnn_rnn", "calibration"):
      before_a_leaf_above = np.minimum.accumulate(raw >= 0, axis=1)
      np.testing.assert_array_equal(found.paths[:, 0], np.where(before_a_leaf_above, raw, PAD), err_msg=stage)


@pytest.mark.parametrize("kind", ["multilabel", "dhnn_rnn sigmoid", "dhnn_s2s sigmoid"])
def test_thresholds_hold_through_every_stage(kind):
  method, variables, images = setting(kind)
  parent = method.tree.parent.tolist()
  for stage, found in run_stages(method, variables, images, DecodeOptions(beam=7, thresholds=(0.45,))).items():
    passes = np.asarray(found.node_prob) > np.float32(0.45)  # the smallest sigmoid on the way
    parents = [{parent[node] for node in np.flatnonzero(row)} for row in passes]
    ends = [set(np.flatnonzero(row).tolist()) - above for row, above in zip(passes, parents, strict=True)]
    assert [{max(path) for path in paths} - {PAD} for paths in found.paths.tolist()] == ends, stage
    assert any(ends)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("kind", staged(WITH_LEVELS))
def test_adaptation_by_almost_nothing_changes_almost_nothing(kind, beam):
  """The scores of dhnn_rnn move by a constant: without adaptation they are shares of all nodes, not of a level's."""
  method, variables, images = setting(kind)
  options = DecodeOptions(beam=beam)

  @jax.jit
  def run(method, variables, images, alpha):
    return answer([method.distribution(variables, images, None, options)], Stages(options), method.tree, alpha)

  expected = predicted(method, variables, images, options)
  for alpha in (0.0, 1e-6):
    found = run(method, variables, images, jnp.float32(alpha))
    np.testing.assert_array_equal(found.paths, expected.paths)
    moved = np.asarray(found.log_prob - expected.log_prob)
    np.testing.assert_allclose(moved - moved[:, :1] if kind == "dhnn_rnn" else moved, 0, atol=1e-4)
    for name in ("node_prob", "level_prob", "stop_prob"):
      np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(found.raw_nodes, expected.raw_nodes)
