import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import train_step, train_step_torch
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method


@pytest.mark.skipif(train_step_torch.torch is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("network", train_step.NETWORKS)
def test_both_networks_have_the_same_weights(network):
  """Of the same shapes, but for the order of axes that each library has, and the factor of our logits, one number."""
  tree = train_step.cifar100_tree()
  module = make_method(ModelConfig(train_step.NETWORKS[network], train_step.HEAD), tree_arrays(tree)).module
  ours = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  theirs = train_step_torch.networks(tree.num_nodes)[network]()
  sizes = sorted(sorted(p.shape) for p in jax.tree.leaves(ours))
  assert sizes == [[], *sorted(sorted(p.shape) for p in theirs.parameters())]


def test_paths_are_those_of_the_tree():
  tree, batch = train_step.cifar100_tree(), train_step.examples(50)
  np.testing.assert_array_equal(tree.encode(batch.paths[:, :, 1], "unknown"), batch.paths)
