"""The drawn set: the same everywhere, every example alone, every leaf, and as many paths as objects."""

import hashlib

import numpy as np
import pytest

from hierjax.data.config import DataConfig
from hierjax.data.open_source import open_source
from hierjax.data.sources import shapes
from hierjax.data.sources.shape_figures import FIGURES, border, disc, polygon, strokes, without
from hierjax.errors import UserError
from hierjax.tree.label_tree import PAD


def test_tree_has_leaves_enough_on_paths_of_two_to_four_nodes():
  tree = shapes.tree()
  assert len(tree.leaves) == len(FIGURES) >= 24
  assert set(tree.level[tree.leaves] + 1) == {2, 3, 4}
  assert len({tree.names[leaf] for leaf in tree.leaves}) == len(FIGURES), "leaf names tell leaves apart"
  assert (np.diff(tree.child_offsets)[1:] != 1).all(), "no node has one child only"


def test_the_pixels_are_these():
  images, figures = shapes.draw(np.arange(40), objects=2)
  digest = hashlib.sha256(images.tobytes() + figures.astype("<i8").tobytes()).hexdigest()
  assert digest[:16] == "65ac6b385cc2fb0f"


@pytest.mark.parametrize("objects", [1, 3])
def test_an_example_depends_on_its_number_and_split_alone(objects):
  numbers = np.array([700, 3, 299, 3, 12])
  images, figures = shapes.draw(numbers, split=1, objects=objects)
  for row, number in enumerate(numbers):
    alone, figure = shapes.draw(np.array([number]), split=1, objects=objects)
    np.testing.assert_array_equal(alone[0], images[row])
    np.testing.assert_array_equal(figure[0], figures[row])
  assert (shapes.draw(numbers, split=2, objects=objects)[0] != images).any(axis=(1, 2, 3)).all()
  many = shapes.draw(np.arange(300), objects=objects)[0]
  np.testing.assert_array_equal(shapes.draw(np.array([299]), objects=objects)[0][0], many[299])


def test_all_leaves_come_equally_often_in_every_split():
  config = DataConfig(examples=6 * 62)
  for split, count in (("train", 372), ("validation", 62), ("test", 62)):
    source = open_source(config, shapes.tree(), split)
    assert len(source) == count and source.nodes.shape == (count, 1)
    assert (np.bincount(source.nodes[:, 0])[shapes.tree().leaves] == count // 31).all()


def test_several_objects_are_several_different_paths():
  source = open_source(DataConfig(examples=300, objects=3), shapes.tree(), "train")
  counts = (source.nodes != PAD).sum(axis=1)
  assert set(counts) == {1, 2, 3} and np.bincount(counts)[1:].min() > 60
  for row, count in zip(source.nodes, counts, strict=True):
    assert (row[count:] == PAD).all() and len(set(row[:count])) == count
  assert set(source.nodes[:, 1]) >= set(shapes.tree().leaves), "any leaf can be the second object"


def test_examples_of_one_leaf_differ_and_figures_are_there():
  images = shapes.draw(np.arange(31 * 8))[0].astype(int)
  assert len(np.unique(images[::31].reshape(8, -1), axis=0)) == 8
  assert images.std(axis=(1, 2)).max(axis=1).min() > 15


def test_larger_images_are_the_same_scene():
  small, figures = shapes.draw(np.arange(5))
  large, same = shapes.draw(np.arange(5), side=64)
  np.testing.assert_array_equal(figures, same)
  halved = large.reshape(5, 32, 2, 32, 2, 3).mean(axis=(2, 4))
  assert abs(halved - small).mean() < 25


def test_another_tree_is_refused(toy_tree):
  with pytest.raises(UserError, match="goes with the tree of that name"):
    open_source(DataConfig(examples=6), toy_tree, "train")


def test_signed_distances():
  x, y = (np.array(v, np.float32) for v in zip(*[(0, 0), (0.5, 0), (2, 0), (2, 2), (0, -3), (0.9, 0.9)], strict=True))
  np.testing.assert_allclose(disc(1.0)(x, y), [-1, -0.5, 1, 8**0.5 - 1, 2, 1.62**0.5 - 1], rtol=1e-5)
  square = polygon([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
  np.testing.assert_allclose(square(x, y), [-1, -0.5, 1, 2**0.5, 2, -0.1], rtol=1e-5)
  np.testing.assert_allclose(border(square, 0.3)(x, y), [0.7, 0.2, 1, 2**0.5, 2, -0.1], rtol=1e-5)
  line = strokes([(-1.0, 0.0), (1.0, 0.0)], width=0.25)
  np.testing.assert_allclose(line(x, y), [-0.25, -0.25, 0.75, 5**0.5 - 0.25, 2.75, 0.65], rtol=1e-5)
  np.testing.assert_allclose(without(square, line)(x, y), [0.25, 0.25, 1, 2**0.5, 2, -0.1], rtol=1e-5)
  dented = polygon([(-1.0, -1.0), (1.0, -1.0), (0.0, 0.0), (1.0, 1.0), (-1.0, 1.0)])
  assert dented(np.float32([0.5]), np.float32([0.0])) > 0 > dented(np.float32([-0.5]), np.float32([0.0]))
