"""Random folders and files of labels: they are read as they were meant, or refused, and never misread in silence."""

import csv
import io
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from hierjax.data.config import DataConfig
from hierjax.data.images.read_image import BadImageError
from hierjax.data.open_source import Opened, open_source
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


# Sets of images: in folders or in a file of labels, of any kind.

TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of PIL's transpositions, the one that stores an upright image so
SPLITS = ("train", "validation", "test")


def image_of(rng, shade):
  """Returns a file name's suffix and the bytes of an image, `shade` above and black below, of a random kind.

  The shade is 0 to 255, and the image is grey; None makes a file that is no image.
  """
  if shade is None:
    return rng.choice([".jpg", ".png", ".tif"]), bytes(rng.integers(0, 256, 40, dtype=np.uint8))
  grey = np.zeros((16, 16), np.uint8)
  grey[:8] = shade
  picture = Image.fromarray(grey)
  turn = int(rng.integers(1, 9))
  exif = Image.Exif()
  exif[0x0112] = turn
  exif[0x010E] = "a description"
  turned = picture.transpose(TURNS[turn]) if turn > 1 else picture
  wide = Image.fromarray(grey.astype(np.uint16) * 257)
  kinds = [
    (".jpg", turned.convert("RGB"), {"exif": exif, "quality": 95}),
    (".jpeg", turned, {"exif": exif, "quality": 95, "format": "JPEG"}),
    (".JPG", picture.convert("CMYK"), {"quality": 95, "format": "JPEG"}),
    (".png", picture.convert(str(rng.choice(["L", "P", "RGBA", "LA", "RGB"]))), {}),
    (".png", wide, {}),
    (".tiff", wide if rng.random() < 0.5 else picture, {"compression": str(rng.choice(["raw", "tiff_lzw"]))}),
    (".tif", turned.convert("RGB"), {"exif": exif}),
    (".bmp", picture, {}),
    (".gif", picture, {}),
    (".webp", picture.convert("RGB"), {"lossless": True}),
    (".pgm", picture, {}),
  ]
  suffix, image, options = kinds[int(rng.integers(len(kinds)))]
  data = io.BytesIO()
  image.save(data, **({"format": Image.registered_extensions()[suffix.lower()]} | options))
  return suffix, data.getvalue()


def combined_set(rng, root):
  """Writes images in folders, with or without a file of labels, and returns what the set means.

  Returns:
    A config, and by the name of each image its split, its label and its shade, None for one that cannot be read.
  """
  labels = [label for label in labels_of(rng) if not set("/\\:") & set("".join(label)) and label[1] not in WORDS]
  labels += [("animal", "fox"), ("plant", "oak")]
  by_table, meant, rows = rng.random() < 0.5, {}, []
  words = {split: str(rng.choice(WORDS[split])) for split in SPLITS}
  for split in SPLITS:
    for label in labels:
      for i in range(int(rng.integers(2, 5))):
        shade = int(rng.integers(40, 256)) if i < 1 or rng.random() < 0.9 else None
        suffix, data = image_of(rng, shade)
        name = f"{len(meant)}{suffix}"
        folder = root / "photos" if by_table else root / words[split] / label[0] / label[1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        meant[name] = (split, label, shade)
        rows.append([f"photos/{name}", words[split], *label, str(rng.choice(["", "blurred", "a note"]))])
  for beside in ("Thumbs.db", ".DS_Store", "readme.txt", "__MACOSX/._0.jpg"):
    if rng.random() < 0.5:
      (root / beside).parent.mkdir(exist_ok=True)
      (root / beside).write_bytes(b"beside")
  if by_table:
    order = rng.permutation(5)
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
      table = [["image", "split", "family", "species", "note"], *[rows[i] for i in rng.permutation(len(rows))]]
      csv.writer(file, delimiter=str(rng.choice([",", ";", "\t"]))).writerows(
        [[row[i] for i in order] for row in table]
      )
  more = {"labels": "labels.csv"} if by_table else {}
  return DataConfig(name="folder", root=str(root), resize=16, crop=16, on_bad_image="skip", threads=2, **more), meant


@pytest.mark.parametrize("seed", range(int(os.environ.get("HIERJAX_FUZZED_SETS", "20"))))
def test_a_random_set_of_images_is_read_as_it_was_meant(tmp_path, seed):
  config, meant = combined_set(np.random.default_rng(seed), tmp_path)
  tree, opened = open_tree(TreeConfig(), config), Opened()
  wanted = {label[:end] for _, label, _ in meant.values() for end in (1, 2)}
  assert {tree.path_names(node) for node in range(tree.num_nodes)} == wanted
  found = {}
  for split in SPLITS:
    source = open_source(config, tree, split, opened)
    for i in range(len(source)):
      name = os.path.basename(source.name_of(i))
      try:
        pixels = source.read(np.array([i]))[0].astype(int)
        shade = meant[name][2]
        assert shade is not None and np.abs(pixels[:7] - shade).max() <= 6 and pixels[9:].max() <= 6, name
      except BadImageError:
        shade = None
      found[name] = (split, tree.path_names(int(source.nodes[i, 0])), shade)
  assert found == meant
