"""S_fine and S_coarse: how training images are divided, what becomes of coarse labels, the file of pseudo-labels."""

import dataclasses
import itertools

import numpy as np
import pytest

from hierjax.data.config import PARTIAL_LABELS, DataConfig
from hierjax.data.open_source import Opened, open_partial_labels, open_source
from hierjax.data.partial_labels import check_short_labels, known_labels, to_train_on
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.source import ArraySource, View, nodes_column
from hierjax.data.splits import with_partial_labels, with_whole_labels
from hierjax.errors import UserError
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import PAD, ROOT

TREE = from_paths([("animal", "dog", "basenji"), ("animal", "dog", "leonberg"), ("animal", "cat"), ("thing", "cup")])
DOG, CAT, CUP, BASENJI, LEONBERG = (
  TREE.find(path)
  for path in (("animal", "dog"), ("animal", "cat"), ("thing", "cup"), ("animal", "dog", "basenji"),
               ("animal", "dog", "leonberg"))
)  # fmt: skip


def noise(**changes):
  """A config of 400 vectors over TREE to train on, 80 with whole labels and 200 with coarse ones."""
  return DataConfig(name="noise", width=3, **dict(examples=400, fine=0.2, coarse=0.5) | changes)


def fine_and_coarse(count, fine, coarse, seed):
  s_fine = with_whole_labels(np.zeros(count, int), fine, 0, seed)
  return s_fine, with_partial_labels(s_fine, coarse, seed)


def numbers(view):
  return view.indices.tolist()


@pytest.mark.parametrize(("fine", "coarse"), [(0.1, 0.1), (0.2, 0.5), (0.5, 0.5), (0.3, 0.0)])
def test_the_parts_are_disjoint_and_as_large_as_they_should_be(fine, coarse):
  parts = fine_and_coarse(1001, fine, coarse, seed=3)
  assert [part.sum() for part in parts] == [round(1001 * fine), min(round(1001 * coarse), 1001 - round(1001 * fine))]
  assert not (parts[0] & parts[1]).any()
  places = np.flatnonzero(parts[0])
  assert 200 < places.mean() < 800 and np.diff(places).max() < 200, "they lie all over the set"


def test_the_parts_of_few_images_are_disjoint_where_both_are_rounded_up():
  assert [part.sum() for part in fine_and_coarse(3, 0.5, 0.5, seed=0)] == [2, 1]
  for count, fine, seed in itertools.product(range(9), (0.1, 0.25, 0.5, 0.75, 1.0), range(3)):
    parts = fine_and_coarse(count, fine, 1 - fine, seed)
    assert not (parts[0] & parts[1]).any() and (parts[0] | parts[1]).sum() <= count


def test_a_part_of_a_seed_lies_within_the_larger_ones_and_does_not_depend_on_the_other():
  fine = {(f, c): fine_and_coarse(1000, f, c, seed=3) for f in (0.1, 0.2, 0.5) for c in (0.1, 0.2, 0.5)}
  for (f, c), (s_fine, s_coarse) in fine.items():
    np.testing.assert_array_equal(s_fine, fine[f, 0.1][0])
    np.testing.assert_array_equal(s_coarse, fine[0.1, c][1])
    assert not (s_fine & ~fine[0.5, c][0]).any() and not (s_coarse & ~fine[f, 0.5][1]).any()
  assert (fine_and_coarse(1000, 0.1, 0.1, seed=4)[0] != fine[0.1, 0.1][0]).any()


def test_so_many_of_each_label_keep_it_whole_and_all_of_a_label_with_fewer():
  ends = np.random.default_rng(0).permutation([4] * 50 + [5] * 30 + [7] * 3)
  s_fine = {count: with_whole_labels(ends, 1.0, count, seed=3) for count in (1, 2, 5)}
  for count, found in s_fine.items():
    assert [(ends[found] == end).sum() for end in (4, 5, 7)] == [count, count, min(count, 3)]
  assert not (s_fine[2] & ~s_fine[5]).any() and not (s_fine[1] & ~s_fine[2]).any()
  assert (with_whole_labels(ends, 1.0, 2, seed=4) != s_fine[2]).any()
  parts = [with_partial_labels(s_fine[5], fraction, seed=3) for fraction in (0.0, 0.2, 1.0)]
  assert [part.sum() for part in parts] == [0, 17, 83 - 13] and not (parts[2] & s_fine[5]).any()
  assert not (parts[1] & ~parts[2]).any()
  config = DataConfig(fine_per_label=2, coarse=1.0, coarse_level=1)
  found = known_labels(own_images([CAT] * 3 + [CUP]), config, TREE)
  assert sorted(found.known[:, 0].tolist()) == sorted([CAT, CAT, TREE.find(("animal",)), CUP])


