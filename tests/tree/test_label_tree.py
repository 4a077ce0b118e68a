"""Laws of LabelTree, against an oracle that climbs from each node to the root."""

import dataclasses
import json

import numpy as np
import pytest

from hierjax.tree.label_tree import PAD, ROOT, STOP, UNKNOWN, LabelTree, Strings, TreeError
from random_trees import random_tree


@pytest.fixture(params=range(5))
def tree(request):
  rng = np.random.default_rng(request.param)
  return random_tree(rng, depth=1 + request.param, most_children=4)


def climb(tree, node):
  """Parents, found by asking every node whether it has the child."""
  path = []
  while node != ROOT:
    path.insert(0, node)
    node = next(p for p in range(-1, tree.num_nodes) if node in tree.children(p))
  return path


def test_levels_are_blocks_and_children_are_ranges_that_cover_them(tree):
  depths = [len(climb(tree, node)) - 1 for node in range(tree.num_nodes)]
  assert depths == sorted(depths)
  assert tree.level.tolist() == depths
  for t in range(tree.depth):
    assert set(range(*tree.level_offsets[t : t + 2])) == {i for i, d in enumerate(depths) if d == t}
  assert [c for p in range(-1, tree.num_nodes) for c in tree.children(p)] == list(range(tree.num_nodes))


def test_leaves_fan_out_and_uniformity(tree):
  childless = [node for node in range(tree.num_nodes) if not len(tree.children(node))]
  assert tree.leaves.tolist() == childless
  assert all(tree.is_leaf(node) == (node in childless) for node in range(tree.num_nodes))
  assert tree.max_children == max(len(tree.children(p)) for p in range(-1, tree.num_nodes))
  assert tree.uniform == (len({len(climb(tree, leaf)) for leaf in childless}) == 1)


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_encode_is_the_climbed_path_and_what_follows_it(tree, short_labels):
  for node in range(tree.num_nodes):
    path = climb(tree, node)
    ended = tree.is_leaf(node) or short_labels == "stop"
    after = [STOP] + [PAD] * tree.depth if ended else [UNKNOWN] * tree.depth
    expected = (path + after)[: tree.depth]
    assert tree.path(node) == tuple(path)
    assert tree.encode(node, short_labels).tolist() == expected


def test_encode_of_tokens_and_of_any_shape(tree):
  assert (tree.encode(PAD) == PAD).all()
  assert (tree.encode(ROOT) == UNKNOWN).all()
  assert (tree.encode(ROOT, "stop") == UNKNOWN).all()
  nodes = np.array([[0, PAD, ROOT], [tree.num_nodes - 1, 0, 0]])
  paths = tree.encode(nodes)
  assert paths.shape == (2, 3, tree.depth) and paths.dtype == np.int32
  for place in np.ndindex(nodes.shape):
    np.testing.assert_array_equal(paths[place], tree.encode(nodes[place]))


def test_ends_undoes_encode(tree):
  nodes = np.arange(-1, tree.num_nodes)
  for short_labels in ("unknown", "stop"):
    np.testing.assert_array_equal(tree.ends(tree.encode(nodes, short_labels)), nodes)


def test_is_path_holds_for_walks_down_only(tree):
  for node in range(tree.num_nodes):
    assert tree.is_path(tree.encode(node).tolist())
  assert not tree.is_path([PAD] * tree.depth)
  if tree.depth > 1:
    assert not tree.is_path([0, 0])
    assert not tree.is_path([tree.level_offsets[1]])


def test_truncated_keeps_numbers_names_and_paths(tree):
  for levels in range(1, tree.depth + 1):
    top = tree.truncated(levels)
    assert top.depth == levels and top.num_nodes == tree.level_offsets[levels]
    for node in range(top.num_nodes):
      assert top.path_names(node) == tree.path_names(node)
  with pytest.raises(TreeError, match=f"1 to {tree.depth}"):
    tree.truncated(tree.depth + 1)


def test_find_undoes_path_names_and_says_how_far_it_came(tree, toy_tree):
  assert all(tree.find(tree.path_names(node)) == node for node in range(tree.num_nodes))
  assert toy_tree.find(()) == ROOT
  with pytest.raises(KeyError, match="'wolf' is not below 'animal'; there are: dog, cat"):
    toy_tree.find(["animal", "wolf"])
  with pytest.raises(KeyError, match="it is a leaf"):
    toy_tree.find(["thing", "cup", "handle"])


def test_path_text_tells_slashes_in_names_from_those_between():
  tree = LabelTree.from_children(["a/b", "a", "b"], [2, 0, 1, 0])
  assert {tree.path_text(i) for i in range(3)} == {r"a\/b", "a", "a/b"}
  assert tree.nodes_text([0, 2]) == r"a\/b/b"  # no path of the tree: what a raw decoder may say


def test_json_round_trip(tree):
  again = LabelTree.from_json(tree.to_json())
  assert again == tree and hash(again) == hash(tree)
  assert list(again.names) == list(tree.names)
  np.testing.assert_array_equal(again.child_offsets, tree.child_offsets)


