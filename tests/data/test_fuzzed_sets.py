"""Random folders and files of labels: they are read as they were meant, or refused, and never misread in silence."""

import csv
import io
import unicodedata

import numpy as np
import pytest

from hierjax.data.config import DataConfig
from hierjax.data.sources.folders import folder_splits, label_table
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError

TOPS = ("animal", "thing", "Bread/Bakery", "w/o", "A\\B", "été", "http://x", "plant")
LEAVES = ("cat", "dog", "cup", "train", "/A", "naïve", "0", "Bagel", "bed", "test")
WORDS = {"train": ("train", "Training", "TRAIN"), "validation": ("val", "valid", "dev"), "test": ("test", "Testing")}
NOISE = {
  "note": ("blurred", "", "good one"), "width": ("640", "480"), "photographer": ("Ann", "Bo"), "id": None,
  "confidence": ("0.5", "0.25"), "date": ("2020-01-02",), "": None,
}  # fmt: skip


def labels_of(rng):
  """Returns a few label paths of two levels, each below one top."""
  tops = rng.permutation(TOPS)[: rng.integers(2, 5)].tolist()
  leaves = rng.permutation(LEAVES).tolist()
  return [(top, leaves.pop()) for top in tops for _ in range(2)]


def labelled_table(rng):
  """Returns a CSV file and the images, splits and labels that it means."""
  labels, level_names = (
    labels_of(rng),
    [("family", "species"), ("coarse", "fine"), ("level 1", "level 2")][rng.integers(3)],
  )
  words = {split: rng.choice(words) for split, words in WORDS.items()}
  header = [rng.choice(["image", "File Name", "filepath", "path"])]
  paths = rng.random() < 0.5
  header += ["label"] if paths else level_names
  with_splits = rng.random() < 0.7
  header += [rng.choice(["split", "subset", "Set"])] if with_splits else []
  noise = rng.permutation(list(NOISE))[: rng.integers(0, 4)].tolist()
  meant, rows = {}, []
  for i in range(24):
    label = labels[i % len(labels)]
    image, split = f"photos/{i}.jpg", list(WORDS)[int(rng.integers(3))] if i > 2 else list(WORDS)[i]
    meant[image] = (split if with_splits else "train", label)
    cells = [image.replace("/", "\\") if rng.random() < 0.3 else image]
    names = [
      unicodedata.normalize(str(rng.choice(["NFC", "NFD"])), name) + " " * int(rng.integers(2)) for name in label
    ]
    escaped = "/".join(name.replace("\\", "\\\\").replace("/", "\\/") for name in names)
    cells += [escaped] if paths else names
    cells += [words[split]] if with_splits else []
    cells += [str(i) if NOISE[name] is None else rng.choice(NOISE[name]) for name in noise]
    rows.append(cells)
  order = rng.permutation(len(header) + len(noise))
  text = io.StringIO()
  csv.writer(text).writerows([[row[i] for i in order] for row in [header + noise, *rows]])
  return text.getvalue(), meant


@pytest.mark.parametrize("seed", range(40))
def test_a_random_file_of_labels_is_read_as_it_was_meant(tmp_path, seed):
  rng = np.random.default_rng(seed)
  text, meant = labelled_table(rng)
  (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
  config = DataConfig(name="folder", root=str(tmp_path), labels="labels.csv", on_bad_image="skip")
  tree = open_tree(TreeConfig(), config)
  wanted = {label[:end] for _, label in meant.values() for end in (1, 2)}
  assert {tree.path_names(node) for node in range(tree.num_nodes)} == wanted
  found = {row.image: (row.split or "train", row.label) for row in label_table(tmp_path / "labels.csv", config).rows}
  split_of = {word.casefold(): split for split, words in WORDS.items() for word in words}
  assert {image: (split_of[split], label) for image, (split, label) in found.items()} == meant


@pytest.mark.parametrize("seed", range(40))
def test_a_random_folder_is_read_as_it_was_meant_or_refused(tmp_path, seed):
  rng = np.random.default_rng(seed)
  labels = [label for label in labels_of(rng) if not set("/\\") & set("".join(label)) and label[1] not in WORDS]
  labels += [("animal", "fox"), ("animal", "owl")]
  splits = [str(rng.choice(words)) for words in WORDS.values()][: rng.integers(1, 4)]
  if not (with_splits := rng.random() < 0.7):
    splits = ["."]
  meant = {split: 0 for split in splits}
  for split in splits:
    for label in labels:
      for i in range(int(rng.integers(1, 4))):
        path = tmp_path / split / label[0] / unicodedata.normalize("NFD", label[1]) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        meant[split] += 1
  beside = [name for name in ("__MACOSX", "unlabeled", ".cache", "extra") if rng.random() < 0.3]
  for name in beside:
    (tmp_path / name / "x").mkdir(parents=True)
    (tmp_path / name / "x" / "0.jpg").touch()
  config = DataConfig(name="folder", root=str(tmp_path))
  visible = [name for name in beside if name in ("unlabeled", "extra")]
  if with_splits and visible:
    with pytest.raises(UserError, match=visible[0]):
      open_tree(TreeConfig(), config)
    config = DataConfig(name="folder", root=str(tmp_path), ignore=visible)
  tree = open_tree(TreeConfig(), config)
  tops = {label[0] for label in labels} | (set() if with_splits else set(visible))
  assert {tree.names[node] for node in tree.children(-1)} == tops
  found = {split: len(opened()) for split, opened in folder_splits(config, tree).items()}
  assert found == (meant if with_splits else {"train": meant["."] + len(visible)})
