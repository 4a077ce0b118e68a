"""Packs take the place of the folder that they were made of: the same splits, names, labels, tree and batches."""

import dataclasses
import itertools
import tracemalloc

import jax
import numpy as np
import pytest
from PIL import Image

from hierjax.cli.main import main
from hierjax.data.config import DataConfig
from hierjax.data.loader import LabelledImages, ProcessRows, TrainSteps, eval_batches, train_batches
from hierjax.data.open_source import Opened, open_source
from hierjax.data.source import data_checksum
from hierjax.data.sources import packs
from hierjax.data.sources.folders import folder_splits, tree_of
from hierjax.data.sources.packing import write_pack
from hierjax.errors import UserError
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import ROOT

LEAVES = ("animal/dog/basenji", "animal/cat", "thing/cup", "thing/a\\b")


def write(path, rng, size=(6, 9, 3)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)


def config_of(root, **changes):
  values = {"name": "folder", "root": str(root), "resize": 4, "crop": 4, "validation": 0.2, "threads": 2}
  return DataConfig(**values | changes)


@pytest.fixture
def nested(tmp_path, rng):
  """Six images a leaf, two labels that end above one, other files, and a name that is not UTF-8."""
  root = tmp_path / "photos"
  for leaf, i in itertools.product(LEAVES, range(6)):
    write(root / leaf / f"{i}.png", rng)
  for i in range(2):
    write(root / "animal" / "dog" / f"some \udce9{i}.png", rng)
  (root / "notes.txt").touch()
  return config_of(root)


@pytest.fixture
def splits(tmp_path, rng):
  for split, leaf, i in itertools.product(("train", "val", "test"), LEAVES, range(3)):
    write(tmp_path / "photos" / split / leaf / f"{i}.png", rng)
  return config_of(tmp_path / "photos")


@pytest.fixture
def table(tmp_path, rng):
  """A file of labels: images with two labels or none, an image that is broken, and one that is missing."""
  rows = ["image,split,label"]
  for split, leaf, i in itertools.product(("train", "exam/1", "test"), LEAVES[:3], range(4)):
    name = f"{split.replace('/', '')}-{leaf.replace('/', '-')}-{i}.png"
    write(tmp_path / "photos" / name, rng)
    rows += [f"{name},{split},{leaf}", *([f"{name},{split},animal/dog"] if i == 1 else [])]
  (tmp_path / "photos" / "train-thing-cup-2.png").write_bytes(b"broken")
  (tmp_path / "photos" / "train-thing-cup-3.png").unlink()
  write(tmp_path / "photos" / "unlabelled.png", rng)
  labels = tmp_path / "labels.csv"
  labels.write_text("\n".join([*rows, "unlabelled.png,train,"]))
  return config_of(
    tmp_path / "photos", labels=str(labels), on_bad_image="skip", on_no_label="skip", validation_split="exam/1"
  )


def packed(config, folder):
  """Packs a set, and returns the config of the pack."""
  folder.mkdir()
  write_pack(folder, config, tree_of(config))
  return config.moved(str(folder))


def batches(config, tree, split):
  source = open_source(config, tree, split)
  if source is None:
    return None, []
  images, rows = LabelledImages(source, tree), ProcessRows(5)
  train = list(train_batches(images, config, rows, TrainSteps(3, 9)))
  return source, [*train, *eval_batches(images, config, rows)]


@pytest.mark.parametrize("kind", ["nested", "splits", "table"])
@pytest.mark.parametrize("sides", [(), (4, 6)])
def test_a_pack_gives_the_same_tree_names_checksums_and_batches(kind, sides, request, tmp_path):
  config = dataclasses.replace(request.getfixturevalue(kind), sides=sides, pad=0, cache_mib=0)
  ours, tree = packed(config, tmp_path / "pack"), tree_of(config)
  assert ours.is_pack and not ours.labels and tree_of(ours) == tree
  for split in ("train", "validation", "test"):
    (source, wanted), (found, given) = batches(config, tree, split), batches(ours, tree, split)
    assert len(wanted) == len(given) and (wanted or (kind, split) == ("nested", "test"))
    jax.tree.map(np.testing.assert_array_equal, given, wanted)
    if source is not None:
      places = ((source, config.root), (found, ours.root))
      names = [[one.name_of(i).removeprefix(root) for i in range(len(one))] for one, root in places]
      assert names[0] == names[1]
      assert data_checksum(found) == data_checksum(source)
      assert data_checksum(found, all_bytes=True) == data_checksum(source, all_bytes=True)
  masks = np.concatenate([batch.mask for batch in batches(ours, tree, "train")[1][:9]])
  assert (kind == "table") == (not masks.all())


