"""The linter: each fault is found where it is, and nothing else is."""

import numpy as np
import pytest

from hierjax.tree.checks.findings import FaultyTree, Finding
from hierjax.tree.checks.lint import lint
from hierjax.tree.image_counts import count_images
from hierjax.tree.label_tree import LabelTree, TreeError
from hierjax.tree.open_tree import open_tree
from hierjax.tree.readers import folders

EDGES = "parent,child\nroot,animal\nroot,thing\nanimal,dog\nanimal,cat\nthing,cup\nthing,bed\n"
LEVELS = "a,b\nanimal,dog\nanimal,cat\nthing,cup\nthing,bed\n"
NESTED = '{"animal": ["dog",\n"cat"],\n"thing": ["cup",\n"bed"]}'
IDS = "parent,child,name\n,0,all\n0,1,animal\n0,2,thing\n1,3,dog\n1,4,cat\n2,5,cup\n2,6,bed\n"


def write(tmp_path, name, text):
  path = tmp_path / name
  path.write_text(text, encoding="utf-8")
  return path


def brief(findings):
  return [(f.severity, f.kind, f.line, f.node) for f in findings]


@pytest.mark.parametrize("name,text", [("e.csv", EDGES), ("l.csv", LEVELS), ("n.json", NESTED), ("i.csv", IDS)])
def test_a_good_tree_has_no_findings(tmp_path, name, text):
  assert lint(write(tmp_path, name, text)) == []


@pytest.mark.parametrize(
  ("name", "text", "expected"),
  [
    ("e.csv", EDGES + "x,y\ny,z\ny,w\nz,x\n", ("error", "cycle", 11, "x")),
    ("e.csv", EDGES + "x,x\n", ("error", "cycle", 8, "x")),
    ("e.csv", EDGES + "thing,dog\n", ("error", "two parents", 8, "dog")),
    ("e.csv", EDGES + "animal,dog\n", ("error", "duplicate name among siblings", 8, "dog")),
    ("e.csv", EDGES + "plant,moss\nplant,fern\n", ("error", "orphan", 8, "plant")),
    ("e.csv", EDGES.replace("root,", ",") + "plant,moss\nplant,fern\n", ("error", "orphan", 8, "plant")),
    ("e.csv", EDGES.replace("root,", "all,") + "plant,moss\nplant,fern\n", ("warning", "orphan", 8, "plant")),
    ("e.csv", EDGES + "animal,\n", ("error", "blank in mid-path", 8, "animal")),
    ("e.csv", EDGES + "animal,fox,red\n", ("error", "ragged row", 8, "animal")),
    ("e.csv", EDGES + "dog,basenji\n", ("warning", "single-child chain", 4, "dog")),
    ("l.csv", LEVELS + "\nanimal,dog\n", ("error", "duplicate name among siblings", 7, "dog")),
    ("l.csv", LEVELS + ",fox\n", ("error", "blank in mid-path", 6, "fox")),
    ("l.csv", LEVELS + "animal,fox,red\n", ("error", "ragged row", 6, "red")),
    ("l.csv", LEVELS + "plant,moss\n", ("warning", "single-child chain", 6, "plant")),
    ("l.csv", LEVELS + "animal,Dog\n", ("warning", "names that look alike", 6, "Dog")),
    ("e.csv", EDGES + "thing,\u010c up\n", ("warning", "names that look alike", 8, "\u010c up")),
    (
      "n.json",
      NESTED.replace('"bed"', '"c\\u0327\\u00fb p"'),
      ("warning", "names that look alike", 4, "\u00e7\u00fb p"),
    ),
    ("n.json", NESTED.replace("cat", "dog"), ("error", "duplicate name among siblings", 2, "dog")),
    ("n.json", NESTED.replace("thing", "animal"), ("error", "duplicate name among siblings", 3, "animal")),
    ("n.json", NESTED.replace("cat", " "), ("error", "blank in mid-path", 2, "animal")),
    ("n.json", NESTED.replace("cat", r"\ud800"), ("error", "encoding", 2, "\ud800")),
    ("n.json", NESTED.replace('"bed"', '{"bed": ["bunk"]}'), ("warning", "single-child chain", 4, "bed")),
    ("i.csv", IDS + "2,7,cup\n", ("error", "duplicate name among siblings", 9, "cup [7]")),
    ("i.csv", IDS + "8,7,moss\n8,9,fern\n", ("error", "orphan", 9, "8")),
    ("i.csv", IDS + "1,5,cup\n", ("error", "two parents", 9, "5")),
  ],
)
def test_each_fault_is_found_alone_where_it_is(tmp_path, name, text, expected):
  path = write(tmp_path, name, text)
  findings = lint(path)
  assert brief(findings) == [expected]
  assert findings[0].file == str(path)
  assert f"{path}:{expected[2]}: {expected[0]}: {expected[1]}" in str(findings[0])


