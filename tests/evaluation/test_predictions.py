import jax.numpy as jnp
import numpy as np

from hierjax.evaluation.predictions import compared
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Prediction


def test_the_best_path_stands_beside_its_label_with_the_probabilities_of_both():
  """Of animal > dog > basenji, in the toy tree's numbers; labels of every length, one of node 0, one without any."""
  labels = jnp.array([[0, 2, 5], [0, UNKNOWN, UNKNOWN], [1, 4, STOP], [UNKNOWN] * 3, [0, 2, 6]], jnp.int32)
  paths = jnp.array([[0, 2, 5], [0, 3, PAD], [0, 2, 6], [1, 4, PAD], [0, 2, 5]], jnp.int32)
  node_prob = jnp.array([[0.7, 0.3, 0.5, 0.2, 0.3, 0.4, 0.1]] * 5)
  ones = jnp.ones((5, 2))
  second = jnp.full_like(paths, PAD)
  prediction = Prediction(jnp.stack([paths, second], axis=1), ones, jnp.array([[0.25, 1.0]] * 5), node_prob, paths)
  found = compared(prediction, labels, jnp.array([1.0, 1, 1, 1, 0]))
  np.testing.assert_array_equal(found.counted, [True, True, True, False, False])
  np.testing.assert_array_equal(found.right[found.counted], [True, True, False])
  np.testing.assert_array_equal(found.some_right[found.counted], [True, True, False])
  np.testing.assert_array_equal(found.paths, paths)
  np.testing.assert_array_equal(found.labels, labels)
  np.testing.assert_allclose(
    found.probability, [[0.7, 0.5, 0.4], [0.7, 0.2, 0], [0.7, 0.5, 0.1], [0.3, 0.3, 0], [0.7, 0.5, 0.4]]
  )
  np.testing.assert_allclose(found.stop, [0.25] * 5)
  np.testing.assert_allclose(found.label_probability, [0.4, 0.7, 0.3, 0.0, 0.1])
