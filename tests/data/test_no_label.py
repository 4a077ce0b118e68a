"""Images without any label: no source lets them into a run unsaid."""

import json

import numpy as np
import pytest
from absl import logging
from PIL import Image

from hierjax.data.config import DataConfig
from hierjax.data.open_source import open_partial_labels, open_source
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.source import deepest_nodes
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import PAD, ROOT

TREE = from_paths([("animal", "cat"), ("animal", "dog"), ("thing", "cup")])
CAT, DOG, CUP = (TREE.find(path) for path in (("animal", "cat"), ("animal", "dog"), ("thing", "cup")))
SMALL = {"resize": 4, "crop": 4, "validation": 0.0}


def arrays(tmp_path, nodes, split="train", **changes):
  images = np.zeros((len(nodes), 4, 4, 3), np.uint8) + np.arange(len(nodes), dtype=np.uint8)[:, None, None, None]
  np.savez(tmp_path / f"{split}.npz", images=images, nodes=np.array(nodes))
  return DataConfig(**{"name": "arrays", "root": str(tmp_path), **SMALL} | changes)


def features(tmp_path, nodes, **changes):
  (tmp_path / "train").mkdir()
  np.save(tmp_path / "train" / "features.npy", np.arange(len(nodes), dtype=np.float32)[:, None])
  np.save(tmp_path / "train" / "nodes.npy", np.array(nodes))
  return DataConfig(**{"name": "features", "root": str(tmp_path), **SMALL} | changes)


def images_in(folder, *files):
  for shade, file in enumerate(files):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(path)


def shades(source):
  return source.read(np.arange(len(source))).reshape(len(source), -1)[:, 0].astype(int).tolist()


def skipping(config):
  return DataConfig(**{**config.__dict__, "on_no_label": "skip"})


@pytest.mark.parametrize("make", [arrays, features])
@pytest.mark.parametrize("none", [ROOT, PAD])
def test_an_image_without_a_label_is_named_and_counted_or_left_out(tmp_path, make, none):
  config = make(tmp_path, [[CUP, CAT], [CAT, PAD], [none, PAD], [none, none], [DOG, none]])
  with pytest.raises(UserError, match=r"2 of 5 train images have no label, \S*/train.* 2 the first: .* skip to leave"):
    open_source(config, TREE, "train")
  source = open_source(skipping(config), TREE, "train")
  assert shades(source) == [0, 1, 4]
  assert source.nodes.tolist() == [[CUP, CAT], [CAT, PAD], [DOG, none]]


