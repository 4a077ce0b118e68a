"""Decoding from node probabilities, against a beam search over their shares; and where paths end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.decoding import end_probability, most_probable_paths
from hierjax.functional.distributions import by_leaves
from hierjax.functional.search import beam_search
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import ROOT, UNKNOWN
from hierjax.types import DecodeOptions
from path_oracle import node_prob_of, path_probs, random_model

BATCH = 2
end_probability, most_probable_paths = jax.jit(end_probability), jax.jit(most_probable_paths, static_argnums=2)


@pytest.mark.parametrize("stop_at", ["bottom", "leaf", "node", "some"])
def test_the_most_probable_paths_are_a_full_beam_over_the_shares(stop_at):
  arrays, views = path_probs(stop_at)
  mean = jax.device_put(np.mean([node_prob_of(view, arrays) for view in views], axis=0))
  ends = end_probability(mean, arrays)
  np.testing.assert_allclose(np.asarray(ends).sum(axis=1), 1, rtol=1e-5)
  found = jax.device_get(most_probable_paths(mean, arrays, 40))

  def step(carry, previous, candidates):
    rows = jnp.arange(BATCH)[:, None]
    above = jnp.where(previous == ROOT, 1.0, mean[rows, previous])
    stop = ends[rows, previous]
    below = mean[rows[..., None], candidates]
    return carry, jnp.log(jnp.where(candidates == arrays.num_nodes, stop[..., None], below) / above[..., None])

  known = np.full((BATCH, arrays.depth), UNKNOWN, np.int32)
  search = jax.jit(lambda known: beam_search(step, jnp.zeros((BATCH, 40)), known, arrays, DecodeOptions(beam=40)))
  searched = jax.device_get(search(known))
  np.testing.assert_array_equal(found.paths, searched.paths)
  np.testing.assert_allclose(found.log_prob, searched.log_prob, rtol=1e-4)
  real = np.isfinite(found.log_prob)
  np.testing.assert_allclose(found.stop_prob[real], searched.stop_prob[real], rtol=1e-3)


@pytest.mark.parametrize(("short_labels", "expected"), [("unknown", [0, 0, 0, 0.2, 0.1, 0.1, 0.2]), ("stop", None)])
def test_what_is_missing_below_a_node_is_an_end_where_the_tree_has_such_ends(toy_tree, short_labels, expected):
  node_prob = np.array([[0.7, 0.2, 0.4, 0.2, 0.1, 0.1, 0.2]], np.float32)
  (found,) = jax.device_get(end_probability(node_prob, tree_arrays(toy_tree, short_labels)))
  np.testing.assert_allclose(found, expected or [0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.2], atol=1e-6)


def test_rounding_of_a_sum_over_leaves_is_no_end(rng):
  arrays = random_model(1, "node").arrays

  @jax.jit
  def run(logits, arrays):
    return end_probability(by_leaves(jax.nn.softmax(logits), arrays), arrays)

  found = run(rng.normal(size=(50, arrays.num_leaves)).astype(np.float32), arrays)
  assert (np.asarray(found)[:, arrays.inner] == 0).all()
