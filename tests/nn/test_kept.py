"""What a head reads of kept features is what it reads of the maps that they were made of."""

import jax
import numpy as np
import pytest
from initial_weights import initial_weights

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Features


@pytest.mark.parametrize("conversion", ["pool", "pool_average"])
@pytest.mark.parametrize("name", ["dhnn_rnn", "dhnn_s2s"])
def test_a_head_answers_the_same_of_maps_and_of_what_is_kept(rng, name, conversion):
  """Of 12 channels groups are pooled; those of 4 have windows, and zeros after them."""
  tree = tree_arrays(LabelTree.from_children(list("ABCDEFG"), [2, 2, 3, 0, 0, 0, 0, 0]))
  fields = {"width": 4, "size": 10, "layers": 1, "conversion": conversion}
  backbone = {"name": "small_resnet", "widths": (4, 12), "blocks": 1}
  head = make_method(ModelConfig(backbone, {"name": name, **fields}), tree).module.head
  maps = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 6, 6, 4), (3, 3, 3, 12))]
  features = Features(tuple(maps), maps[1].mean(axis=(1, 2)))
  variables = initial_weights(jax.eval_shape(head.init, jax.random.key(0), features))

  @jax.jit
  def both(variables, features):
    return head.apply(variables, features), head.apply(variables, head.kept.features(head.kept.array(features)))

  whole, kept = jax.device_get(both(variables, features))
  np.testing.assert_allclose(kept, whole, rtol=1e-5, atol=1e-6)
  assert np.abs(whole - whole[:1]).max() > 1e-3  # the images differ
