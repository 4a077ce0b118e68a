import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.decoding import decode
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.tree.label_tree import PAD, UNKNOWN
from hierjax.types import DecodeOptions, Features
from path_oracle import log_softmax, nodes_of
from random_trees import random_tree


@pytest.mark.parametrize("given", [False, True])
def test_decoding_is_the_softmax_over_the_leaves_below_what_is_known(rng, key, given):
  tree = random_tree(rng, depth=4, most_children=3)
  head = FlatHead(len(tree.leaves))
  features = Features(stages=(), pooled=jax.device_put(rng.normal(size=(2, 3)).astype(np.float32)))
  variables = jax.jit(head.init)(key, features)
  k = len(tree.leaves) + 2
  inner = next(i for i in range(tree.num_nodes) if len(tree.children(i)) > 1)
  known = tree.encode([inner, -1]) if given else None
  options = DecodeOptions(beam=k)

  @jax.jit
  def run(arrays, known):
    found = head.apply(variables, features, known, arrays, options, method="distribution")
    return decode(found, arrays, options), head.apply(variables, features)

  found, logits = jax.device_get(run(tree_arrays(tree), known))
  for example in range(2):
    root = inner if given and example == 0 else -1
    leaves = [leaf for leaf in tree.leaves.tolist() if root == -1 or root in tree.path(leaf)]
    log_probs = log_softmax(logits[example, np.isin(tree.leaves, leaves)])
    ranking = sorted(zip(log_probs.tolist(), leaves, strict=True), reverse=True)
    assert [nodes_of(p) for p in found.paths[example][: len(leaves)]] == [tree.path(leaf) for _, leaf in ranking]
    np.testing.assert_allclose(found.log_prob[example][: len(leaves)], [s for s, _ in ranking], rtol=1e-5)
    assert (found.paths[example][len(leaves) :] == PAD).all() and (
      found.log_prob[example][len(leaves) :] == -np.inf
    ).all()
    for node in range(tree.num_nodes):
      mass = sum(np.exp(s) for s, leaf in ranking if node in tree.path(leaf))
      assert found.node_prob[example, node] == pytest.approx(mass, abs=1e-6)
  np.testing.assert_array_equal(found.raw_nodes, found.paths[:, 0])
  assert found.level_prob is None and (found.stop_prob == 1).all()


def test_loss_of_leaves_is_cross_entropy_and_of_nothing_is_zero(toy_tree):
  logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  paths = toy_tree.encode([5, 4, -1])
  loss_of = jax.jit(FlatHead(4).loss)
  loss = np.asarray(loss_of(logits, paths[:, None], tree_arrays(toy_tree)))
  np.testing.assert_allclose(loss[:2], [-log_softmax(logits)[i, j] for i, j in ((0, 2), (1, 1))], rtol=1e-6)
  assert loss[2] == 0 and (paths[2] == UNKNOWN).all()
  with pytest.raises(ValueError, match="multi-label head"):
    loss_of(logits, np.zeros((3, 2, 3), np.int32), tree_arrays(toy_tree))


def test_it_warns_where_labels_may_end_above_a_leaf(toy_tree):
  def described(short_labels):
    backbone = {"name": "small_resnet", "widths": (4,), "blocks": 1}
    found = make_method(ModelConfig(backbone, {"name": "flat"}), tree_arrays(toy_tree, short_labels))
    return found.describe(jnp.zeros((1, 8, 8, 3)))

  assert described("unknown") == []
  (line,) = described("stop")
  assert "config.tree.short_labels = stop" in line and "path_rnn" in line


def test_dropout_zeroes_features_in_training_and_scales_the_others_by_what_is_kept(rng):
  pooled = rng.normal(size=(5, 40)).astype(np.float32)
  head = FlatHead(40, dropout=0.75)

  @functools.partial(jax.jit, static_argnames="train")
  def run(pooled, train=False, rngs=None):
    variables = {"params": {"output": {"kernel": jnp.eye(40), "bias": jnp.zeros(40)}}}
    return head.apply(variables, Features((), pooled), train=train, rngs=rngs)

  np.testing.assert_array_equal(run(pooled), pooled)
  for seed in range(3):
    read = np.asarray(run(pooled, train=True, rngs={"dropout": jax.random.key(seed)}))
    np.testing.assert_allclose(read, np.where(read != 0, 4 * pooled, 0), rtol=1e-6)
    assert 0 < (read != 0).sum() < read.size
  with pytest.raises(ValueError, match=r"dropout = 1\.0"):
    FlatHead(40, dropout=1.0)
  with pytest.raises(ValueError, match=r"strength = 1\.5: with criterion = label_smoothing it must be from 0 to 1"):
    FlatHead(40, criterion="label_smoothing", strength=1.5)