def test_what_is_left_out_is_said_once(tmp_path, monkeypatch):
  config = skipping(arrays(tmp_path, [CUP, ROOT]))
  said = []
  monkeypatch.setattr(logging, "warning", lambda *args: said.append(args[0] % args[1:]))
  for _ in range(2):
    open_source(config, TREE, "train")
  assert said == [f"1 of 2 train images has no label, {tmp_path}/train.npz example 1 the first; left out"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_splits_that_judge_are_checked_too(tmp_path, split):
  arrays(tmp_path, [CUP, CAT])
  config = arrays(tmp_path, [CUP, PAD], split, validation=0.1)
  with pytest.raises(UserError, match=rf"1 of 2 {split} images has no label"):
    open_source(config, TREE, split)
  assert len(open_source(skipping(config), TREE, split)) == 1


def test_where_none_has_a_label_nothing_is_left(tmp_path):
  for on_no_label in ("stop", "skip"):
    with pytest.raises(UserError, match="3 of 3 train images have no label"):
      open_source(arrays(tmp_path, [ROOT, PAD, ROOT], on_no_label=on_no_label), TREE, "train")


def test_validation_is_kept_of_labelled_images_only(tmp_path):
  nodes = [CUP, CAT, DOG, ROOT] * 20
  config = arrays(tmp_path, nodes, validation=0.5, partial_labels="drop")
  train, validation = (shades(open_source(config, TREE, split)) for split in ("train", "validation"))
  assert sorted(train + validation) == [i for i in range(80) if nodes[i] != ROOT] and len(validation) == 30


@pytest.mark.parametrize("none", [ROOT, PAD])
def test_unlabelled_images_may_be_coarse_ones(tmp_path, none):
  """They can be given pseudo-labels; those that get none, or whose set is used as it is, stop the run."""
  config = arrays(tmp_path, [CUP, none, CAT, none])
  found = open_partial_labels(config, TREE)
  assert found.partial.tolist() == [False, True, False, True]
  coarse = found.partial_images()
  for nodes, message in (([DOG, CUP], ""), ([DOG, ROOT], "1 of 4 train images has no label, .* example 3 the first")):
    labels = PseudoLabels(
      coarse.indices, coarse.nodes[:, 0], np.array(nodes, np.int32), np.ones(2, np.float32),
      TREE.checksum, found.fine_checksum, "",
    )  # fmt: skip
    (tmp_path / "labels").write_bytes(labels.to_bytes())
    config = arrays(tmp_path, [CUP, none, CAT, none], partial_labels="pseudo", pseudo_labels=str(tmp_path / "labels"))
    if message:
      with pytest.raises(UserError, match=message):
        open_source(config, TREE, "train")
    else:
      assert open_source(config, TREE, "train").nodes[:, 0].tolist() == [CUP, DOG, CAT, CUP]


def test_images_at_the_top_of_a_folder_tree(tmp_path):
  images_in(tmp_path, "animal/cat/a.png", "b.png", "c.png", "thing/cup/d.png")
  config = DataConfig(name="folder", root=str(tmp_path), **SMALL)
  with pytest.raises(UserError, match=rf"{tmp_path}: b\.png .*\b2 images"):
    open_source(config, TREE, "train")
  for left_out in (skipping(config), DataConfig(**{**config.__dict__, "partial_labels": "drop"})):
    assert shades(open_source(left_out, TREE, "train")) == [0, 3]
  assert open_tree(TreeConfig(), skipping(config)) == open_tree(TreeConfig(), config)


def test_rows_of_a_csv_file(tmp_path):
  images_in(tmp_path, "a.png", "b.png", "c.png", "d.png")
  (tmp_path / "l.csv").write_text(
    "image,level 1,level 2\na.png,animal,cat\na.png,,\na.png,thing,cup\nb.png,,\nc.png,animal,dog\nd.png\n"
  )
  config = DataConfig(name="folder", root=str(tmp_path), labels=str(tmp_path / "l.csv"), **SMALL)
  with pytest.raises(UserError, match=r"l\.csv:3: the row has no label; .* skip .*\n.*l\.csv:5: .*\n.*l\.csv:7: "):
    open_source(config, TREE, "train")
  source = open_source(skipping(config), TREE, "train")
  assert shades(source) == [0, 2] and source.nodes.tolist() == [[CAT, CUP], [DOG, PAD]]
  assert open_tree(TreeConfig(), skipping(config)).checksum == TREE.checksum


def test_a_label_that_is_the_roots_name_says_nothing(tmp_path):
  images_in(tmp_path, "a.png", "b.png")
  (tmp_path / "l.csv").write_text(f"image,label\na.png,cat\nb.png,{TREE.root_name}\n")
  config = DataConfig(name="folder", root=str(tmp_path), labels=str(tmp_path / "l.csv"), **SMALL)
  with pytest.raises(UserError, match=r"1 of 2 train images has no label, .*b\.png the first"):
    open_source(config, TREE, "train")


@pytest.mark.parametrize(
  ("names", "message"), [(("a.png",), r"labels; "), (("a.png", "b.png"), r"labels \(2 images do\)")]
)
def test_images_that_lie_in_no_folder_of_a_label_are_counted(tmp_path, names, message):
  images_in(tmp_path, "animal/cat/c.png", "thing/cup/d.png", *names)
  config = DataConfig(name="folder", root=str(tmp_path), **SMALL)
  with pytest.raises(UserError, match=message):
    open_source(config, open_tree(TreeConfig(), config), "train")


def test_the_key_is_in_every_config():
  from configs import common

  assert json.loads(common.base().to_json())["data"]["on_no_label"] == "stop"
  with pytest.raises(UserError, match=r"config\.data\.on_no_label = 'drop': must be stop or skip"):
    DataConfig(on_no_label="drop")


@pytest.mark.parametrize("images", [0, 3])
def test_images_of_which_none_has_a_label_keep_a_column(images):
  assert deepest_nodes(np.full((images, 2), PAD), TREE).tolist() == [[PAD]] * images
  assert deepest_nodes(np.full((images, 2), PAD), TREE).shape == (images, 1)
