"""Merged networks: what is shared, and that nothing else is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Batch, Examples

TREE = LabelTree.from_children(list("ABabcdefghijk"), [2, 1, 3, 2, 1, 2, 2, *[0] * 7])  # levels of 2, 4 and 7 nodes
TWO = TREE.truncated(2)
BACKBONE = {"name": "small_resnet", "widths": (4, 8), "blocks": 1, "dropout": 0.2}
HEAD = {"name": "coarse_fine"}
IMAGES = jax.random.normal(jax.random.key(7), (8, 8, 8, 3))
CLIPPED_BY_LEVEL = ("(branches|levels)_0/", "(branches|levels)_1/")


def method(tree=TWO, head=HEAD, backbone=BACKBONE, **merged):
  return make_method(ModelConfig(backbone, head, merged=merged), tree_arrays(tree))


def start(found):
  return jax.jit(found.module.init)({"params": jax.random.key(0), "dropout": jax.random.key(0)}, IMAGES[:1])


def named(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def count(found):
  return sum(x.size for x in jax.tree.leaves(jax.eval_shape(functools.partial(start, found))["params"]))


def trained(found, variables, steps=20):
  """Returns all weights and statistics after some steps, and the losses."""
  config = OptimConfig(nesterov=True, clip_norm=0.5, clip_groups=CLIPPED_BY_LEVEL)
  optimizer = make_optimizer(config, variables["params"])
  step = jax.jit(
    make_train_step(
      Phase(optimizer),
      StepSettings(
        schedule=lambda step: jnp.float32(0.05),
        preprocess=lambda examples, key, tree: Batch(examples.images, examples.paths, examples.mask),
        key=jax.random.key(1),
      ),
    )
  )
  state, losses = init_state(variables, optimizer), []
  for i in range(steps):
    nodes = np.random.default_rng(i).integers(*TWO.level_offsets[1:], 8)  # children of A and B
    paths = TWO.encode(nodes)[:, None, : found.tree.depth]
    examples = Examples(np.asarray(IMAGES), paths, np.ones(8, np.float32), np.zeros((8, 2), np.int32))
    state, metrics = step(found, state, examples)
    losses.append(float(metrics["loss"]))
  return named({"params": state.params, **state.collections}), np.array(losses)


def test_nothing_shared_is_two_separate_runs():  # READINGS D4
  methods = method(shared=0), method(TREE.truncated(1), shared=0, levels=(1,)), method(shared=0, levels=(2,))
  variables = [start(found) for found in methods]
  initial, *alone = map(named, variables)
  assert initial.keys() == alone[0].keys() | alone[1].keys()
  for name, value in (alone[0] | alone[1]).items():
    np.testing.assert_array_equal(initial[name], value, err_msg=name)

  (both, losses), (coarse, coarse_losses), (fine, fine_losses) = map(trained, methods, variables)
  np.testing.assert_allclose(losses, coarse_losses + fine_losses, rtol=1e-5)
  moved = 0.0
  for name, value in (coarse | fine).items():
    np.testing.assert_allclose(both[name], value, atol=1e-5, err_msg=name)
    moved = max(moved, np.abs(value - initial[name]).max())
  assert moved > 0.01


@pytest.mark.parametrize("tree", [TWO, TREE], ids=["two levels", "three levels"])
def test_what_is_shared_is_counted_once(tree):
  plain = method(tree)
  shapes = jax.eval_shape(functools.partial(start, plain))["params"]
  parts = {
    part: sum(x.size for x in jax.tree.leaves(shapes["backbone"][part])) for part in ("stem", "stages_0", "stages_1")
  }
  heads = sum(x.size for x in jax.tree.leaves(shapes["head"]))
  for shared, trunk in enumerate(((), ("stem", "stages_0"), ("stem", "stages_0", "stages_1"))):
    once = sum(parts[part] for part in trunk)
    assert count(method(tree, shared=shared)) == once + tree.depth * (sum(parts.values()) - once) + heads
  assert count(method(tree, shared=2)) == count(plain)


def test_all_shared_is_the_network_that_is_not_merged():
  plain, merged = method(backbone=BACKBONE | {"dropout": 0.0}), method(backbone=BACKBONE | {"dropout": 0.0}, shared=2)
  variables = start(plain)

  def renamed(backbone):
    return {{"stem": "trunk_0", "stages_0": "trunk_1", "stages_1": "trunk_2"}[part]: x for part, x in backbone.items()}

  moved = {
    kind: {"backbone": renamed(parts["backbone"]), **{k: v for k, v in parts.items() if k != "backbone"}}
    for kind, parts in variables.items()
  }

  def outputs(found, variables):
    apply = functools.partial(found.module.apply, train=True, mutable=["batch_stats"])
    return jax.jit(apply)(variables, IMAGES)[0]

  np.testing.assert_allclose(outputs(merged, moved), outputs(plain, variables), rtol=1e-5, atol=1e-6)
  maps = jax.eval_shape(lambda variables: merged.module.apply(variables, IMAGES, method="features"), moved).stages
  assert [x.shape for x in maps] == [(8, 8, 8, 4), (8, 4, 4, 8)]


def test_a_level_reads_its_own_branch_and_the_trunk():
  merged = method(shared=1)
  variables, apply = jax.device_get(start(merged)), jax.jit(merged.module.apply)

  def logits(part):
    def moved(path, x):
      return x + np.float32(0.1) * np.arange(x.size, dtype=x.dtype).reshape(x.shape) if part in str(path) else x

    return np.asarray(apply(jax.tree_util.tree_map_with_path(moved, variables), IMAGES))

  before = logits("nothing")
  for part, changed in (("branches_0", (True, False)), ("branches_1", (False, True)), ("trunk_1", (True, True))):
    same = [np.array_equal(a, b) for a, b in zip(np.split(logits(part), [2], 1), np.split(before, [2], 1), strict=True)]
    assert tuple(not s for s in same) == changed


@pytest.mark.parametrize("head", [{"name": "path_rnn", "width": 4}, {"name": "flat"}], ids=lambda head: head["name"])
def test_other_heads_read_all_branches(head):
  for levels, width in (((), 16), ((2,), 8)):
    merged = method(head=head, shared=1, levels=levels)
    variables = jax.eval_shape(functools.partial(start, merged))
    pooled = jax.eval_shape(
      lambda v, module=merged.module: module.apply(v, IMAGES, method="features").pooled, variables
    )
    assert pooled.shape == (8, width)
    assert jax.eval_shape(merged.predict, variables, IMAGES).node_prob.shape == (8, 6)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"shared": 3}, "merged.shared = 3: the backbone has 2 stages, so give at most 2$"),
    ({"shared": -2}, "merged.shared = -2: must be a number of stages, or -1"),
    ({"levels": (1,)}, r"merged.levels = \(1,\): set config.merged.shared"),
    (
      {"shared": 0, "levels": (1,)},
      r"\(1,\): they do not cover the tree, which has 2 levels: .*config.tree.levels = 1$",
    ),
    ({"shared": 0, "levels": (1, 3)}, r"\(1, 3\): give levels of the tree, 1 to 2, in rising order"),
    ({"shared": 0, "levels": (2, 1)}, r"\(2, 1\): give levels of the tree, 1 to 2, in rising order"),
    ({"shared": 0, "backbone": {"name": "features", "width": 4}}, "shared = 0: this backbone has no stages"),
    ({"stages": 1}, "config.merged.stages: there is no such key"),
    (
      {"shared": 1, "head": {"name": "coarse_fine", "strategy": "coarse_to_fine"}},
      "^config.head: strategy = coarse_to_fine: .*config.head.strategy = parallel, .*config.merged.shared = -1",
    ),
    ({"shared": 0, "head": {"name": "coarse_fine", "strategy": "fine_to_coarse"}}, "strategy = fine_to_coarse"),
    (
      {"shared": 0, "head": {"name": "dhnn_rnn"}},
      "^config.head: .*dhnn_rnn .*config.head.name = coarse_fine.*config.merged.shared = -1",
    ),
    ({"shared": 2, "levels": (2,), "head": {"name": "dhnn_s2s"}}, "config.head: .*dhnn_s2s"),
  ],
)
def test_refusals(settings, message):
  with pytest.raises(UserError, match=message):
    method(**settings)


def test_one_branch_takes_any_strategy():
  found = method(head={"name": "coarse_fine", "strategy": "coarse_to_fine"}, shared=1, levels=(2,))
  assert jax.eval_shape(found.predict, jax.eval_shape(functools.partial(start, found)), IMAGES).node_prob.shape == (
    8,
    6,
  )


def test_a_neck_is_refused():
  with pytest.raises(UserError, match=r"config\.merged\.shared = 1: .*neck"):
    make_method(ModelConfig(BACKBONE, HEAD, neck={"name": "context"}, merged={"shared": 1}), tree_arrays(TWO))