def test_lines_are_counted_through_cells_of_several_and_blank_ones(tmp_path):
  findings = lint(write(tmp_path, "l.csv", LEVELS + '"plant\n\nor so",moss\r\n\n"plant\n\nor so",fern\nfish,,eel\n'))
  assert brief(findings) == [("error", "blank in mid-path", 13, "eel")]
  nested = '{"children": [\n"a", {"children":\n["c", "d"], "name":\n"b"},\n"a"], "name": "all"}'
  assert brief(lint(write(tmp_path, "n.json", nested))) == [("error", "duplicate name among siblings", 5, "a")]
  assert open_tree(write(tmp_path, "n.json", nested.replace('"a"]', '"e"]'))).find(("b", "d")) == 4


def test_a_leaf_and_its_parent_of_one_name_are_told_the_way_out_which_is_one(tmp_path):
  found, *_ = lint(write(tmp_path, "e.csv", "parent,child\nroot,decapods\ndecapods,decapods\ndecapods,crab\n"))
  assert "two ids, in rows `parent id,child id,name`" in found.message and "`decapods,decapods`" in found.message
  by_ids = open_tree(write(tmp_path, "i.csv", "parent,child,name\nroot,1,decapods\n1,2,decapods\n1,3,crab\n"))
  columns = open_tree(write(tmp_path, "p.csv", "group,kind\ndecapods,decapods\ndecapods,crab\nfish,cod\n"))
  assert by_ids.names[0] == "decapods" and columns.find(["decapods", "decapods"]) > 0


def test_the_names_of_a_cycle_and_of_a_chain_are_told(tmp_path):
  (cycle,) = lint(write(tmp_path, "e.csv", EDGES + "x,y\ny,z\nz,x\n"))
  assert "x > y > z > x" in cycle.message
  (chain,) = lint(write(tmp_path, "e.csv", EDGES + "dog,basenji\nbasenji,Fido\n"))
  assert "dog > basenji > Fido" in chain.message


def test_chains_are_one_finding_that_counts_them(tmp_path):
  rows = [f"family {i},genus {i},species {i}" for i in range(9)] + ["family,a,", "family,b,"]
  (chains,) = lint(write(tmp_path, "l.csv", "\n".join(["1,2,3", *rows])))
  names = ", ".join(f"'family {i}'" for i in range(1, 6))
  path, told = "family 0 > genus 0 > species 0", "there is nothing to choose there; so have 8 more"
  assert chains.message == f"has a single child: {path}; {told}: {names}, ..."
  (chains,) = lint(write(tmp_path, "l.csv", "\n".join(["1,2,3", *rows[:2]])))
  assert chains.message.endswith("; so has 1 more: 'family 1'")


def test_names_that_look_alike_below_other_parents_are_fine(tmp_path):
  assert lint(write(tmp_path, "l.csv", LEVELS.replace("bed", "Dog"))) == []
  assert lint(write(tmp_path, "l.csv", LEVELS.replace("cup", "\u304b\u304d").replace("bed", "\u304b\u304e"))) == []


def test_two_cycles_are_two_findings_and_what_hangs_from_them_is_none(tmp_path):
  findings = lint(write(tmp_path, "e.csv", EDGES + "x,y\ny,x\ny,z\nz,w\np,q\nq,p\n"))
  assert [f.kind for f in findings] == ["cycle", "cycle"]


def test_errors_stop_a_build_with_all_of_them_listed_and_warnings_do_not(tmp_path):
  path = write(tmp_path, "e.csv", EDGES + "thing,dog\nx,x\nanimal,\ndog,basenji\n")
  with pytest.raises(FaultyTree) as error:
    open_tree(path)
  assert [f.kind for f in error.value.findings] == ["two parents", "cycle", "blank in mid-path"]
  assert all(kind in str(error.value) for kind in ("two parents", "blank in mid-path", "cycle"))
  assert [f.severity for f in lint(path)] == ["error"] * 3 + ["warning"]
  assert open_tree(write(tmp_path, "e.csv", EDGES + "dog,basenji\n")).depth == 3


