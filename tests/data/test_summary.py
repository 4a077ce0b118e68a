"""The summary of a set: it says what was understood, and finds whatever training would refuse."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from hierjax.cli.main import main
from hierjax.data.config import DataConfig
from hierjax.data.images import cache
from hierjax.data.sources.shapes import tree, write_folders
from hierjax.data.summary import summarize
from hierjax.data.trees import TreeConfig


def write(path, shade):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
  """Five training images and two test images a class, all of them different, and a few other files."""
  root, shade = tmp_path / "photos", 0
  for split, count in (("Train", 5), ("TEST", 2)):
    for label in ("animal/cat", "animal/dog", "thing/cup", "thing/bed"):
      for i in range(count):
        write(root / split / label / f"{i}.png", shade)
        shade += 3
  (root / "notes.txt").touch()
  (root / "Train" / "animal" / "Thumbs.db").touch()
  (root / "Train" / ".hidden").touch()
  write(root / "Train" / "animal" / "@eaDir" / "0.png", 9)
  return root


OWN = TreeConfig()


def summary(root, open_images=False, tree=OWN, **changes):
  return summarize(DataConfig(name="folder", root=str(root), **changes), tree, open_images=open_images)


def kinds(found):
  return [(finding.severity, finding.kind) for finding in found.findings]


def test_splits_tree_and_passed_over_files_are_counted(photos):
  found = summary(photos, open_images=True, tree=TreeConfig(level_names=("kind", "name")))
  assert found.splits == {"TEST": 8, "Train": 20} and found.findings == []
  assert found.uses == {"train": "Train", "validation": "", "test": "TEST"}
  assert found.passed_over == {".txt": 1, ".db": 1, "hidden": 1, "@eaDir/": 1}
  assert {found.tree.path_text(i): count for i, count in enumerate(found.counts.tolist()) if count} == dict.fromkeys(
    ("animal/cat", "animal/dog", "thing/cup", "thing/bed"), 7
  )
  text = "\n".join(found.lines())
  for fact in (
    "Train 20 (train)",
    "TEST 8 (test)",
    "kind 2, name 4",
    "4 on name",
    "animal 14: cat 7, dog 7",
    "6 x 4",
  ):
    assert fact in text


def test_the_tree_source_shapes_goes_with_a_folder(tmp_path):
  write_folders(tmp_path / "train", 62, side=8)
  found = summary(tmp_path, tree=TreeConfig(source="shapes"))
  assert found.findings == [] and found.tree == tree()


def test_the_images_are_opened_for_faults_and_duplicates(photos):
  (photos / "Train" / "animal" / "cat" / "0.png").write_bytes(b"broken")
  shutil.copy(photos / "Train" / "animal" / "cat" / "1.png", photos / "TEST" / "animal" / "cat" / "7.png")
  shutil.copy(photos / "Train" / "thing" / "cup" / "1.png", photos / "Train" / "thing" / "bed" / "7.png")
  assert kinds(summary(photos)) == []
  found = summary(photos, open_images=True)
  assert kinds(found) == [
    ("error", "unreadable image"), ("warning", "image in several splits"), ("warning", "duplicate image")
  ]  # fmt: skip
  broken, across, within = found.findings
  assert broken.file == str(photos / "Train" / "animal" / "cat" / "0.png")
  assert "TEST and Train" in across.message and "labels differ: thing/bed, thing/cup" in within.message
  assert kinds(summary(photos, open_images=True, on_bad_image="skip"))[0] == ("warning", "unreadable image")


def test_classes_with_one_image_to_train_on_are_named(photos):
  for i in range(1, 5):
    (photos / "Train" / "thing" / "cup" / f"{i}.png").unlink()
  (finding,) = summary(photos).findings
  assert finding.kind == "few images" and finding.node == "thing/cup"
  assert "thing/cup" in "\n".join(summary(photos).gravest()) and "1 warning " in summary(photos).gravest()[0]


def csv(photos, text, **changes):
  (photos / "labels.csv").write_text(text)
  return summary(photos, labels="labels.csv", **changes)


def test_columns_and_what_training_refuses_of_a_file_of_labels(photos):
  row = "Train/animal/cat/{}.png,{},{},x\n".format
  text = "image,split,kind,note\n" + row(0, "train", "cat") + row(1, "train", "dog")
  found = csv(photos, text)
  assert found.columns == {"image": "image", "split": "split", "kind": "label", "note": "not used"}
  assert found.splits == {"train": 2} and found.passed_over["images that are not in the file of labels"] == 26
  both = csv(photos, text + row(0, "test", "cat"))
  assert [(f.severity, f.line) for f in both.findings] == [("error", 4)] and "'train' too" in both.findings[0].message
  missing = csv(photos, text + row(77, "train", "cat"))
  assert kinds(missing)[0] == ("error", "refused") and "77.png" in missing.findings[0].message
  slashed = csv(
    photos, "image,label\n" + "".join(f"Train/thing/cup/{i}.png,{x}\n" for i, x in enumerate(["a", "b", "w/o"]))
  )
  assert ("warning", "slash in a name") in kinds(slashed)


def test_the_command_prints_the_summary_as_json(photos, capsys):
  assert main(["data", "check", str(photos), "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["splits"] == {"TEST": 8, "Train": 20} and found["columns"] == {} and found["passed_over"][".txt"] == 1
  assert (found["nodes"], found["leaves"], found["levels"], found["findings"]) == (6, 4, 2, [])
  write(photos / "extra" / "0.png", 255)
  assert main(["data", "check", str(photos), "--json", "--quick"]) == 1
  (finding,) = json.loads(capsys.readouterr().out)["findings"]
  assert (
    finding["severity"] == "error" and "config.data.ignore" in finding["message"] and finding["file"] == str(photos)
  )
  assert main(["data", "check", str(photos), "--quick", "--config.data.ignore=extra"]) == 0
  capsys.readouterr()
  (photos / "labels.csv").write_text("photo,label\nTrain/animal/cat/0.png,cat\nTrain/animal/cat/1.png,fox\nx.png,cat\n")
  labels = [f"--labels={photos}/labels.csv", f"--images={photos}", "--json"]
  assert main(["data", "check", *labels]) == 1
  found = json.loads(capsys.readouterr().out)
  assert found["columns"] == {"photo": "image", "label": "label"} and "x.png" in found["findings"][0]["message"]
  tree = photos.parent / "tree.csv"
  tree.write_text("a\ncat\ndog\n")
  assert main(["data", "check", str(tree), *labels]) == 1
  (finding,) = (f for f in json.loads(capsys.readouterr().out)["findings"] if f["severity"] == "error")
  assert finding["line"] == 3 and finding["file"].endswith("labels.csv") and "'fox'" in finding["message"]


def test_file_names_that_are_not_utf8(photos, capsys):
  name = os.fsdecode(os.fsencode(photos / "Train" / "animal" / "cat") + b"/\xe9t\xe9.png")
  shutil.copy(photos / "Train" / "animal" / "cat" / "0.png", name)
  assert main(["data", "check", str(photos)]) == 0
  assert "duplicate image" in capsys.readouterr().out


# The cache of decoded images.


def test_the_cache_lies_where_the_config_says_within_its_bound(tmp_path):
  place = DataConfig(cache_folder=str(tmp_path / "kept"), cache_gib=0.5).cache_place
  assert place.path == tmp_path / "kept" and place.limit == 2**29
  path = cache.save("set", "print", np.zeros(3, np.uint8), place)
  assert path.parent == tmp_path / "kept" and cache.load("set", "print", (3,), np.uint8, place) is not None
  assert cache.load("set", "print", (3,), np.uint8) is None
  assert cache.save("set", "print", np.zeros(3, np.uint8), cache.CachePlace(str(tmp_path / "none"), 0)) is None
  assert not (tmp_path / "none").exists()


def test_clearing_the_cache_removes_its_own_files_alone(tmp_path, capsys):
  place = cache.CachePlace(str(tmp_path))
  for name in ("one", "two"):
    cache.save(name, "print", np.zeros(3, np.uint8), place)
  (tmp_path / "mine.npy").touch()
  assert main(["data", "clear-cache", "--folder", str(tmp_path)]) == 0
  assert "removed 2 files" in capsys.readouterr().out and [file.name for file in tmp_path.iterdir()] == ["mine.npy"]