def test_checksum_changes_with_any_part():
  names, counts = ["a", "b", "c"], [2, 1, 0, 0]
  variants = [
    LabelTree.from_children(names, counts),
    LabelTree.from_children(["a", "b", "d"], counts),
    LabelTree.from_children(["a", "bc", "c"], counts),
    LabelTree.from_children(["ab", "b", "c"], counts),
    LabelTree.from_children(names, [2, 0, 1, 0]),
    LabelTree.from_children(names, [3, 0, 0, 0]),
    LabelTree.from_children(names, counts, root_name="entity"),
    LabelTree.from_children(names, counts, ids=["1", "2", "3"]),
    LabelTree.from_children(names, counts, ids=["1", "2", "4"]),
  ]
  assert len({tree.checksum for tree in variants}) == len(variants)
  assert LabelTree.from_children(names, counts).checksum == variants[0].checksum


def damaged(**changes):
  saved = json.loads(LabelTree.from_children(["a", "b", "c"], [2, 1, 0, 0]).to_json())
  return json.dumps(saved | changes)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (damaged(names=["a", "b", "x"]), "checksum"),
    (damaged(root="entity"), "checksum"),
    (damaged(num_children=[2, 0, 1, 0]), "checksum"),
    (damaged(num_children=[2, 1, 0]), "num_children must hold 4"),
    (damaged(num_children=[1, 1, -1, 2]), "num_children"),
    (damaged(num_children=[10**30, 0, 0, 0]), "saved.json"),
    (damaged(num_children=[2.0, 1.0, 0, 0]), "list of int"),
    (damaged(num_children=[True, True, True, False]), "list of int"),
    (damaged(names=None), "list of str"),
    (damaged(names=["a", "b", "\ud800"]), "saved.json"),
    (damaged(ids=["1"]), "1 ids for 3 nodes"),
    (damaged(root=7), "'root' must be a string"),
    (damaged(format="another"), "not a tree that hierjax saved"),
    ("[]", "not a tree that hierjax saved"),
    ('{\n"format"', "saved.json:2: not JSON"),
    ("[" * 200_000, "saved.json"),
    ("9" * 5000, "saved.json"),
  ],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path, text, message):
  path = tmp_path / "saved.json"
  path.write_text(text, encoding="utf-8")
  with pytest.raises(TreeError, match=message) as error:
    LabelTree.load(path)
  assert "saved.json" in str(error.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"root": "\ud800"}, "surrogates not allowed"),
    ({"names": ["\ud800", "b"]}, "surrogates"),
    ({"root": None}, "'root'"),
  ],
)
def test_a_saved_tree_without_ids_is_one_and_names_are_text(change, message):
  tree = LabelTree.from_children(["a", "b"], [2, 0, 0])
  saved = json.loads(tree.to_json())
  del saved["ids"]
  assert LabelTree.from_json(json.dumps(saved)) == tree
  with pytest.raises(TreeError, match=message):
    LabelTree.from_json(json.dumps(saved | change))


def test_a_file_that_is_not_text_is_refused(tmp_path):
  path = tmp_path / "saved.json"
  path.write_bytes(b'{"format": "\xff"}')
  with pytest.raises(TreeError, match=r"saved\.json"):
    LabelTree.load(path)
  with pytest.raises(TreeError, match=r"missing\.json"):
    LabelTree.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
  ("names", "counts", "message"),
  [
    ([], [0], "at least one node"),
    (["a", "b"], [1, 1], "num_children must hold 3"),
    (["a", "b"], [1, 0, 1], "comes before its parent"),
    (["a", "a"], [2, 0, 0], "two children of 'root' are named 'a'"),
    (["a", "b", "b"], [1, 2, 0, 0], "two children of 'a' are named 'b'"),
    (["a", " "], [1, 1, 0], "a child of 'a' has a blank name"),
  ],
)
def test_what_is_no_tree_is_refused(names, counts, message):
  with pytest.raises(TreeError, match=message):
    LabelTree.from_children(names, counts)


def test_a_name_may_come_again_below_another_parent():
  tree = LabelTree.from_children(["a", "b", "other", "other"], [2, 1, 1, 0, 0])
  assert tree.find(["a", "other"]) != tree.find(["b", "other"])


def test_a_tree_cannot_be_changed(toy_tree):
  for array in (toy_tree.child_offsets, toy_tree.parent, toy_tree.level, toy_tree.leaves):
    with pytest.raises(ValueError, match="read-only"):
      array[0] = 1
  with pytest.raises(dataclasses.FrozenInstanceError):
    toy_tree.root_name = "other"


def test_strings_are_a_sequence():
  texts = ["", "é", "a\x00b", "日本"]
  strings = Strings(texts)
  assert list(strings) == texts
  assert [strings[i] for i in range(-4, 4)] == texts + texts
  assert strings[1:3] == texts[1:3] and "é" in strings
  with pytest.raises(IndexError):
    strings[4]


def test_the_ends_of_labels_are_kept_and_checked(toy_tree):
  assert LabelTree.from_json(toy_tree.to_json()).label_ends is None
  tree = toy_tree.with_label_ends([[5, -2], [3, 5]])
  again = LabelTree.from_json(tree.to_json())
  assert again.label_ends == (3, 5) and again == toy_tree
  with pytest.raises(TreeError, match="a label ends at node 7; the tree has nodes 0 to 6"):
    LabelTree.from_json(tree.to_json().replace("[3, 5]", "[3, 7]"))