def test_a_decoded_pack_is_kept_like_a_decoded_folder(nested, tmp_path):
  tree, ours = tree_of(nested), packed(nested, tmp_path / "pack")
  wanted, given = (batches(config, tree, "train")[1] for config in (nested, ours))
  jax.tree.map(np.testing.assert_array_equal, given, wanted)


def test_labels_are_looked_up_in_another_tree(nested, tmp_path):
  other = from_paths([("thing", "cup"), ("thing", "a\\b"), ("animal", "cat"), ("animal", "dog", "basenji")])
  ours = packed(nested, tmp_path / "pack")
  for config in (nested, ours):
    nodes = open_source(dataclasses.replace(config, validation=0.0), other, "train").nodes
    assert sorted(np.unique(nodes).tolist()) == sorted(other.find(leaf.split("/")) for leaf in (*LEAVES, "animal/dog"))
  with pytest.raises(UserError, match=r"pack: labels of the pack are not in the tree: 'dog' is not below"):
    open_source(ours, from_paths([("thing", "cup"), ("thing", "a\\b"), ("animal", "cat")]), "train")


def test_a_large_set_is_not_decoded_into_memory(tmp_path, rng):
  """Of 12 MiB when decoded, with data.cache_mib = 1: batches come from the files, and no more than a few are there."""
  for i in range(48):
    write(tmp_path / "photos" / LEAVES[i % 3] / f"{i}.jpg", rng, (300, 300, 3))
  config = config_of(tmp_path / "photos", resize=300, crop=300, validation=0.0, cache_mib=1, cache_folder=str(tmp_path))
  ours, tree = packed(config, tmp_path / "pack"), tree_of(config)
  for one in (config, ours):
    source = open_source(one, tree, "train")
    tracemalloc.start()
    for _ in train_batches(LabelledImages(source, tree), one, ProcessRows(2), TrainSteps(0, 24)):
      pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20, peak
  assert not list(tmp_path.glob("*.npy"))
  whole = open_source(dataclasses.replace(ours, cache_mib=100), tree, "train", Opened())
  assert whole.source.images.nbytes > 12 * 2**20


# Damage.


def reading(config, tree):
  """Returns the images of all splits."""
  sources = [opened() for opened in packs.pack_splits(config, tree).values()]
  return np.concatenate([source.read(np.arange(len(source))) for source in sources])


def test_no_damage_of_a_pack_is_silent(splits, tmp_path, rng):
  config, tree = packed(splits, tmp_path / "pack"), tree_of(splits)
  wanted, noticed = reading(config, tree), 0
  for file in sorted((tmp_path / "pack").iterdir()):
    data = file.read_bytes()
    places = rng.integers(0, len(data), 8)
    damaged = [data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :] for place in places]
    for changed in [*damaged, data[: len(data) // 2], data + b"\0", b""]:
      file.write_bytes(changed)
      try:
        np.testing.assert_array_equal(reading(config, tree), wanted)
      except UserError as error:
        noticed += 1
        assert "\n" not in str(error), error
    file.write_bytes(data)
  assert noticed > 40
  (tmp_path / "pack" / "train.npz").unlink()
  with pytest.raises(packs.DamagedPack, match=r"train\.npz: cannot be read \(No such file"):
    reading(config, tree)


def of_index(change):
  """Makes a change of an index that has the right checksums."""

  def apply(folder):
    about = packs.read_json(folder / "pack.json", "a pack")
    index = packs.Index.from_bytes((folder / "train.npz").read_bytes(), about["splits"]["train"]["labels"])
    data = change(index).to_bytes()
    (folder / "train.npz").write_bytes(data)
    about["splits"]["train"]["index"] = packs.hashlib.sha256(data).hexdigest()
    del about["sha256"]
    (folder / "pack.json").write_text(packs.json.dumps(about | {"sha256": packs.checksum(about)}))

  return apply


def of_about(**changes):
  def apply(folder):
    about = packs.read_json(folder / "pack.json", "a pack") | changes
    del about["sha256"]
    (folder / "pack.json").write_text(packs.json.dumps(about | {"sha256": packs.checksum(about)}))

  return apply


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (of_index(lambda i: dataclasses.replace(i, ends=i.ends + 99)), r"train\.npz: its arrays do not go together"),
    (of_index(lambda i: dataclasses.replace(i, names=i.names[1:])), r"train\.npz: its arrays do not go together"),
    (of_index(lambda i: dataclasses.replace(i, ends=i.ends[:, 0])), r"train\.npz: its arrays are of other types"),
    (of_index(lambda i: dataclasses.replace(i, sizes=i.sizes + 1)), "has other bytes than it had"),
    (of_index(lambda i: packs.Index(i.names[1:], i.sizes[1:], i.crcs[1:], i.ends[1:], i.labels)), "12 images, of 11"),
    (of_about(format="hierjax pack 0"), "its format is 'hierjax pack 0', and this version of hierjax reads"),
    (of_about(splits={"train": {"labels": [["a", 1]]}}), "it has no splits"),
    (of_about(splits={"train": []}), "it has no splits"),
    (of_about(tree="0"), r"tree\.json: it is another tree"),
    (lambda folder: (folder / "pack.json").write_text("[1]"), "is not what `hierjax data pack` writes"),
    (lambda folder: (folder / "pack.json").write_text("{}"), "its format is None"),
  ],
)
def test_a_foreign_pack_is_refused_with_a_sentence(splits, tmp_path, change, message):
  config = packed(splits, tmp_path / "pack")
  change(tmp_path / "pack")
  with pytest.raises(UserError, match=message):
    reading(config, tree_of(splits))


