import jax
import jax.numpy as jnp

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.types import Batch


def test_structs_pass_through_jit_and_eval_shape(toy_tree):
  tree = tree_arrays(toy_tree)
  batch = Batch(inputs=jnp.zeros((2, 4, 4, 3)), paths=jnp.zeros((2, 1, 3), jnp.int32), mask=jnp.ones(2))
  shapes = jax.eval_shape(lambda b, t: (b, t), batch, tree)
  assert shapes[0].inputs.shape == (2, 4, 4, 3)
  out = jax.jit(lambda b, t: (b.mask.sum(), t.parent[0]))(batch, tree)
  assert float(out[0]) == 2.0
  assert jax.tree.map(lambda _: None, batch).mask is None
