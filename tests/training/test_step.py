"""The step's laws, on a network small enough to differentiate in milliseconds."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from hierjax.data.source import ArraySource
from hierjax.functional.tree_arrays import TreeArrays, tree_arrays
from hierjax.nn.classifier import Classifier, ModelMethod
from hierjax.nn.heads.flat import FlatHead
from hierjax.runs.devices import put_batch, replicated
from hierjax.runs.run import Run
from hierjax.training.optim import OptimConfig, Optimizer, frozen_statistics, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step, parts_of_norms
from hierjax.tree.label_tree import UNKNOWN, LabelTree
from hierjax.types import Batch, Examples, Features, Mixed

PLAIN = OptimConfig(decay=((".*", 0.0),))
init = jax.jit(lambda module, x: module.init(jax.random.key(0), x), static_argnums=0)


class Trunk(nn.Module):
  norm: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8, name="dense")(x)
    if self.norm:
      x = nn.BatchNorm(not train, momentum=0.9, name="norm")(x)
    return Features((), nn.Dropout(self.dropout)(jnp.tanh(x), deterministic=not train))


@pytest.fixture
def batch(rng, toy_tree):
  nodes = rng.choice(toy_tree.leaves, size=(8, 1))
  draw = np.zeros((8, 2), np.int32)
  images = rng.normal(size=(8, 5)).astype(np.float32)
  return Examples(images, toy_tree.encode(nodes), np.ones(8, np.float32), draw)


def run(
  toy_tree,
  batch,
  *,
  config=PLAIN,
  steps=3,
  devices=1,
  plateau=1.0,
  norm=False,
  dropout=0.0,
  weights=None,
  mixed=lambda e: None,
  **frozen,
):
  """Returns the initial state, the state after some steps, and their losses."""
  tree = tree_arrays(toy_tree)
  method = ModelMethod(Classifier(Trunk(norm, dropout), FlatHead(tree.num_leaves)), tree)
  mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
  variables = init(method.module, np.zeros((1, 5), np.float32))
  optimizer = make_optimizer(config, variables["params"])
  first = jax.device_put(init_state(variables, optimizer), replicated(mesh))
  step = jax.jit(
    make_train_step(
      Phase(optimizer, **frozen),
      StepSettings(
        schedule=lambda step: jnp.float32(0.1),
        preprocess=lambda e, key, tree: Batch(e.images, e.paths, e.mask, mixed(e)),
        key=jax.random.key(1),
        accumulate=config.accumulate,
        weights=weights,
      ),
    ),
    out_shardings=replicated(mesh),
  )
  state = first.replace(plateau=first.plateau.replace(scale=jax.device_put(np.float32(plateau), replicated(mesh))))
  losses = []
  for _ in range(steps):
    state, metrics = step(method, state, put_batch(batch, mesh))
    losses.append(float(metrics["loss"]))
  return first, state, losses


def test_losses_fall(toy_tree, batch):
  losses = run(toy_tree, batch, steps=30)[2]
  assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("norm", [False, True])
def test_four_devices_compute_what_one_does(toy_tree, batch, norm):
  _, one, losses = run(toy_tree, batch, norm=norm, dropout=0.5)
  _, four, losses4 = run(toy_tree, batch, norm=norm, dropout=0.5, devices=4)
  np.testing.assert_allclose(losses, losses4, rtol=1e-5)
  chex.assert_trees_all_close(one.variables, four.variables, rtol=1e-4, atol=1e-6)


def test_the_step_is_that_of_pmap(toy_tree, batch):
  """As older programs did it: a copy of the state on each device, and the mean of the gradients before the update."""
  config = OptimConfig(decay=((".*", 1e-2),), clip_norm=0.1)
  first, jitted, losses = run(toy_tree, batch, config=config, steps=1, devices=4)

  class MeanFirst(Optimizer):
    def update(self, grads, state, params, lr):
      return super().update(jax.lax.pmean(grads, "data"), state, params, lr)

  tree = tree_arrays(toy_tree)
  method = ModelMethod(Classifier(Trunk(), FlatHead(tree.num_leaves)), tree)
  optimizer = MeanFirst(**vars(make_optimizer(config, first.params)))
  settings = StepSettings(
    schedule=lambda step: jnp.float32(0.1),
    preprocess=lambda e, key, tree: Batch(e.images, e.paths, e.mask),
    key=jax.random.key(1),
  )
  step = make_train_step(Phase(optimizer), settings)
  rows = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
  start = jax.tree.map(np.asarray, first)
  pmapped, metrics = jax.pmap(step, axis_name="data", in_axes=(None, None, 0))(method, start, rows)
  np.testing.assert_allclose(np.mean(metrics["loss"]), losses[0], rtol=1e-6)
  for device in range(4):
    copy = jax.tree.map(lambda x, device=device: np.asarray(x)[device], pmapped.params)
    chex.assert_trees_all_close(copy, jitted.params, rtol=0, atol=1e-6)
  assert metrics["grad_norm"][0] > 0.1  # so the norm of the mean decides
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start.params, jax.device_get(jitted.params))
  assert min(jax.tree.leaves(moved)) > 1e-5


def test_accumulated_gradients_are_those_of_the_whole_batch(toy_tree, batch):
  masked = batch.replace(mask=np.array([1, 1, 1, 0, 1, 0, 1, 1], np.float32))
  _, whole, losses = run(toy_tree, masked)
  _, parts, losses4 = run(toy_tree, masked, config=OptimConfig(decay=((".*", 0.0),), accumulate=4))
  np.testing.assert_allclose(losses, losses4, rtol=1e-6)
  chex.assert_trees_all_close(whole.params, parts.params, rtol=0, atol=1e-6)


def test_norms_have_the_statistics_of_each_part_of_a_batch_and_it_is_said(toy_tree, batch):
  """The first part is rows 0, 2, 4, 6; the running average moves by the momentum of 0.9 for each."""
  config = OptimConfig(decay=((".*", 0.0),), accumulate=2)
  first, last, _ = run(toy_tree, batch, config=config, steps=1, norm=True)
  dense = jax.device_get(first.params["backbone"]["dense"])
  rows = batch.images @ dense["kernel"] + dense["bias"]
  mean = 0.0
  for part in (rows[::2], rows[1::2]):
    mean = 0.9 * mean + 0.1 * part.mean(axis=0)
  np.testing.assert_allclose(last.collections["batch_stats"]["backbone"]["norm"]["mean"], mean, rtol=1e-5, atol=1e-6)
  phase = Phase(make_optimizer(config, first.params))
  (line,) = parts_of_norms(phase, 2, 8, first.variables)
  assert "batch norm has the statistics of each part of 4 images, and not of all 8" in line
  assert not parts_of_norms(phase, 1, 8, first.variables)
  assert not parts_of_norms(phase, 2, 8, {"params": first.params})


def test_masked_examples_count_for_nothing(toy_tree, batch):
  half = jax.tree.map(lambda x: x[:4], batch)
  garbage = batch.replace(images=np.where(np.arange(8)[:, None] < 4, batch.images, 100.0).astype(np.float32))
  masked = garbage.replace(mask=(np.arange(8) < 4).astype(np.float32))
  np.testing.assert_allclose(run(toy_tree, half)[2], run(toy_tree, masked)[2], rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_of_mixed_images_is_the_weighted_sum_of_both_labels(toy_tree, batch, accumulate):
  config = OptimConfig(decay=((".*", 0.0),), accumulate=accumulate)
  share = np.linspace(0, 1, 8, dtype=np.float32)
  other = np.roll(batch.paths, -1, axis=0)

  def mixed(examples):  # the weight of each image travels as its draw
    return Mixed(jnp.roll(examples.paths, -1, axis=0), examples.draw[:, 0].astype(jnp.float32) / 7)

  numbered = batch.replace(draw=np.stack([np.arange(8), np.zeros(8)], axis=1).astype(np.int32))
  found = run(toy_tree, numbered, config=config, steps=1, mixed=mixed)
  first = found[0]

  def loss(paths):  # of each image, at the initial weights
    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), first.params)
    dense, output = weights["backbone"]["dense"], weights["head"]["output"]
    logits = np.tanh(batch.images @ dense["kernel"] + dense["bias"]) @ output["kernel"] + output["bias"]
    table = toy_tree.leaves.tolist()
    own = [table.index(path.max()) for path in paths[:, 0]]
    log_prob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_prob[np.arange(8), own]

  expected = (share * loss(batch.paths) + (1 - share) * loss(other)).mean()
  np.testing.assert_allclose(found[2][0], expected, rtol=1e-5)
  assert abs(expected - loss(batch.paths).mean()) > 1e-2


def test_class_weights_act_like_repeated_examples(toy_tree, batch):
  node = int(batch.paths[0, 0].max())
  alone = jax.tree.map(lambda x: x[[0, *np.flatnonzero(batch.paths[:, 0].max(-1) != node)]], batch)
  twice = jax.tree.map(lambda x: np.concatenate([x, x[:1]]), alone)
  share = len(alone.mask) / len(twice.mask)  # makes their mean 1
  weights = lambda paths: share * jnp.where(paths[:, 0].max(-1) == node, 2.0, 1.0)  # noqa: E731
  np.testing.assert_allclose(run(toy_tree, twice)[2], run(toy_tree, alone, weights=weights)[2], rtol=1e-5)


@pytest.mark.parametrize("batch_size", [8, 32])
def test_balanced_classes_share_the_gradient_of_an_epoch_at_any_batch_size(rng, batch_size):
  """1 example in 100 is of the second class; the gradient of a class's parameter is the weight that it had."""

  class Class(nn.Module):
    @nn.compact
    def __call__(self, x, targets=None, train=False, frozen=()):
      return self.param("gain", nn.initializers.zeros, (2,))

  @struct.dataclass
  class Gains:
    module: nn.Module = struct.field(pytree_node=False)
    tree: TreeArrays = struct.field()

    def predict(self, *_):
      raise NotImplementedError

    distribution = predict

    def loss(self, gains, paths):
      return -gains[paths[:, 0, 0]]

  config = types.SimpleNamespace(class_weights="balanced")
  nodes = rng.permutation(np.arange(3200) < 32).astype(np.int32)[:, None]
  tree = LabelTree.from_children(["common", "rare"], [2, 0, 0])
  source = ArraySource(np.ones((3200, 1), np.float32), nodes)
  weights = Run.class_weights(types.SimpleNamespace(config=config, tree=tree), source)
  method = Gains(Class(), tree_arrays(tree))
  variables = method.module.init(jax.random.key(0), jnp.zeros((1, 1)))
  optimizer = make_optimizer(OptimConfig(momentum=0.0, decay=((".*", 0.0),)), variables["params"])
  step = jax.jit(
    make_train_step(
      Phase(optimizer),
      StepSettings(
        schedule=lambda step: jnp.float32(batch_size / 3200),
        preprocess=lambda e, key, tree: Batch(e.images, e.paths, e.mask),
        key=jax.random.key(1),
        weights=weights,
      ),
    )
  )
  state, ones = init_state(variables, optimizer), np.ones(batch_size, np.float32)
  for labels in nodes.reshape(-1, batch_size):
    paths, draw = labels[:, None, None], np.zeros((batch_size, 2), np.int32)
    state, _ = step(method, state, Examples(ones[:, None], paths, ones, draw))
  np.testing.assert_allclose(state.params["gain"], 0.5, rtol=1e-4)


