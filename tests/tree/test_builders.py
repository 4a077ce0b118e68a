"""Builders: one tree from every form, and forms that are refused."""

import json
import os

import numpy as np
import pytest

from hierjax.tree import builders
from hierjax.tree.draft import MAX_DEPTH
from hierjax.tree.label_tree import LabelTree, TreeError
from hierjax.tree.open_tree import open_tree
from hierjax.tree.readers.folders import walk
from random_trees import random_tree

TOY_LEVELS = """class,animal kind,breed
animal,dog,basenji
animal,dog,leonberg
animal,cat,
thing,cup
"""
TOY_EDGES = """parent,child
root,animal
animal,dog
dog,basenji
dog,leonberg
animal,cat
root,thing
thing,cup
"""
TOY_NESTED = {"animal": {"dog": ["basenji", "leonberg"], "cat": None}, "thing": ["cup"]}


def write(tmp_path, name, text):
  path = tmp_path / name
  path.write_text(text, encoding="utf-8")
  return path


def named(tree, node=-1):
  """The form of objects with a name and children."""
  below = [named(tree, child) for child in tree.children(node)]
  return {"name": tree.root_name if node == -1 else tree.names[node], "children": below}


def nested(tree, node=-1):
  return {tree.names[child]: nested(tree, child) for child in tree.children(node)}


def forms_of(tree, folder):
  """Writes `tree`, whose names differ, in every form, and returns what the builders make of them."""
  leaves = [tree.path_names(path[-1]) for path in sorted(map(tree.path, tree.leaves))]  # depth first
  header = ",".join(f"column {t}" for t in range(tree.depth))
  name_of = dict(enumerate(tree.names)) | {-1: tree.root_name}
  edges = [f"{name_of[int(parent)]},{name}" for parent, name in zip(tree.parent, tree.names, strict=True)]
  ids = [f",ROOT,{tree.root_name}"] + [
    f"{'ROOT' if parent == -1 else parent},{node},{tree.names[node]}" for node, parent in enumerate(tree.parent)
  ]
  return {
    "levels": builders.from_levels(write(folder, "levels.csv", "\n".join([header, *map(",".join, leaves)]))),
    "edges": builders.from_edges(write(folder, "edges.csv", "\n".join(["parent,child", *edges]))),
    "edges without a header": builders.from_edges(write(folder, "bare.csv", "\n".join(edges))),
    "edges of ids": builders.from_edges(write(folder, "ids.csv", "\n".join(["parent,child,name", *ids]))),
    "nested": builders.from_nested(write(folder, "nested.json", json.dumps(nested(tree)))),
    "named": builders.from_nested(write(folder, "named.json", json.dumps(named(tree), indent=1))),
    "paths": builders.from_paths(leaves + leaves[:1]),
  }


@pytest.mark.parametrize("seed", range(4))
def test_builders_agree(tmp_path, seed):
  rng = np.random.default_rng(seed)
  tree = random_tree(rng, depth=2 + seed, most_children=4)
  while len(tree.children(-1)) < 2:
    tree = random_tree(rng, depth=2 + seed, most_children=4)
  for form, built in forms_of(tree, tmp_path).items():
    without_ids = LabelTree.from_children(built.names, np.diff(built.child_offsets), built.root_name)
    assert without_ids == tree, form
    expected_ids = [str(i) for i in range(tree.num_nodes)] if form == "edges of ids" else []
    assert list(built.ids or []) == expected_ids