# The command.


def test_the_command_counts_what_it_packs_and_what_it_leaves_out(nested, tmp_path, capsys):
  out = tmp_path / "packed set"
  assert main(["data", "pack", nested.root, str(out)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert "passed over: 1 .txt" in lines and "left out: 1 other files and folders" in lines
  assert any(line.startswith("packed: 26 images (train 26), 0.0 MiB, in ") for line in lines)
  assert lines[-1] == f"  hierjax train photos --config.data.root='{out}'"
  assert main(["data", "check", str(out)]) == 0
  checked = capsys.readouterr().out
  assert "splits: train 26" in checked and "sizes: from 9 x 6" in checked
  for words, message in (
    ([nested.root, str(out)], "is there already: name a new folder"),
    ([str(out), str(tmp_path / "again")], "is a pack already"),
    ([str(tmp_path / "nowhere"), str(tmp_path / "again")], "with these errors nothing is packed"),
  ):
    assert main(["data", "pack", *words]) == 1
    assert message in capsys.readouterr().err
  assert not (tmp_path / "again").exists()


def test_files_that_cannot_be_read_stop_it_or_are_counted(table, tmp_path, capsys):
  words = ["data", "pack", table.root, str(tmp_path / "out"), "--labels", table.labels]
  values = ["--config.data.on_no_label=skip", "--config.data.validation_split=exam/1"]
  assert main([*words, *values]) == 1
  printed = capsys.readouterr()
  assert "train-thing-cup-3.png" in printed.out and "with these errors nothing is packed" in printed.err
  assert main([*words, *values, "--config.data.on_bad_image=skip"]) == 0
  printed = capsys.readouterr().out
  assert "unreadable: 1, " in printed and "train-thing-cup-3.png the first" in printed
  assert (tmp_path / "out" / "exam%2F1.npz").exists()


def test_a_pack_says_that_its_labels_were_read_already(nested, tmp_path):
  config = packed(nested, tmp_path / "pack")
  with pytest.raises(UserError, match=r"config\.data\.ignore = \('thing',\): .* is a pack, whose labels were read"):
    open_source(dataclasses.replace(config, ignore=("thing",)), tree_of(nested), "train")


def test_no_room_is_a_sentence_and_leaves_nothing(nested, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("hierjax.disk.room", lambda folder: 100)
  assert main(["data", "pack", nested.root, str(tmp_path / "out")]) == 1
  assert "bytes are needed, 100 are free; make room" in capsys.readouterr().err
  assert not list(tmp_path.glob("*out*"))


def test_images_without_a_label_are_packed(nested, tmp_path, rng):
  write(tmp_path / "photos" / "stray.png", rng)
  config = dataclasses.replace(nested, on_no_label="skip")
  tree = tree_of(config)
  ours = packs.pack_splits(packed(config, tmp_path / "pack"), tree)["train"]().nodes
  wanted = folder_splits(config, tree)["train"]().nodes
  np.testing.assert_array_equal(ours, wanted)
  assert ROOT in ours
  with pytest.raises(UserError, match=r"1 of 27 train images has no label, .*stray\.png the first"):
    open_source(dataclasses.replace(nested.moved(str(tmp_path / "pack")), validation=0.0), tree, "train")
