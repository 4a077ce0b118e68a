"""Folders and files of labels as people have them: their splits and columns are found, or the run stops and asks."""

import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from hierjax.data.config import DataConfig
from hierjax.data.open_source import open_source
from hierjax.data.sources.folders import label_table, tree_of
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError
from hierjax.tree.label_tree import LabelTree
from hierjax.tree.open_tree import open_tree as open_tree_file


def write(path, shade=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(path)


def config_of(root, **changes):
  values = {"name": "folder", "root": str(root), "resize": 4, "crop": 4, "threads": 2}
  return DataConfig(**values | changes)


def paths(tree):
  return {tree.path_text(node) for node in range(tree.num_nodes)}


# Splits.


def split_tree(root, names, labels=("cat", "dog")):
  for split, count in zip(names, (3, 2, 1), strict=False):
    for label in labels:
      for i in range(count):
        write(root / split / label / f"{split}{i}.png")
  return root


@pytest.mark.parametrize(
  ("names", "found"),
  [
    (("train", "valid", "test"), (6, 4, 2)),
    (("Train", "Test"), (6, None, 4)),
    (("TRAIN", "VAL"), (6, 4, None)),
    (("Training", "Testing"), (6, None, 4)),
    (("training", "validation"), (6, 4, None)),
    (("train", "eval"), (6, 4, None)),
    (("train", "dev", "test"), (6, 4, 2)),
  ],
)
def test_words_for_splits_in_any_case_are_splits(tmp_path, names, found):
  config = config_of(split_tree(tmp_path, names))
  (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
  write(tmp_path / names[0] / "cat" / "@eaDir" / "thumb.jpg")
  tree = open_tree(TreeConfig(), config)
  assert paths(tree) == {"cat", "dog"}
  test = open_source(config, tree, "test")
  assert (None if test is None else len(test)) == found[2]
  sizes = [len(open_source(config, tree, split)) for split in ("train", "validation")]
  assert sizes == list(found[:2]) if found[1] else sum(sizes) == found[0]
  assert paths(open_tree_file(tmp_path)) == {"cat", "dog"}


@pytest.mark.parametrize("beside", ["unlabeled", "extra", "iconic-images"])
def test_folders_beside_those_of_splits_are_asked_about(tmp_path, beside):
  write(split_tree(tmp_path, ("Train", "test")) / beside / "0.png")
  with pytest.raises(UserError) as error:
    open_tree(TreeConfig(), config_of(tmp_path))
  for fact in ("'Train', 'test'", repr(beside), f"config.data.ignore = ({beside},)", "config.data.folders = labels"):
    assert fact in str(error.value)
  assert paths(open_tree(TreeConfig(), config_of(tmp_path, ignore=(beside,)))) == {"cat", "dog"}
  labels = open_tree(TreeConfig(), config_of(tmp_path, folders="labels"))
  assert {"Train", "test", beside, "test/dog"} <= paths(labels)


def test_what_cannot_be_told_about_splits_is_asked(tmp_path):
  split_tree(tmp_path / "two", ("train", "val", "validation"))
  config = config_of(tmp_path / "two")
  tree = open_tree(TreeConfig(), config)
  with pytest.raises(UserError, match=r"'val' and 'validation' .*config\.data\.validation_split"):
    open_source(config, tree, "train")
  named = config_of(tmp_path / "two", validation_split="val")
  assert len(open_source(named, tree, "validation")) == 4
  split_tree(tmp_path / "none", ("val", "test"))
  with pytest.raises(UserError, match=r"'test', 'val' .*config\.data\.train_split"):
    open_tree(TreeConfig(), config_of(tmp_path / "none"))


@pytest.mark.parametrize("key", ["validation_split", "test_split"])
def test_a_run_is_not_judged_on_the_images_that_it_trains_on(tmp_path, key):
  config = config_of(split_tree(tmp_path, ("train", "test")), **{key: "train"})
  with pytest.raises(UserError, match=rf"config\.data\.{key} = 'train'"):
    open_source(config, open_tree(TreeConfig(), config), "train")


# Columns.


def table(tmp_path, text, **changes):
  (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
  config = config_of(tmp_path, labels="labels.csv", on_bad_image="skip", **changes)
  return config, label_table(tmp_path / "labels.csv", config)


def rows(found):
  return [(row.image, row.split, row.label) for row in found.rows]


PLAIN = [("a.jpg", "train", ("animal", "cat")), ("b.jpg", "test", ("animal", "dog"))]


@pytest.mark.parametrize(
  "text",
  [
    "image,split,label\na.jpg,train,animal/cat\nb.jpg,test,animal/dog\n",
    "image,label,split\na.jpg,animal/cat,train\nb.jpg,animal/dog,test\n",
    "label,Subset,File Name\nanimal/cat,TRAIN,a.jpg\nanimal/dog,Test,b.jpg\n",
    ",filepath,label,set\n0,a.jpg,animal/cat,train\n1,b.jpg,animal/dog,test\n",
    "Unnamed: 0,path,label,partition\n0,a.jpg,animal/cat,train\n1,b.jpg,animal/dog,test\n",
    "id,img_path,class_path,is_train\n7,a.jpg,animal/cat,1\n9,b.jpg,animal/dog,0\n",
    "photo,label,is_test,width,height\na.jpg,animal/cat,False,640,480\nb.jpg,animal/dog,True,64,48\n",
    "image,label,split,note\na.jpg,animal/cat,train,blurred\nb.jpg,animal/dog,test,\n",
    "image,group,coarse,split\na.jpg,animal,cat,train\nb.jpg,animal,dog,test\n",
    "image,species,family,split\na.jpg,cat,animal,train\nb.jpg,dog,animal,test\n",
    "image,date,photographer,confidence,family,species,split\n"
    "a.jpg,2020-01-02,Ann,0.9,animal,cat,train\nb.jpg,2020-01-02,Ann,0.8,animal,dog,test\n",
    "level_2,image,level_1,split\ncat,a.jpg,animal,train\ndog,b.jpg,animal,test\n",
  ],
)
def test_columns_are_found_by_the_header_in_any_order(tmp_path, text):
  assert rows(table(tmp_path, text)[1]) == PLAIN


def test_a_single_cell_is_a_path_where_other_rows_have_it_and_not_where_the_header_has(tmp_path):
  text = "image,animal,cat\na.jpg,animal,dog\nb.jpg,animal/dog,\nc.jpg,animal/cat,\n"
  found = [row.label for row in table(tmp_path, text, levels=("animal", "cat"))[1].rows]
  assert found == [("animal", "dog"), ("animal", "dog"), ("animal/cat",)]


def test_the_use_of_each_column_is_known(tmp_path):
  _, found = table(tmp_path, "id,image,family,species,split,note\n1,a.jpg,animal,cat,train,x\n")
  assert found.columns.roles == {
    "id": "not used", "image": "image", "family": "level 1", "species": "level 2", "split": "split", "note": "not used"
  }  # fmt: skip


@pytest.mark.parametrize("column", ["numbers", "splits", "texts"])
def test_a_column_that_is_hardly_a_level_is_none_without_being_named(tmp_path, column):
  value = {"numbers": lambda i: i % 4, "splits": lambda i: ("train", "val")[i % 2], "texts": lambda i: f"text {i}"}[
    column
  ]
  lines = [f"{i}.jpg,{('cat', 'dog')[i % 2]},{value(i)}" for i in range(20)]
  text = "\n".join(["image,kind,other", *lines])
  assert {row.label for row in table(tmp_path, text)[1].rows} == {("cat",), ("dog",)}
  named = table(tmp_path, text, levels=("kind", "other"))[1]
  assert named.rows[3].label == ("dog", str(value(3)))
  with pytest.raises(UserError, match=r"config\.data\.levels = \(other,\)"):
    table(tmp_path, text.replace("kind", "note"))


def test_a_named_column_is_the_one_of_that_name_and_else_the_one_of_those_words(tmp_path):
  text = "image,kind,Kind,Other_Kind\na.jpg,cat,dog,fox\n"
  labels = [table(tmp_path, text, levels=(name,))[1].rows[0].label for name in ("kind", " Kind", "other kind")]
  assert labels == [("cat",), ("dog",), ("fox",)]


def test_levels_that_cannot_be_told_are_asked_about(tmp_path):
  text = "image,species,habitat\na.jpg,cat,wood\nb.jpg,dog,field\n"
  with pytest.raises(UserError, match=r"'species', 'habitat' .*config\.data\.levels"):
    table(tmp_path, text)
  assert table(tmp_path, text, levels=("species",))[1].rows[0].label == ("cat",)
  with pytest.raises(UserError, match=r"config\.data\.levels names the column 'genus'"):
    table(tmp_path, text, levels=("genus", "species"))
  crossed = [f"{i}.jpg,{'ab'[i % 2]},{'xyz'[i % 3]}" for i in range(20)]
  with pytest.raises(UserError, match="'one', 'two'"):
    table(tmp_path, "\n".join(["image,one,two", *crossed]))


def test_a_fold_of_numbers_is_asked_about(tmp_path):
  text = "image,label,fold\na.jpg,cat,0\nb.jpg,dog,1\nc.jpg,dog,1\n"
  with pytest.raises(UserError, match=r":2: the split '0' is not known(?s:.*)config\.data\.train_split"):
    table(tmp_path, text)
  found = table(tmp_path, text, train_split="1", test_split="0")[1]
  assert [row.split for row in found.rows] == ["0", "1", "1"]


def test_unknown_and_blank_splits_are_a_line_each_and_not_one_a_row(tmp_path):
  text = "image,label,split\n" + "".join(f"{i}.jpg,cat,{('trian', '')[i % 2]}\n" for i in range(100))
  with pytest.raises(UserError) as error:
    table(tmp_path, text)
  lines = str(error.value).splitlines()[1:]
  assert len(lines) == 2 and all("(49 more rows)" in line for line in lines)
  assert "'trian' is not known" in lines[0] and ":3: the split is blank" in lines[1]


def test_rows_of_ignored_splits_are_left_out_and_counted(tmp_path):
  text = "image,label,split\na.jpg,cat,train\nb.jpg,dog,Unlabeled\n"
  found = table(tmp_path, text, ignore=("unlabeled",))[1]
  assert [row.image for row in found.rows] == ["a.jpg"] and found.left_out == 1


# Names.


def test_a_slash_in_a_name_does_not_part_it_where_levels_have_columns(tmp_path):
  text = (
    "image,a,b\na.jpg,Bread/Bakery,Bagel\nb.jpg,w/o,/A\nc.jpg,Bread/Bakery,\n"
    "d.jpg,http://x,A\\B\ne.jpg,/A,\nf.jpg,http://x,\ng.jpg,A\\B,\n"
  )
  labels = {row.image: row.label for row in table(tmp_path, text)[1].rows}
  assert labels == {
    "a.jpg": ("Bread/Bakery", "Bagel"), "b.jpg": ("w/o", "/A"), "c.jpg": ("Bread/Bakery",),
    "d.jpg": ("http://x", "A\\B"), "e.jpg": ("/A",), "f.jpg": ("http://x",), "g.jpg": ("A\\B",),
  }  # fmt: skip


def test_a_column_of_paths(tmp_path):
  text = "image,label\na.jpg,Bread\\/Bakery/Bagel\nb.jpg,A\\B\n"
  assert [row.label for row in table(tmp_path, text)[1].rows] == [("Bread/Bakery", "Bagel"), ("A\\B",)]
  for label in ("/A", "http://x", "a/"):
    with pytest.raises(UserError, match=rf"{re.escape(repr(label))} has a blank name"):
      table(tmp_path, f"image,label\na.jpg,{label}\n")


def test_labels_below_one_top_give_the_tree_of_the_folders(tmp_path):
  for label in ("dog", "cat"):
    write(tmp_path / "photos" / "animal" / label / "0.png")
  folders = tree_of(config_of(tmp_path / "photos"))
  config, _ = table(tmp_path, "image,a,b\n1.jpg,animal,cat\n2.jpg,animal,dog\n3.jpg,animal,\n")
  assert tree_of(config) == folders and paths(folders) == {"animal", "animal/dog", "animal/cat"}


def test_backslashes_and_other_unicode_forms_in_paths_of_images(tmp_path):
  write(tmp_path / "cats" / unicodedata.normalize("NFD", "été.png"))
  composed = unicodedata.normalize("NFC", "été.png")
  config, _ = table(tmp_path, f"image,label\ncats\\{composed},cat\n")
  assert (
    open_source(config_of(tmp_path, labels="labels.csv", validation=0.0), tree_of(config), "train")
    .read(np.array([0]))
    .shape
  )


def test_unicode_forms_of_a_label_are_one_class(tmp_path):
  forms = [unicodedata.normalize(form, "Épagneul") for form in ("NFC", "NFD")]
  config, found = table(tmp_path, f"image,label\n1.jpg,{forms[0]}\n2.jpg,{forms[1]}\n3.jpg,cat\n")
  assert len(tree_of(config).leaves) == 2 and found.rows[0].label == found.rows[1].label
  write(tmp_path / "photos" / forms[1] / "0.png")
  write(tmp_path / "photos" / "cat" / "0.png")
  photos = config_of(tmp_path / "photos", validation=0.0)
  tree = tree_of(photos)
  assert set(tree.names) == {"cat", forms[0]} and len(open_source(photos, tree, "train")) == 2
  write(tmp_path / "photos" / forms[0] / "0.png")
  with pytest.raises(UserError, match="stands twice"):
    tree_of(photos)


@pytest.mark.parametrize("other", ["Dog", "dog ", "d og"])
def test_names_that_differ_in_capitals_or_blanks_are_asked_about(tmp_path, other):
  for label in ("dog", other):
    write(tmp_path / "animal" / label / "0.png")
  with pytest.raises(UserError, match=rf"'animal/{other}'.*config\.tree\.alike_names = keep"):
    open_tree(TreeConfig(), config_of(tmp_path))
  assert len(open_tree(TreeConfig(alike_names="keep"), config_of(tmp_path)).leaves) == 2


@pytest.mark.parametrize(
  ("text", "fact"),
  [
    ('{"images": [], "annotations": [], "categories": []}', "COCO"),
    ('{"images": [], "detection_categories": {}, "info": {}}', "MegaDetector"),
    ('[{"id": 1, "name": "cat", "supercategory": "animal"}]', "supercategory"),
    ('{"animal": ["cat", "dog"]}', "CSV"),
  ],
)
def test_other_programs_json_names_the_way_to_convert_it(tmp_path, text, fact):
  (tmp_path / "found.json").write_text(text)
  with pytest.raises(UserError, match=rf"found\.json.*{fact}"):
    tree_of(config_of(tmp_path, labels="found.json"))
  if fact != "CSV":
    with pytest.raises(UserError, match=rf"found\.json.*{fact}"):
      open_tree_file(tmp_path / "found.json")


# Names of levels.


def test_names_of_levels_come_from_the_header_or_the_config_and_are_kept(tmp_path):
  config, _ = table(tmp_path, "image,family,species\na.jpg,animal,cat\nb.jpg,animal,dog\n")
  tree = open_tree(TreeConfig(), config)
  loaded = LabelTree.from_json(tree.to_json())
  assert [loaded.level_name(i) for i in range(2)] == ["family", "species"]
  assert loaded.truncated(1).level_names == ("family",)
  own = open_tree(TreeConfig(level_names=("kind", "name")), config)
  assert own.level_names == ("kind", "name") and own == tree
  with pytest.raises(UserError, match=r"config\.tree\.level_names .*2 levels"):
    open_tree(TreeConfig(level_names=("kind",)), config)
  numbered, _ = table(tmp_path, "image,level 1,level 2\na.jpg,animal,cat\nb.jpg,animal,dog\n")
  assert open_tree(TreeConfig(), numbered).level_name(1) == "level 2"


def test_a_tree_source_that_is_blank_or_below_home(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r"config\.tree\.source = ''"):
    TreeConfig(source="")
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "tree.csv").write_text("a,b\nx,y\nx,z\n")
  assert open_tree(TreeConfig(source="~/tree.csv"), config_of(tmp_path)).num_nodes == 2


# Images that cannot be read.


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_a_class_or_a_split_without_a_readable_image_stops_the_run(tmp_path, cache_mib):
  for label in ("cat", "dog"):
    write(tmp_path / label / "0.png")
    write(tmp_path / label / "1.png")
  config = config_of(tmp_path, on_bad_image="skip", validation=0.0, cache_mib=cache_mib)
  tree = open_tree(TreeConfig(), config)
  (tmp_path / "dog" / "0.png").write_bytes(b"broken")
  assert len(open_source(config, tree, "train")) == 4
  (tmp_path / "dog" / "1.png").write_bytes(b"broken")
  with pytest.raises(UserError, match=r"no image of the class of .*dog/0\.png can be read"):
    open_source(config, tree, "train")
  for file in (tmp_path / "cat").iterdir():
    file.write_bytes(b"broken")
  with pytest.raises(UserError, match="no image of this split can be read"):
    open_source(config, tree, "train")


def test_classes_that_are_not_in_a_given_tree_are_listed_with_the_nearest_name(tmp_path):
  (tmp_path / "tree.csv").write_text("a,b\nanimal,leonberg\nanimal,decapods\ndecapods,decapods\ndecapods,crab\n")
  write(tmp_path / "photos" / "leonburg" / "0.png")
  write(tmp_path / "photos" / "crab" / "0.png")
  config = config_of(tmp_path / "photos", validation=0.0)
  tree = open_tree(TreeConfig(source=str(tmp_path / "tree.csv")), config)
  with pytest.raises(UserError, match=r"'leonburg' .*did you mean 'leonberg'"):
    open_source(config, tree, "train")
