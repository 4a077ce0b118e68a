"""Folders of precomputed features: what is read, from which tree, and what is said of those that cannot be used."""

import json

import numpy as np
import pytest

from hierjax.data.config import DataConfig
from hierjax.data.images.read_image import BadImageError
from hierjax.data.loader import LabelledImages, ProcessRows, eval_batches
from hierjax.data.open_source import open_source
from hierjax.data.sources.features import write_rows
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import PAD, ROOT, LabelTree, TreeError

TREE = from_paths([("animal", "dog", "basenji"), ("animal", "cat"), ("thing", "cup")])
CAT, CUP, BASENJI = (TREE.find(path) for path in (("animal", "cat"), ("thing", "cup"), ("animal", "dog", "basenji")))


def save(folder, features, nodes, tree=None):
  folder.mkdir(parents=True)
  np.save(folder / "features.npy", features)
  np.save(folder / "nodes.npy", nodes)
  if tree is not None:
    (folder.parent / "tree.json").write_text(tree.to_json())


def config(root, **changes):
  return DataConfig(**{"name": "features", "root": str(root), "validation": 0.0} | changes)


@pytest.fixture
def features(rng):
  return rng.normal(size=(6, 4)).astype(np.float32)


def test_rows_are_read_by_number_from_the_disk(tmp_path, features):
  nodes = np.array([CUP, CAT, BASENJI, CUP, CUP, BASENJI])
  save(tmp_path / "train", features, nodes, TREE)
  save(tmp_path / "test", features[:2], np.array([[CUP, CAT], [CAT, PAD]]))
  assert open_tree(TreeConfig(), config(tmp_path)) == TREE
  train, test = (open_source(config(tmp_path), TREE, split) for split in ("train", "test"))
  np.testing.assert_array_equal(train.read(np.array([4, 0, 4])), features[[4, 0, 4]])
  np.testing.assert_array_equal(train.nodes[:, 0], nodes)
  assert test.nodes.tolist() == [[CUP, CAT], [CAT, PAD]] and test.shape == (4,)
  assert isinstance(train.source.features, np.memmap)
  assert train.name_of(3) == f"{tmp_path / 'train' / 'features.npy'} row 3"
  assert open_source(config(tmp_path), TREE, "validation") is None
  kept = [len(open_source(config(tmp_path, validation=0.4), TREE, split)) for split in ("train", "validation")]
  assert sum(kept) == 6 and min(kept) > 0


def test_labels_of_another_tree_are_looked_up_by_name(tmp_path, features):
  other = from_paths([("cup",), ("mammal", "cat"), ("mammal", "basenji")])
  save(tmp_path / "train", features, np.array([CUP, CAT, BASENJI, CUP, ROOT, PAD]), TREE)
  source = open_source(config(tmp_path, on_no_label="skip"), other, "train")
  assert [other.names[node] for node in source.nodes[:, 0]] == ["cup", "cat", "basenji", "cup"]
  assert source.source.nodes[4:, 0].tolist() == [ROOT, PAD]
  with pytest.raises(TreeError, match=r"config\.tree.* 1 of 3 classes .*'cup'"):
    open_source(config(tmp_path), from_paths([("cat",), ("basenji",)]), "train")


@pytest.mark.parametrize(("own_ids", "ids"), [(True, False), (False, True), (True, True)])
def test_labels_are_looked_up_by_ids_where_both_trees_have_them_and_by_name_where_one_has(
  tmp_path, features, own_ids, ids
):
  own = LabelTree.from_children(["cat", "cup"], [2, 0, 0], ids=["n1", "n2"] if own_ids else None)
  other = LabelTree.from_children(["cup", "cat"], [2, 0, 0], ids=["n1", "n2"] if ids else None)
  save(tmp_path / "train", features, np.array([0, 1, 1, 0, 0, 1]), own)
  found = open_source(config(tmp_path), other, "train").nodes[:, 0].tolist()
  assert found == ([0, 1, 1, 0, 0, 1] if own_ids and ids else [1, 0, 0, 1, 1, 0])


def test_without_a_tree_of_their_own_the_config_names_it(tmp_path, features):
  save(tmp_path / "train", features, np.full(6, CUP))
  with pytest.raises(UserError, match=r"tree\.json .*config\.data\.root = "):
    open_tree(TreeConfig(), config(tmp_path))
  assert set(open_source(config(tmp_path), TREE, "train").nodes[:, 0]) == {CUP}


