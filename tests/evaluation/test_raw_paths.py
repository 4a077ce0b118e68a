"""Raw decoding may leave the tree; what is printed is what was decoded, and not the ancestors of its last node."""

import numpy as np

from hierjax.inference.predictor import _rows


def test_the_nodes_are_named_as_they_were_decoded(toy_tree):
  (row,) = _rows("a.png", toy_tree, np.array([[1, 3, -2]]), np.array([-0.5]), np.full(7, 0.25))
  assert row.path == "thing/cat"  # a cat is an animal
  assert row.node_probabilities == (0.25, 0.25)