def test_folders_agree_with_the_rest_when_sorted(tmp_path, toy_tree):
  for leaf in toy_tree.leaves:
    (tmp_path / "photos").joinpath(*toy_tree.path_names(int(leaf))).mkdir(parents=True)
  (tmp_path / "photos" / ".hidden").mkdir()
  (tmp_path / "photos" / "animal" / "notes.txt").write_text("not a label")
  tree = builders.from_folder(tmp_path / "photos")
  assert list(tree.names) == ["animal", "thing", "cat", "dog", "cup", "basenji", "leonberg"]
  assert tree.root_name == "root"  # not where the photos happen to lie


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("toy.csv", TOY_LEVELS),
    ("toy.csv", TOY_LEVELS.split("\n", 1)[1]),  # no header: `animal` comes again in its column
    ("toy.csv", "\ufeff" + TOY_LEVELS.replace("\n", "\r\n")),
    ("toy.csv", TOY_LEVELS.replace("thing,cup", "\n , ,\n\ufeffthing , cup,,,")),
    ("toy.csv", TOY_EDGES),
    ("toy.csv", TOY_EDGES.replace("root,", ",")),
    ("toy.CSV", "\ufeff" + TOY_EDGES.replace("parent,child", "Parent, Child")),
    ("toy.csv", TOY_LEVELS.replace(",", ";")),
    ("toy.tsv", "\ufeff" + TOY_LEVELS.replace(",", "\t").replace("\n", "\r\n")),
    ("toy.csv", '\r\n;;\r\n"class; or, so";"a ""kind""\t";"breed"\n' + TOY_LEVELS.split("\n", 1)[1].replace(",", ";")),
    ("toy.csv", TOY_EDGES.replace(",", ";")),
    ("toy.csv", TOY_EDGES.replace("root,", ",").replace(",", "\t")),
    ("toy.json", json.dumps(TOY_NESTED)),
    ("toy.json", "\ufeff" + json.dumps({"root": TOY_NESTED}, indent=2)),
    ("toy.json", json.dumps({"animal": [{"dog": ["basenji", "leonberg"]}, "cat"], "thing": {"cup": {}}})),
  ],
)
def test_the_toy_tree_in_its_spellings(tmp_path, toy_tree, name, text):
  assert open_tree(write(tmp_path, name, text)) == toy_tree


def test_folders_and_images_come_sorted(tmp_path):
  names = [f"{i:02}" for i in np.random.default_rng(0).permutation(20)]
  for name in names:
    (tmp_path / name).mkdir()
    (tmp_path / f"{name}.png").touch()
  top, *below = walk(tmp_path)
  assert [folder.parts for folder in below] == [(name,) for name in sorted(names)]
  assert top.images == tuple(f"{name}.png" for name in sorted(names))


def test_a_saved_tree_opens_by_its_content(tmp_path, toy_tree):
  assert open_tree(write(tmp_path, "tree.json", toy_tree.to_json())) == toy_tree
  with pytest.raises(TreeError, match="checksum"):
    open_tree(write(tmp_path, "tree.json", toy_tree.to_json().replace("basenji", "boxer")))


def test_a_sole_top_with_children_is_the_root():
  tree = builders.from_paths([("entity", "a"), ("entity", "b", "c")])
  assert tree.root_name == "entity" and list(tree.names) == ["a", "b", "c"]
  assert builders.from_paths([("a",)]).root_name == "root"


def test_edges_keep_the_order_in_which_they_come(tmp_path):
  tree = builders.from_edges(write(tmp_path, "e.csv", "parent,child\ndog,basenji\nr,cat\nr,dog\ndog,akita\n"))
  assert list(tree.names) == ["cat", "dog", "basenji", "akita"]


def test_what_is_not_the_delimiter_of_the_first_row_stays_in_names(tmp_path):
  text = "kind;name\nx;a, b\nx;c\td\ny;'e, f'\n"
  assert list(builders.from_levels(write(tmp_path, "l.csv", text)).names) == ["x", "y", "a, b", "c\td", "'e, f'"]
  assert list(builders.from_levels(write(tmp_path, "l.csv", "name\na; b\nc\n")).names) == ["a; b", "c"]


def test_cells_may_hold_commas_quotes_and_lines(tmp_path):
  tree = builders.from_levels(write(tmp_path, "q.csv", 'a,b\n"x, y","say ""z"""\n"x, y","two\nlines"\nw,\n'))
  assert list(tree.names) == ["x, y", "w", 'say "z"', "two\nlines"]