def test_every_arm_divides_the_images_alike():
  found = open_partial_labels(noise(), TREE)
  opened = {arm: open_source(noise(partial_labels=arm), TREE, "train") for arm in ("direct", "drop", "truth")}
  assert found.partial.sum() == 200 and (~found.partial).sum() == 80
  assert numbers(opened["direct"]) == numbers(opened["truth"]) == numbers(found.images)
  assert numbers(opened["drop"]) == found.images.indices[~found.partial].tolist()
  whole = open_source(noise(fine=1.0, coarse=0.0), TREE, "train").nodes
  np.testing.assert_array_equal(opened["truth"].nodes, whole[opened["truth"].indices])
  np.testing.assert_array_equal(opened["drop"].nodes, whole[opened["drop"].indices])
  direct, truth = (opened[arm].nodes[:, 0].tolist() for arm in ("direct", "truth"))
  for cut, node, coarse in zip(direct, truth, found.partial.tolist(), strict=True):
    assert cut == (TREE.path(node)[0] if coarse else node)


def test_validation_and_test_keep_whole_labels_and_training_shares_no_image_with_them(tmp_path):
  nodes = np.resize(TREE.leaves, 200)
  images = np.arange(200 * 48, dtype=np.int64).astype(np.uint8).reshape(200, 4, 4, 3)
  for split in ("train", "test"):
    np.savez(tmp_path / f"{split}.npz", images=images, nodes=nodes)
  plain = DataConfig(name="arrays", root=str(tmp_path), resize=4, crop=4, validation=0.25)
  divided = dataclasses.replace(plain, fine=0.4, coarse=0.4)
  for split in ("validation", "test"):
    ours, theirs = (open_source(config, TREE, split) for config in (divided, plain))
    assert numbers(ours) == numbers(theirs)
    np.testing.assert_array_equal(ours.nodes, theirs.nodes)
  train = open_source(divided, TREE, "train")
  assert len(train) == 120 and not set(numbers(train)) & set(numbers(open_source(plain, TREE, "validation")))


def test_labels_are_cut_to_the_levels_that_are_left_in_the_tree_in_use():
  deep = open_partial_labels(noise(coarse_level=2), TREE)
  assert set(deep.known[deep.partial, 0]) == {DOG}, "what ends on the second level has nothing to lose"
  assert set(deep.images.nodes[deep.partial, 0]) == {BASENJI, LEONBERG}
  top = open_partial_labels(noise(), TREE.truncated(2), TREE)
  assert set(top.images.nodes[:, 0]) == {DOG, CAT, CUP} and set(top.known[top.partial, 0]) == {0, 1}
  assert numbers(top.images) == numbers(open_partial_labels(noise(), TREE).images)


def own_images(nodes):
  column = nodes_column(np.array(nodes))
  return View(ArraySource(np.zeros((len(column), 2), np.float32), column), np.arange(len(column)), column)


def test_labels_that_end_early_by_themselves_are_coarse_too():
  images = own_images([BASENJI, DOG, CUP, ROOT, CAT, 0])
  expected = {"direct": [BASENJI, DOG, CUP, ROOT, CAT, 0], "drop": [BASENJI, CUP, CAT]}
  expected["truth"] = expected["direct"]
  for arm, nodes in expected.items():
    assert to_train_on(images, DataConfig(partial_labels=arm), TREE).nodes[:, 0].tolist() == nodes
  several = own_images([[BASENJI, CUP], [CAT, DOG], [CUP, PAD]])
  assert known_labels(several, DataConfig(), TREE).partial.tolist() == [False, True, False]


# Pseudo-labels.


def answers(found, nodes):
  coarse = found.partial_images()
  return PseudoLabels(
    rows=coarse.indices,
    known=coarse.nodes[:, 0],
    nodes=np.asarray(nodes, np.int32),
    probability=np.linspace(0, 1, len(coarse), dtype=np.float32),
    tree=TREE.checksum,
    fine=found.fine_checksum,
    file="",
  )


@pytest.fixture
def labels_file(tmp_path, rng):
  """Returns a file of random pseudo-labels for `noise()`."""
  found = open_partial_labels(noise(), TREE)
  file = tmp_path / "labels.npz"
  file.write_bytes(answers(found, rng.choice(TREE.leaves, 200)).to_bytes())
  return str(file)


def test_pseudo_labels_are_read_as_they_were_written_and_serve_a_smaller_s_coarse_too(labels_file):
  saved = PseudoLabels.load(labels_file)
  by_row = dict(zip(saved.rows.tolist(), saved.nodes.tolist(), strict=True))
  for coarse in (0.5, 0.1):
    config = noise(coarse=coarse)
    found = open_partial_labels(config, TREE)
    source = open_source(dataclasses.replace(config, partial_labels="pseudo", pseudo_labels=labels_file), TREE, "train")
    assert numbers(source) == numbers(found.images)
    truth = found.images.nodes[:, 0].tolist()
    expected = [by_row[i] if c else y for i, c, y in zip(numbers(source), found.partial, truth, strict=True)]
    assert source.nodes[:, 0].tolist() == expected
  np.testing.assert_allclose(saved.probability, np.linspace(0, 1, 200), rtol=1e-6)