def test_a_flood_of_errors_is_counted(tmp_path):
  path = write(tmp_path, "e.csv", EDGES + "thing,dog\n" * 100)
  with pytest.raises(FaultyTree, match="and 80 more errors"):
    open_tree(path)


def test_findings_escape_what_a_terminal_would_obey():
  text = str(Finding("error", "cycle", "f\x1b.csv", 1, "a\x1b[2J", "b\nc"))
  assert text.isprintable()


def photos(tmp_path, counts):
  for label, number in counts.items():
    (tmp_path / label).mkdir(parents=True, exist_ok=True)
    for i in range(number):
      (tmp_path / label / f"{i}.JPG").touch()
  return tmp_path


def test_images_in_folders(tmp_path):
  tree = write(tmp_path, "l.csv", LEVELS)
  root = photos(tmp_path / "photos", {"animal/dog": 2, "animal/cat": 1, "thing/cup": 1, "thing/bed": 0})
  (root / "thing" / "bed" / "notes.txt").touch()
  (root / "thing" / "bed" / ".0.jpg").touch()
  assert brief(lint(tree, images=root)) == [("warning", "leaf without images", 5, "thing/bed")]
  photos(root, {"thing/bed": 1, "animal": 1, "thing/shelf": 1})
  (finding,) = lint(tree, images=root)
  assert brief([finding]) == [("error", "image whose label is not in the tree", None, "thing/shelf")]
  assert finding.file == str(root / "thing" / "shelf") and "0.JPG" in finding.message
  count = count_images(open_tree(tree), tree, root, None)
  assert count.at_node.tolist() == [1, 0, 2, 1, 1, 1]  # animal, thing, dog, cat, cup, bed


def test_images_of_a_tree_of_folders(tmp_path):
  root = photos(tmp_path, {"animal/dog": 1, "animal/cat": 0, "thing/cup": 1, "thing/bed": 1})
  assert brief(lint(root)) == [("warning", "leaf without images", None, "animal/cat")]
  (root / "stray.png").touch()
  assert ("error", "image whose label is not in the tree", None, "root") in brief(lint(root))


def test_folders_of_splits_are_not_labels(tmp_path):
  root = photos(tmp_path, {"train/dog": 2, "train/cat": 1, "val/cat": 3, "test/dog": 1})
  assert lint(root) == []
  tree = open_tree(root)
  assert list(tree.names) == ["cat", "dog"]
  assert count_images(tree, root, None, None).at_node.tolist() == [4, 3]
  photos(root, {"test/fox": 1})
  assert brief(lint(root)) == [("error", "image whose label is not in the tree", None, "fox")]
  (root / "car").mkdir()
  with pytest.raises(TreeError, match=r"'test', 'train', 'val' are called as splits, and 'car' beside them is not"):
    open_tree(root)


def test_images_without_a_folder_of_their_label(tmp_path):
  (finding,) = lint(photos(tmp_path, {".": 1}))
  assert finding.kind == "empty" and "images must lie in folders named as their labels" in finding.message


def test_folders_of_images_that_cannot_be_read(tmp_path, monkeypatch):
  tree = write(tmp_path, "l.csv", "a\ndog\ncat\n")
  root = photos(tmp_path / "photos", {"dog": 1, "cat": 1})
  entries = folders._entries

  def locked(path):
    if path.endswith("cat"):
      raise PermissionError(13, "Permission denied")
    return entries(path)

  monkeypatch.setattr(folders, "_entries", locked)
  assert ("error", "unreadable", None, "cat") in brief(lint(tree, images=root))


def test_folders_alone_are_a_tree_without_findings(tmp_path):
  assert lint(photos(tmp_path, {"animal/dog": 0, "animal/cat": 0, "cup": 0})) == []


