"""The shipped trees: the counts that are published, and class names of data sets found in them."""

import importlib.resources

import numpy as np
import pytest

from hierjax.tree import catalog
from hierjax.tree.builders import from_paths
from hierjax.tree.label_finder import LabelFinder, class_nodes, split_path
from hierjax.tree.label_tree import LabelTree, TreeError


@pytest.mark.parametrize(
  ("name", "nodes", "leaves", "shallowest", "deepest"),
  [
    ("cifar100", 120, 100, 2, 2),
    ("cifar100_wordnet", 162, 100, 2, 8),
    ("imagenet1k", 1784, 1000, 4, 18),
    ("openimages30", 30, 24, 3, 3),
    ("openimages600", 601, 525, 1, 5),
  ],
)
def test_sizes(name, nodes, leaves, shallowest, deepest):
  tree = catalog.load(name)
  assert (tree.num_nodes, len(tree.leaves), tree.depth) == (nodes, leaves, deepest)
  assert tree.level[tree.leaves].min() + 1 == shallowest
  assert LabelTree.from_json(tree.to_json()) == tree


def test_names_are_those_that_load_and_another_lists_them():
  assert len([catalog.load(name) for name in catalog.names()]) == 5
  with pytest.raises(ValueError, match=f"choose from {', '.join(catalog.names())}"):
    catalog.load("imagenet")


def test_cifar100_is_20_times_5_and_both_trees_have_the_same_leaves():
  tree, wordnet = catalog.load("cifar100"), catalog.load("cifar100_wordnet")
  assert tree.level_offsets == (0, 20, 120)
  assert {len(tree.children(node)) for node in range(20)} == {5}
  assert tree.find(("fish", "aquarium_fish")) >= 0
  assert {tree.names[i] for i in tree.leaves} == {wordnet.names[i] for i in wordnet.leaves}
  assert wordnet.root_name == "entity"
  assert wordnet.path_names(class_nodes(wordnet, ["apple"])[0]) == ("food", "fruit", "pome", "apple")


def test_imagenet_classes_are_found_by_wordnet_id():
  tree = catalog.load("imagenet1k")
  ids = sorted(tree.ids[i] for i in tree.leaves)
  nodes = class_nodes(tree, ids)
  assert (ids[0], tree.names[nodes[0]]) == ("n01440764", "tench")
  assert sorted(nodes) == tree.leaves.tolist()
  assert tree.num_nodes + 1 - len(tree.leaves) == 785  # inner nodes, the root among them
  assert "animal" in tree.path_names(nodes[0]) and tree.root_name == "entity"
  assert tree.ids[LabelFinder(tree).node(["n00015388"])] == "n00015388"  # animal, an inner node


def test_siblings_of_one_name_have_their_id_behind_it():
  tree = catalog.load("imagenet1k")
  behind = [(name, i) for name, i in zip(tree.names, tree.ids, strict=True) if name.endswith(f"({i})")]
  assert sorted(name.split(" (")[0] for name, _ in behind) == ["substance", "substance", "table", "table"]


def test_openimages_keeps_the_first_parent_and_no_parts():
  tree = catalog.load("openimages600")
  # The file lists Teddy bear below Toy before it does below Bear, and Car's doors as parts of it.
  assert tree.path_names(class_nodes(tree, ["Teddy bear"])[0]) == ("Toy", "Teddy bear")
  assert tree.path_names(class_nodes(tree, ["/m/0k4j"])[0]) == ("Vehicle", "Land vehicle", "Car")
  assert (
    tree.is_leaf(LabelFinder(tree).node(["/m/04yx4"])) and tree.names[LabelFinder(tree).node(["/m/04yx4"])] == "Man"
  )
  assert all(i.startswith("/m/") for i in tree.ids)