def test_weights_are_of_the_whole_batch_over_devices_and_parts(toy_tree, batch):
  masked = batch.replace(mask=np.array([1, 1, 1, 0, 1, 0, 1, 1], np.float32))
  weights = lambda paths: 0.1 + (paths[:, 0].max(-1) % 3).astype(jnp.float32)  # noqa: E731
  _, whole, losses = run(toy_tree, masked, weights=weights)
  config = OptimConfig(decay=((".*", 0.0),), accumulate=2)
  _, parts, losses4 = run(toy_tree, masked, config=config, devices=4, weights=weights)
  np.testing.assert_allclose(losses, losses4, rtol=1e-5)
  chex.assert_trees_all_close(whole.params, parts.params, rtol=1e-4, atol=1e-6)


def test_a_batch_without_a_known_label_teaches_nothing(toy_tree, batch):
  for nothing in (batch.replace(mask=np.zeros(8, np.float32)), batch.replace(paths=np.full_like(batch.paths, UNKNOWN))):
    weights = lambda paths: jnp.where(paths[:, 0].max(-1) < 0, 0.0, 2.0)  # noqa: E731
    first, last, losses = run(toy_tree, nothing, weights=weights)
    assert losses == [0.0] * 3 and int(last.bad_step) == -1
    chex.assert_trees_all_equal(first.params, last.params)