def test_images_in_a_csv(tmp_path):
  tree = write(tmp_path, "l.csv", LEVELS)
  paths = "image,label\n1.jpg,animal/dog\n2.jpg,root/animal/cat\n3.jpg,cup\n4.jpg,thing\n"
  levels = "image,a,b\n1.jpg,animal,dog\n2.jpg,animal,cat\n3.jpg,thing,cup\n4.jpg,thing,\n"
  splits = "image,split,label\n1.jpg,train,dog\n2.jpg,test,animal/cat\n3.jpg,Test,thing/cup,\n4.jpg,val,thing\n"
  for text in (paths, levels, splits):
    findings = lint(tree, labels=write(tmp_path, "labels.csv", text))
    assert brief(findings) == [("warning", "leaf without images", 5, "thing/bed")]
    gap = "train," if text == splits else ""
    rows = f'"6, big.jpg",{gap}bed\n7.jpg,{gap}fox\n8.jpg,{gap}animal/fox\n9.jpg,{gap}\n'
    labels = write(tmp_path, "labels.csv", text + rows)
    findings = lint(tree, labels=labels)
    missing = [(7, "fox"), (8, "animal/fox"), (9, "")]
    expected = [("error", "image whose label is not in the tree", line, node) for line, node in missing]
    assert brief(findings) == expected
    assert all(f.file == str(labels) for f in findings) and "7.jpg" in findings[0].message


def test_rows_of_a_csv_that_say_nothing(tmp_path):
  tree = write(tmp_path, "l.csv", LEVELS)
  findings = lint(tree, labels=write(tmp_path, "labels.csv", "image,a,b\n,animal,dog\n1.jpg\n2.jpg,,dog\n"))
  messages = [finding.message for finding in findings if finding.severity == "error"]
  for message, fault in zip(messages, ("no image", "no label", "a blank in mid-label"), strict=True):
    assert message.endswith(f"the row has {fault}")


def test_images_of_a_csv_that_are_no_files(tmp_path):
  names = [f"{i}.jpg" for i in range(8)]
  text = "image,a\n" + "".join(
    f"{name},{label}\n" for name in names for label in ("dog", "cat")[int(name[0]) % 2 :][:1]
  )
  labels = write(tmp_path, "labels.csv", text + "0.jpg,dog\n")
  assert lint(labels) == []
  (finding,) = lint(labels, images=tmp_path)
  assert brief([finding]) == [("error", "missing image", 2, "0.jpg")]
  others = ", ".join(f"'{i}.jpg' (line {i + 2})" for i in range(1, 6))
  assert finding.message == f"is no file below {str(tmp_path)!r}, nor are 7 more: {others} and 2 more"
  for name in names:
    (tmp_path / name).touch()
  assert (
    lint(labels, images=tmp_path) == lint(write(tmp_path, "t.csv", "a\ndog\ncat\n"), "auto", tmp_path, labels) == []
  )


def test_images_of_a_csv_with_several_labels(tmp_path):
  text = "image,a,b\n1.jpg,animal,dog\n2.jpg,animal,cat\n./1.jpg,thing,cup\n1.jpg,animal,dog\n3.jpg,thing,bed\n"
  labels = write(tmp_path, "labels.csv", text)
  (finding,) = lint(labels)
  assert brief([finding]) == [("warning", "several labels", 4, "1.jpg")]
  message = "has 2 labels: animal/dog (line 2), thing/cup (line 4)"
  assert finding.message == f"{message}; heads that predict one path refuse them"
  above = text + "2.jpg,animal\n"  # is left out
  assert lint(write(tmp_path, "labels.csv", above)) == [finding]
  (finding,) = lint(write(tmp_path, "labels.csv", above + "2.jpg,thing,cup\n"))
  message += "; '2.jpg' has 2 labels: animal/cat (line 3), thing/cup (line 8)"
  assert finding.message == f"{message}; heads that predict one path refuse them"


def test_rows_of_labels_that_are_no_tree(tmp_path):
  findings = lint(write(tmp_path, "labels.csv", "image,split,a\n1.jpg,train\n2.jpg,tset,dog\n"))
  assert [(f.severity, f.line) for f in findings] == [("error", 2), ("error", 3)]
  assert findings[0].message == "the row has no label" and "'tset'" in findings[1].message
  with pytest.raises(TreeError, match=r"labels\.csv: it has a header and no row"):
    lint(write(tmp_path, "labels.csv", "image,label\n"))


def test_a_saved_tree_is_linted_too(tmp_path):
  tree = LabelTree.from_children(["a", "b", "c"], np.array([2, 1, 0, 0]))
  assert brief(lint(write(tmp_path, "t.json", tree.to_json()))) == [("warning", "single-child chain", None, "a")]