def test_nodes_of_another_tree_than_the_one_beside_them_are_refused(tmp_path, features):
  save(tmp_path / "train", features, np.full(6, CUP), TREE)
  about = tmp_path / "features.json"
  about.write_text(json.dumps({"tree_sha256": TREE.checksum}))
  assert len(open_source(config(tmp_path), TREE, "train")) == 6
  other = from_paths([("animal", "dog", "basenji"), ("thing", "cat"), ("thing", "cup")])
  (tmp_path / "tree.json").write_text(other.to_json())
  with pytest.raises(UserError, match=r"another tree .*tree\.json"):
    open_source(config(tmp_path), TREE, "train")
  about.write_text("{}")  # as older ones
  assert len(open_source(config(tmp_path), TREE, "train")) == 6
  about.write_text("[" * 100_000)
  with pytest.raises(UserError, match=r"features\.json is damaged"):
    open_source(config(tmp_path), TREE, "train")


def test_a_row_that_is_not_finite_is_named_or_skipped(tmp_path, features):
  features[3, 2] = np.nan
  save(tmp_path / "train", features, np.full(6, CUP), TREE)
  source = open_source(config(tmp_path), TREE, "train")
  with pytest.raises(BadImageError, match=r"train/features\.npy row 3 has values that are NaN"):
    source.read(np.array([0, 3, 5]))
  skipping = config(tmp_path, on_bad_image="skip", threads=1)
  (batch,) = eval_batches(LabelledImages(source, TREE), skipping, ProcessRows(6))
  assert batch.mask.tolist() == [1, 1, 1, 0, 1, 1] and batch.images.dtype == np.float32
  np.testing.assert_array_equal(batch.images, features[[0, 1, 2, 0, 4, 5]])


@pytest.mark.parametrize(
  ("features", "nodes", "message"),
  [
    (np.zeros((2, 4)), np.zeros(2, int), r"features\.npy: is float64\[2, 4\]; want float32\[n d\]"),
    (np.zeros((2, 4, 1), np.float32), np.zeros(2, int), r"float32\[2, 4, 1\]"),
    (np.zeros((2, 4), np.float32), np.zeros(3, int), "2 rows of features and labels of 3"),
    (np.zeros((2, 4), np.float32), np.array([0, 7]), r"nodes\.npy holds 7 in row 1; the tree has nodes 0 to 5"),
    (np.zeros((2, 4), np.float32), np.array([0, 2**32 + 3]), "holds 4294967299 in row 1"),
    (np.zeros((2, 4), np.float32), np.array([2**63 + 5, 0], np.uint64), "holds 9223372036854775813 in row 0"),
    (np.zeros((2, 4), np.float32), np.zeros(2), "float64.*want integers"),
    (np.zeros((2, 4), np.float32), np.zeros(2, bool), "bool.*want integers"),
    (np.array([object()]), np.zeros(1, int), "cannot be read"),
  ],
)
def test_files_that_cannot_be_used(tmp_path, features, nodes, message):
  save(tmp_path / "train", features, nodes)
  with pytest.raises(UserError, match=message):
    open_source(config(tmp_path), TREE, "train")


@pytest.mark.parametrize("nodes", [np.zeros(0, int), np.zeros((0, 2), int)])
def test_a_split_without_rows_is_empty(tmp_path, nodes):
  save(tmp_path / "train", np.zeros((0, 4), np.float32), nodes)
  assert len(open_source(config(tmp_path), TREE, "train")) == 0


@pytest.mark.parametrize("root", ["", "nowhere"])
def test_a_folder_that_is_none_states_the_layout(root):
  with pytest.raises(UserError, match=r"config\.data\.root = .*features\.npy, float32\[n d\]"):
    open_source(config(root), TREE, "train")
  with pytest.raises(UserError, match=r"config\.data\.root = "):
    open_tree(TreeConfig(), config(root))


def test_labels_that_are_missing_are_named(tmp_path, features):
  save(tmp_path / "train", features, np.zeros(6, int))
  (tmp_path / "train" / "nodes.npy").unlink()
  with pytest.raises(UserError, match=r"train/nodes\.npy: cannot be read"):
    open_source(config(tmp_path), TREE, "train")


@pytest.mark.parametrize("sizes", [(), (3,), (200, 1, 0, 99, 1000)])
def test_blocks_are_written_as_one_array(tmp_path, rng, sizes):
  blocks = [rng.normal(size=(m, 5)).astype(np.float32) for m in sizes]
  write_rows(tmp_path / "x.npy", 5, iter(blocks))
  np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.concatenate([np.zeros((0, 5), np.float32), *blocks]))