def test_a_frozen_part_keeps_its_bits_statistics_included(toy_tree, batch):
  config = OptimConfig(lr_groups=(("^backbone/", None), (".*", 1.0)))
  shapes = run(toy_tree, batch, steps=0, norm=True)[0].variables
  collections, parts = frozen_statistics(config, shapes)
  first, last, _ = run(toy_tree, batch, config=config, norm=True, frozen_parts=parts, frozen_collections=collections)
  assert parts == ("backbone",)
  chex.assert_trees_all_equal(first.params["backbone"], last.params["backbone"])
  chex.assert_trees_all_equal(first.collections, last.collections)
  assert not np.array_equal(first.params["head"]["output"]["kernel"], last.params["head"]["output"]["kernel"])


def test_the_first_bad_step_is_kept(toy_tree, batch):
  bad = batch.replace(images=np.full_like(batch.images, np.nan))
  assert int(run(toy_tree, batch)[1].bad_step) == -1
  assert int(run(toy_tree, bad, steps=3)[1].bad_step) == 1


def test_the_plateau_scales_the_step(toy_tree, batch):
  first, whole, _ = run(toy_tree, batch, steps=1)
  halved = run(toy_tree, batch, steps=1, plateau=0.5)[1]
  start, end, middle = jax.device_get((first.params, whole.params, halved.params))
  moved = jax.tree.map(lambda a, b: a - b, end, start)
  chex.assert_trees_all_close(moved, jax.tree.map(lambda a, b: 2 * (a - b), middle, start), rtol=1e-3, atol=1e-6)