@pytest.mark.parametrize(
  ("name", "data", "message"),
  [
    ("t.csv", b"a,b\nx,y\nx,\xe9t\xe9\n", r"t\.csv:3: byte 0xe9 is not UTF-8"),
    ("t.csv", "parent,child\na,b".encode("utf-16"), r"t\.csv:1: byte 0xff"),
    ("t.csv", b'a,b\nx,"y\nz,w\n', r"t\.csv:2: not CSV"),
    ("t.csv", b'a,b\nx,"y"z\n', r"t\.csv:2: not CSV"),
    ("t.csv", b"a,b\nx," + b"y" * 200_000, r"t\.csv:2: not CSV"),
    ("t.csv", b"\n\na;b,c\nx;y,z\n", r"t\.csv:3: a comma and a semicolon could part the cells of the first row"),
    ("t.csv", b"a,b\tc\nx,y\n", r"t\.csv:1: a comma and a tab could part"),
    ("t.csv", b"a;b\nx;y;z\n", r"t\.csv:2: .*quote names that hold a semicolon"),
    ("t.csv", b"", "empty"),
    ("t.csv", b"a,b\n", "empty"),
    ("t.json", b"{}", "empty"),
    ("t.json", b'{"a": \xff}', r"t\.json:1: byte 0xff"),
    ("t.json", b'{"a":\n{"b" 1}}', r"t\.json:2: not JSON"),
    ("t.json", b'{"a":\n{"b": 1}}', r"t\.json:2: '1' is no part of a tree"),
    ("t.json", b'["a",\n"b", ["c"]]', r"t\.json:2: .* is no part of a tree"),
    ("t.json", b'{"name": "a", "children": {"b": {}}}', r"t\.json:1: 'children'"),
    ("t.json", b'{"name": "a",\n"name": "b"}', r"t\.json:1: 'a': a key stands twice"),
    ("t.json", b'{"a":\n"b"}', r"t\.json:1: 'b' is no part of a tree"),
    ("t.json", b'{"name": "a",\n"id": "b"}', r"t\.json:2: 'id'"),
    ("t.json", b"[" * 300_000, r"t\.json:1: nested too deeply"),
    ("t.json", b'{"a":\n' * 300_000, r"t\.json:203: nested too deeply"),
    ("t.json", b'"' + b'\\"' * 300_000, "not JSON"),
    ("t.json", b"[" + b"9" * 5000 + b"]", "not JSON"),
    ("t.txt", b"a", r"ends in \.csv or \.json"),
  ],
)
def test_files_that_hold_no_tree_are_refused(tmp_path, name, data, message):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(TreeError, match=message) as error:
    open_tree(tmp_path / name)
  assert name in str(error.value)


def test_what_does_not_exist_is_refused_with_the_choices(tmp_path):
  with pytest.raises(TreeError, match="cifar100, cifar100_wordnet"):
    open_tree("cifar1000")
  with pytest.raises(TreeError, match="choose from auto, catalog"):
    open_tree("cifar100", "xml")
  with pytest.raises(TreeError, match="not a folder"):
    builders.from_folder(tmp_path / "missing")
  with pytest.raises(TreeError, match="cannot be read"):
    builders.from_levels(tmp_path)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_has_a_bound(tmp_path, depth):
  names = [f"n{i}" for i in range(depth)]
  text = ""
  for name in reversed(names):
    text = f'{{"name": "{name}", "children": [{text}]}}'
  chain = write(tmp_path, "t.json", f'["twig", {text}]')
  pairs = "\n".join(f"{a},{b}" for a, b in zip(["root", *names], names, strict=False))
  edges = write(tmp_path, "t.csv", f"root,twig\n{pairs}")
  if depth <= MAX_DEPTH:
    assert open_tree(chain) == builders.from_edges(edges)
    assert open_tree(chain).depth == depth
  else:
    for source, format in ((chain, "nested"), (edges, "edges")):
      with pytest.raises(TreeError, match=f"a tree has at most {MAX_DEPTH} levels"):
        open_tree(source, format)


def test_links_are_followed_and_loops_do_not_hang(tmp_path):
  photos = tmp_path / "photos"
  (photos / "dog").mkdir(parents=True)
  (tmp_path / "elsewhere" / "tabby").mkdir(parents=True)
  os.symlink(tmp_path / "elsewhere", photos / "cat")
  os.symlink("itself", photos / "itself")
  os.symlink("nowhere", photos / "broken")
  tree = builders.from_folder(photos)
  assert list(tree.names) == ["cat", "dog", "tabby"]
  os.symlink(photos, photos / "dog" / "again")
  with pytest.raises(TreeError, match="cycle: 'again'"):
    builders.from_folder(photos)
  (photos / "dog" / "again").unlink()
  os.symlink(photos / "cat", photos / "dog" / "cat")
  with pytest.raises(TreeError, match=r"two parents: 'cat' .*'cat'"):
    builders.from_folder(photos)


@pytest.mark.slow
def test_a_million_nodes(tmp_path):
  build_and_reload(tmp_path, 1_000_000)


def test_fifty_thousand_nodes(tmp_path):
  build_and_reload(tmp_path, 50_000)


def build_and_reload(tmp_path, n):
  edges = "\n".join(f"node number {(i - 1) // 10},node number {i}" for i in range(1, n + 1))
  tree = builders.from_edges(write(tmp_path, "big.csv", "parent,child\n" + edges))
  np.testing.assert_array_equal(tree.parent, (np.arange(n) // 10) - 1)
  assert tree.names[n - 1] == f"node number {n}"
  again = LabelTree.load(write(tmp_path, "big.json", tree.to_json()))
  assert again == tree
  assert again.nbytes <= 100 * n