@pytest.mark.parametrize(
  ("changes", "tree", "message"),
  [
    (dict(fine=0.3), TREE, "of other training images"),
    (dict(split_seed=1), TREE, "of other training images"),
    (dict(coarse=0.6), TREE, "of other training images"),
    (dict(coarse_level=2), TREE, "of other training images"),
    (dict(examples=402), TREE, "of other training images"),
    (dict(), TREE.truncated(2), "of another tree"),
  ],
)
def test_pseudo_labels_of_something_else_are_refused(labels_file, changes, tree, message):
  config = noise(partial_labels="pseudo", pseudo_labels=labels_file, **changes)
  with pytest.raises(UserError, match=rf"config\.data\.pseudo_labels = '.*npz': these labels are {message}"):
    open_source(config, tree, "train", Opened(TREE))


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 4], [1, 2, 3], []])
def test_an_image_without_a_row_is_refused_beyond_the_last_one_too(rows):
  coarse = own_images([0] * 4)
  nodes = np.full(len(rows), BASENJI, np.int32)
  labels = PseudoLabels(
    rows=np.array(rows, np.int64), known=np.zeros_like(nodes), nodes=nodes,
    probability=np.ones(len(rows), np.float32), tree=TREE.checksum, fine="", file="labels.npz",
  )  # fmt: skip
  with pytest.raises(UserError, match=r"labels\.npz.* of other training images"):
    labels.nodes_of(coarse, TREE, "")
  whole = dataclasses.replace(labels, **{
    name: np.resize(value, 4) for name, value in
    dict(known=[0], nodes=[BASENJI], probability=[1.0]).items()
  }, rows=np.arange(4))  # fmt: skip
  assert whole.nodes_of(coarse, TREE, "").tolist() == [BASENJI] * 4


def test_a_file_that_holds_no_pseudo_labels_is_refused_and_never_unpickled(tmp_path):
  (tmp_path / "text").write_text("labels")
  np.savez(tmp_path / "other.npz", images=np.zeros(3))
  np.save(tmp_path / "array.npy", np.zeros(3))
  whole = answers(open_partial_labels(noise(), TREE), np.full(200, CUP))
  (tmp_path / "whole.npz").write_bytes(whole.to_bytes())
  arrays = dict(np.load(tmp_path / "whole.npz"))
  np.savez(tmp_path / "short.npz", **arrays | {"nodes": whole.nodes[1:]})
  np.savez(tmp_path / "pickled.npz", **arrays | {"nodes": np.full(200, object())})
  for name in ("text", "other.npz", "array.npy", "short.npz", "pickled.npz", "absent", ""):
    config = noise(partial_labels="pseudo", pseudo_labels=str(tmp_path / name) if name else "")
    with pytest.raises(UserError, match=r"config\.data\.pseudo_labels = '.*': .*hierjax data pseudo-label"):
      open_source(config, TREE, "train")
  (tmp_path / "outside.npz").write_bytes(dataclasses.replace(whole, nodes=whole.nodes + 9).to_bytes())
  with pytest.raises(UserError, match=r"outside\.npz' .*\b13\b.* row 0"):
    open_source(noise(partial_labels="pseudo", pseudo_labels=str(tmp_path / "outside.npz")), TREE, "train")


# What cannot be meant.


def test_an_s_fine_with_no_example_of_a_class_is_refused_by_every_arm():
  for arm in PARTIAL_LABELS:
    with pytest.raises(UserError, match=r"config\.data\.fine = 0\.005: .*\b100 training images of '\w"):
      open_source(noise(fine=0.005, partial_labels=arm, split_seed=1), TREE, "train")
  images = own_images([CAT] * 99 + [CUP])
  seed = next(s for s in range(9) if not fine_and_coarse(100, 0.5, 0.5, s)[0][99])
  with pytest.raises(UserError, match=r"\b1 training images of 'thing/cup'"):
    known_labels(images, DataConfig(fine=0.5, coarse=0.5, split_seed=seed), TREE)


def test_keys_that_cannot_be_meant_are_refused_by_name():
  for key, value in (("fine", 0.0), ("fine", 1.1), ("coarse", 0.1), ("coarse_level", 0), ("partial_labels", "all")):
    with pytest.raises(UserError, match=rf"config\.data\.{key} = {value!r}: must be "):
      DataConfig(**{key: value})
  for changes in ({"fine_per_label": -1}, {"fine_per_label": 2, "fine": 0.5}):
    with pytest.raises(
      UserError, match=r"config\.data\.fine_per_label = .*: must be 0 or more, and 0 where data\.fine"
    ):
      DataConfig(**changes)
  with pytest.raises(UserError, match=r"config\.data\.coarse = 1\.5: must be from 0 to 1"):
    DataConfig(fine_per_label=2, coarse=1.5)
  assert DataConfig(fine=0.9, coarse=0.1).coarse == 0.1, "rounding is no error"
  with pytest.raises(UserError, match=r"config\.data\.coarse_level = 3: .*\b2\b"):
    open_source(noise(coarse_level=3), TREE, "train")
  for config in (noise(), DataConfig(partial_labels="drop")):
    check_short_labels(config, "unknown")
    with pytest.raises(UserError, match=r"config\.tree\.short_labels = 'stop'"):
      check_short_labels(config, "stop")
  check_short_labels(DataConfig(), "stop")