def test_openimages30_has_the_shape_of_the_authors_code():  # READINGS K12
  tree, whole = catalog.load("openimages30"), catalog.load("openimages600")
  assert np.diff(tree.level_offsets).tolist() == [2, 4, 24]
  assert [len(tree.children(node)) for node in range(6)] == [2, 2, 10, 6, 6, 2]
  names = dict(zip(whole.ids, whole.names, strict=True))
  assert all(names[i] == name for i, name in zip(tree.ids, tree.names, strict=True))


def test_class_nodes_looks_for_ids_first_and_lists_what_it_cannot_find():
  tree = LabelTree.from_children(["a", "b", "x", "y", "y"], [2, 2, 1, 0, 0, 0], ids=["1", "2", "y", "4", "5"])
  np.testing.assert_array_equal(class_nodes(tree, ["4", "x", "y"]), [3, 2, 2])
  assert class_nodes(tree, ["1"]).dtype == np.int32
  tree = LabelTree.from_children(["a", "b", "x", "y", "y"], [2, 2, 1, 0, 0, 0])
  with pytest.raises(TreeError, match=r"2 of 3 classes .*'y' names 2 nodes: a/y, b/y; 'a' is neither an id nor a leaf"):
    class_nodes(tree, ["y", "x", "a"])
  with pytest.raises(TreeError, match=r"7 of 7 .*; \.\.\.$"):
    class_nodes(tree, list("cdefghi"))


def test_a_label_is_a_path_an_id_or_a_leaf():
  finder = LabelFinder(from_paths([("all", "a", "x"), ("all", "a", "y"), ("all", "b", "y"), ("all", "b", "a")]))
  tree = from_paths([("a", "x"), ("a", "y"), ("b", "y"), ("b", "a")])
  for label, path in [
    (("a",), ("a",)),
    (("b", "y"), ("b", "y")),
    (("all", "b", "y"), ("b", "y")),
    (("x",), ("a", "x")),
  ]:
    assert finder.node(label) == tree.find(path)
  assert finder.node(("all",)) == finder.node(()) == -1
  with pytest.raises(KeyError, match="names 2 nodes"):
    finder.node(("y",))
  with pytest.raises(KeyError, match=r"^\"'z' is no top-level label; there are: a, b\"$"):
    finder.node(("z",))
  with pytest.raises(KeyError, match="'z' is no top-level label; there are: a, b"):
    finder.node(("all", "z"))
  with pytest.raises(KeyError, match="'x' is no top-level label"):
    finder.node(("x", "y"))
  with pytest.raises(KeyError, match="'z' is not below 'b'; there are: y, a"):
    finder.node(("all", "b", "z"))


def test_a_single_name_is_a_label_where_one_node_has_it():
  tree = from_paths(
    [("deer", "Cervus", "elaphus"), ("toad", "Bufo", "Bufo"), ("toad", "Bufo", "bufo"), ("cow", "deer")]
  )
  finder = LabelFinder(tree)
  for name, path in (("Cervus", ("deer", "Cervus")), ("bufo", ("toad", "Bufo", "bufo")), ("deer", ("deer",))):
    assert finder.node((name,)) == tree.find(path)
  with pytest.raises(KeyError, match=r"'Bufo' is no top-level .*; 'Bufo' names 2 nodes .*: toad/Bufo, toad/Bufo/Bufo"):
    finder.node(("Bufo",))


@pytest.mark.parametrize("names", [("a", "b"), ("a/b", "c\\"), ("\\", "/", "\\/"), ("x\ny",)])
def test_split_path_undoes_path_text(names):
  tree = from_paths([names, ("other",)])
  assert split_path(tree.path_text(tree.find(names))) == names


def test_licences_travel_with_the_data():
  notice = (importlib.resources.files("hierjax.tree") / "data" / "NOTICE.md").read_text(encoding="utf-8")
  for words in ("WordNet 3.0 Copyright 2006 by Princeton University", "Björn Barz", "CC BY 4.0", "Krizhevsky"):
    assert words in notice
