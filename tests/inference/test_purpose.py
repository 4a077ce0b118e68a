"""Answers for a purpose: the flags, the file of `--only`, and the labels that answers are compared with."""

import jax
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.inference.pipeline import Stages, judged_labels
from hierjax.inference.purpose import Purpose
from hierjax.tree.label_tree import PAD, UNKNOWN
from hierjax.types import DecodeOptions

judged_labels = jax.jit(judged_labels, static_argnums=1)


def test_nodes_of_a_file_are_its_labels_and_all_below_them(toy_tree, tmp_path):
  file = tmp_path / "labels.txt"
  file.write_text("# what lives here\n\nanimal/dog \nthing/cup\n", encoding="utf-8")
  expected = tuple(toy_tree.find(path) for path in (("animal", "dog"), ("thing", "cup")))
  below = tuple(toy_tree.find(("animal", "dog", name)) for name in ("basenji", "leonberg"))
  assert Purpose(only=str(file)).nodes(toy_tree) == tuple(sorted(expected + below))
  assert Purpose(only=("dog", "cup")).nodes(toy_tree) == Purpose(only=file).nodes(toy_tree)
  assert Purpose().nodes(toy_tree) is None


def test_every_label_that_is_not_in_the_tree_is_named_by_file_and_line(toy_tree, tmp_path):
  file = tmp_path / "labels.txt"
  file.write_text("dog\nbasenjy\nanimal/doge\n", encoding="utf-8")
  with pytest.raises(UserError, match=rf"--only: {file}:2: .*did you mean 'basenji'\?; {file}:3: .*did you mean 'dog'"):
    Purpose(only=str(file)).nodes(toy_tree)
  file.write_text("# nothing\n", encoding="utf-8")
  with pytest.raises(UserError, match=r"labels\.txt: no labels; give a name or a path a line"):
    Purpose(only=str(file)).nodes(toy_tree)
  with pytest.raises(UserError, match=r"--only \S*nowhere: this file cannot be read"):
    Purpose(only=str(tmp_path / "nowhere")).nodes(toy_tree)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"minimise": "edge"}, r"--minimise edge: choose from edges, .*; did you mean 'edges'\?"),
    ({"minimise": "edges", "level": 2}, "each say which node is the answer"),
    ({"level": 1, "rank": "level 1"}, "each say which node is the answer"),
    ({"level": 4}, r"--level 4: the tree has 3 levels: level 1, level 2, level 3"),
    ({"rank": "level2"}, r"--rank level2: no level has this name; did you mean 'level 2'\?; the levels are level 1"),
  ],
)
def test_purposes_that_cannot_be_are_refused(toy_tree, fields, message):
  with pytest.raises(UserError, match=message):
    Purpose(**fields).options(DecodeOptions(), toy_tree)


def test_options_and_names_of_files(toy_tree):
  options = DecodeOptions(beam=3)
  for purpose, rule, level, name in (
    (Purpose(), "beam", 0, ""),
    (Purpose(minimise="hf0.5"), "hf0.5", 0, "-hf0.5"),
    (Purpose(level=2), "level", 2, "-level2"),
    (Purpose(rank="level 3", only=("dog",)), "level", 3, "-level 3-only"),
  ):
    found = purpose.options(options, toy_tree)
    assert (found.rule, found.level, found.beam, purpose.name) == (rule, level, 3, name)
    assert bool(purpose) == bool(name) == bool(purpose.conditions(toy_tree))
  ours, theirs = (Purpose(only=(label,)).conditions(toy_tree) for label in ("dog", "cat"))
  assert ours != theirs and ours == Purpose(only=("animal/dog",)).conditions(toy_tree)


def test_labels_count_down_to_the_level_and_where_they_are_among_the_nodes(toy_tree):
  arrays = tree_arrays(toy_tree)
  paths = toy_tree.encode([5, 4, 3, 0, -1])[:, None]  # basenji, cup, cat, animal, nothing
  same = judged_labels(paths, Stages(), arrays)
  np.testing.assert_array_equal(same, paths)
  cut = np.asarray(judged_labels(paths, Stages(DecodeOptions(rule="level", level=2)), arrays))
  np.testing.assert_array_equal(cut[..., :2], paths[..., :2])
  assert (cut[..., 2] == UNKNOWN).all()
  only = Stages(only=Purpose(only=("dog",)).nodes(toy_tree))
  kept = np.asarray(judged_labels(paths, only, arrays))
  np.testing.assert_array_equal(kept[[0, 3]], paths[[0, 3]])  # `animal` may be a dog
  assert (kept[[1, 2, 4]] == UNKNOWN).all() and PAD not in kept[0]
