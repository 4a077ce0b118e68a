"""Drawings of trees, and the command line that makes them."""

from html.parser import HTMLParser

import numpy as np
import pytest

from hierjax.cli import main as cli
from hierjax.tree.builders import from_paths
from hierjax.tree.render import below, fitting_depth, render
from random_trees import random_tree


def main(*argv):
  return cli.main(["data", *map(str, argv)])


def test_a_drawing(toy_tree):
  images = np.array([1, 0, 5, 2, 3, 4, 0])
  assert list(render(toy_tree, images)) == [
    "root  4 leaves, 15 images, 7 nodes, 3 levels",
    "├── animal  3 leaves, 12 images (1 ends here)",
    "│   ├── dog  2 leaves, 9 images (5 end here)",
    "│   │   ├── basenji  4 images",
    "│   │   └── leonberg  0 images",
    "│   └── cat  2 images",
    "└── thing  1 leaf, 3 images",
    "    └── cup  3 images",
  ]


def test_a_drawing_cut_short(toy_tree):
  assert list(render(toy_tree, depth=2, max_children=1)) == [
    "root  4 leaves, 7 nodes, 3 levels",
    "├── animal  3 leaves",
    "│   ├── dog  2 leaves",
    "│   └── ... 1 more",
    "└── ... 1 more",
  ]


def test_one_of_each():
  assert next(render(from_paths([("a",)]), np.array([1]))) == "root  1 leaf, 1 image, 1 node, 1 level"


def test_names_are_drawn_without_control_characters():
  assert "\x1b" not in "".join(render(from_paths([("a\x1b[2J", "b\nc"), ("d",)])))


class Items(HTMLParser):
  """The text of each item of nested lists, with how deep it is."""

  def __init__(self, text):
    super().__init__()
    self.open, self.found = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "li" in self.open:
      self.found.append((self.open.count("li") - 1, data))


def test_html_nests_each_node_below_its_parent(rng):
  tree = random_tree(rng, depth=5, most_children=3)
  parsed = Items(tree._repr_html_())
  assert parsed.open == []
  depth_of = {name: int(level) for name, level in zip(tree.names, tree.level, strict=True)}
  assert sorted(parsed.found) == sorted((depth_of[name], name) for name in tree.names)


def test_twenty_children_of_a_node_are_drawn_where_no_number_is_given():
  lines = list(render(from_paths([(f"n{i}",) for i in range(30)])))
  assert len(lines) == 1 + 20 + 1 and lines[-1].endswith("... 10 more")


def test_html_is_escaped_and_cut_at_200_nodes():
  names = ["<script>", *(f"n{i}" for i in range(300))]
  parsed = Items(from_paths([(name,) for name in names])._repr_html_())
  assert parsed.found[0] == (0, "<script>") and parsed.found[-1] == (0, "... 101 more") and len(parsed.found) == 201


def test_every_node_is_drawn_once_below_its_parent(rng):
  tree = random_tree(rng, depth=5, most_children=3)
  depth_of = {name: int(level) for name, level in zip(tree.names, tree.level, strict=True)}
  lines = list(render(tree, depth=tree.depth, max_children=tree.max_children))[1:]
  drawn = [line.split("── ")[1].split("  ")[0] for line in lines]
  assert sorted(drawn) == sorted(tree.names)
  assert [line.index("── ") // 4 for line in lines] == [depth_of[name] for name in drawn]


def test_sums_below_are_those_of_the_paths(rng):
  tree = random_tree(rng, depth=5, most_children=3)
  at_node = rng.integers(0, 9, tree.num_nodes)
  expected = np.zeros(tree.num_nodes + 1, np.int64)
  for node in range(tree.num_nodes):
    for above in (-1, *tree.path(node)):
      expected[above] += at_node[node]
  np.testing.assert_array_equal(below(tree, at_node), expected)


def test_big_trees_are_cut_to_the_levels_that_fit():
  tree = from_paths([(f"{i}", f"{i}.{j}", f"{i}.{j}.{k}") for i in range(10) for j in range(10) for k in range(10)])
  assert fitting_depth(tree) == 2
  assert fitting_depth(from_paths([(f"{i}",) for i in range(500)])) == 1
  assert len(list(render(tree))) == 1 + 10 + 100


def test_show(tmp_path, capsys):
  path = tmp_path / "t.csv"
  path.write_text("a,b\nanimal,dog\nanimal,cat\nthing,cup\n")
  (tmp_path / "labels.csv").write_text("image,label\n1.jpg,dog\n2.jpg,animal\n")
  assert main("show", path, "--labels", tmp_path / "labels.csv") == 0
  assert "├── animal  2 leaves, 2 images (1 ends here)\n" in capsys.readouterr().out
  assert main("show", "cifar100", "--max-children", 2, "--depth", 1) == 0
  assert capsys.readouterr().out.splitlines()[-1] == "└── ... 18 more"
  assert main("show", tmp_path / "none.csv") == 1
  assert "none.csv" in capsys.readouterr().err


def test_check(tmp_path, capsys):
  path = tmp_path / "e.csv"
  path.write_text("parent,child\nroot,a\nroot,b\na,c\n")
  assert main("check", path) == 0
  assert capsys.readouterr().out.splitlines()[-1] == f"{path}: 0 errors, 1 warning"
  path.write_text("parent,child\nroot,a\nroot,b\nb,a\n")
  assert main("check", path) == 1
  out = capsys.readouterr().out
  assert out.startswith(f"{path}:4: error: two parents: 'a'") and out.endswith("1 error, 0 warnings\n")
  path.write_bytes(b"parent,child\nroot,\xff\n")
  assert main("check", path) == 1
  assert "e.csv:2" in capsys.readouterr().err


@pytest.mark.parametrize(
  "argv", [("labels.csv",), ("--labels", "labels.csv"), ("labels.csv", "--labels", "labels.csv")]
)
def test_the_tree_of_a_file_of_labels(tmp_path, capsys, monkeypatch, argv):
  monkeypatch.chdir(tmp_path)
  for header in ("image,a,b", "file;a;b", "Filename,split,a,b"):
    rows = (header, "1.jpg,animal,dog", "2.jpg,animal,cat", "3.jpg,thing,cup", "4.jpg,thing,bed")
    text = "\n".join(rows).replace(",", ";" if ";" in header else ",")
    text = text.replace(".jpg,", ",test,") if "split" in header else text
    (tmp_path / "labels.csv").write_text(text)
    assert main("check", *argv) == 0
    said, *_, counted = capsys.readouterr().out.splitlines()
    assert "labels.csv" in said and "0 errors" in counted
    assert main("show", *argv) == 0
    assert capsys.readouterr().out.startswith(
      "root  4 leaves, 4 images, 6 nodes, 2 levels\n├── animal  2 leaves, 2 images"
    )


@pytest.mark.parametrize(
  "argv",
  [("show", "cifar100", "--depth", "0"), ("check",), ("check", "--images", "a"), ("check", "x", "--format", "y")],
)
def test_bad_arguments_are_refused(argv, capsys):
  assert main(*argv) == 2
  assert "error" in capsys.readouterr().err
