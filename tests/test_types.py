import jax
import jax.numpy as jnp
import pytest

from hierjax.config import unpack
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.types import Batch, DecodeOptions


def test_structs_pass_through_jit_and_eval_shape(toy_tree):
  tree = tree_arrays(toy_tree)
  batch = Batch(inputs=jnp.zeros((2, 4, 4, 3)), paths=jnp.zeros((2, 1, 3), jnp.int32), mask=jnp.ones(2))
  shapes = jax.eval_shape(lambda b, t: (b, t), batch, tree)
  assert shapes[0].inputs.shape == (2, 4, 4, 3)
  out = jax.jit(lambda b, t: (b.mask.sum(), t.parent[0]))(batch, tree)
  assert float(out[0]) == 2.0
  assert jax.tree.map(lambda _: None, batch).mask is None


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (dict(beam=0), r"config\.decode\.beam = 0: a beam keeps at least 1 path"),
    (dict(restrict="none"), r"config\.decode\.restrict = 'none': choose from tree, raw"),
    (dict(normalise="all"), r"config\.decode\.normalise = 'all': choose from trained, siblings"),
    (dict(views=5), r"config\.decode\.views = 5: choose from 1, 10"),
    (dict(threshold_per="node"), r"config\.decode\.threshold_per = 'node': choose from tree, level"),
    (dict(thresholds=(0.5, 1.0)), r"config\.decode\.thresholds = \(0\.5, 1\.0\): .* less than 1"),
  ],
)
def test_options_that_no_decoder_knows_are_named_by_their_key(values, message):
  with pytest.raises(UserError, match=message):
    unpack(DecodeOptions, values, "decode")
