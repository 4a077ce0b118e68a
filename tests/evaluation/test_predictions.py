import jax
import numpy as np

from hierjax.evaluation.predictions import compared
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Prediction


def test_the_best_path_stands_beside_its_label_with_the_probabilities_of_both():
  """Of animal > dog > basenji, in the toy tree's numbers; labels of every length, one of node 0, one without any."""
  labels = np.array([[0, 2, 5], [0, UNKNOWN, UNKNOWN], [1, 4, STOP], [UNKNOWN] * 3, [0, 2, 6]], np.int32)
  paths = np.array([[0, 2, 5], [0, 3, PAD], [0, 2, 6], [1, 4, PAD], [0, 2, 5]], np.int32)
  node_prob = np.float32([[0.7, 0.3, 0.5, 0.2, 0.3, 0.4, 0.1]] * 5)
  ones = np.ones((5, 2), np.float32)
  second = np.full_like(paths, PAD)
  prediction = Prediction(np.stack([paths, second], axis=1), ones, np.float32([[0.25, 1.0]] * 5), node_prob, paths)
  found = jax.device_get(jax.jit(compared)(prediction, labels, np.float32([1, 1, 1, 1, 0])))
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
