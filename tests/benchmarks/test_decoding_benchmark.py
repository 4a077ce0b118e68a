import numpy as np

from benchmarks.decoding import LEVELS, even_tree


def test_the_trees_have_the_sizes_that_the_table_names():
  trees = [even_tree(levels) for levels in LEVELS]
  assert [tree.num_nodes for tree in trees] == [1860, 100_000]
  for tree in trees:
    assert (tree.depth, tree.max_children, tree.has_stop) == (3, 64, False)
    assert np.diff(tree.level_offsets).tolist() in map(list, LEVELS)
