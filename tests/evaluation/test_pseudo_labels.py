"""Pseudo-labels: predictions of the missing part of a label, given its known part, and runs that train on them."""

import numpy as np
import pytest
from commands import MESH

from hierjax.cli.main import main
from hierjax.data.open_source import open_partial_labels
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.errors import UserError
from hierjax.evaluation.pseudo_labels import PseudoLabelRule, pseudo_label_summary, write_pseudo_labels
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.run import Run

WIDTH = 6
DIVIDED = dict(name="noise", width=WIDTH, examples=400, fine=0.3, coarse=0.4, partial_labels="drop")


@pytest.fixture(scope="module")
def on_vectors(small_config):
  """Returns the config of a head on vectors, a third of them with whole labels; arguments change whole sections."""

  def config(**changes):
    data = DIVIDED | changes.pop("data", {})
    parts = dict(backbone=dict(name="features", width=WIDTH), neck=dict(name="none"), data=data)
    return small_config(**parts | changes)

  return config


@pytest.fixture(scope="module")
def teacher(make_run, on_vectors):
  """The folder of a run that has just begun: a flat head."""
  return make_run(on_vectors(), name="teacher")


def leaf_probabilities(folder):
  """Returns the run, its S_fine and S_coarse, and the softmax over the leaves for each image of S_coarse."""
  run = Run.from_folder(folder)
  found = open_partial_labels(run.data, run.tree, run.full_tree())
  _, variables = run.restored_variables(folder, MESH)
  layer = {name: np.asarray(value) for name, value in variables["params"]["head"]["output"].items()}
  coarse = found.partial_images()
  logits = coarse.read(np.arange(len(coarse))) @ layer["kernel"] + layer["bias"]
  prob = np.exp(logits - logits.max(axis=1, keepdims=True))
  return run, found, prob / prob.sum(axis=1, keepdims=True)


def test_the_best_leaf_below_the_known_label_with_its_probability(teacher):
  run, found, prob = leaf_probabilities(teacher)
  known, leaves = found.known[found.partial, 0], run.tree.leaves
  below = np.array([[run.tree.path(leaf)[0] for leaf in leaves]]) == known[:, None]
  given = np.where(below, prob, 0)
  said = write_pseudo_labels(LoadedRun.open(teacher, MESH))
  labels = PseudoLabels.load(str(said.file))
  assert said.file == teacher.path / "pseudo_labels.npz" and len(labels.rows) == 160
  np.testing.assert_array_equal(labels.rows, found.images.indices[found.partial])
  np.testing.assert_array_equal(labels.known, known)
  np.testing.assert_array_equal(labels.nodes, leaves[given.argmax(axis=1)])
  np.testing.assert_allclose(labels.probability, given.max(axis=1) / given.sum(axis=1), rtol=1e-4)
  truth = found.images.nodes[found.partial, 0]
  share = (labels.nodes == truth).mean()
  assert said.labelled.all() and said.judged.all() and said.right.mean() == share and 0 < share < 1
  assert "160 of 160 training images" in pseudo_label_summary(
    said
  ) and f"accuracy {100 * share:.2f}% on the 160" in pseudo_label_summary(said)


def test_free_labels_do_not_heed_what_is_known(teacher, tmp_path):
  run, _, prob = leaf_probabilities(teacher)
  labels = PseudoLabels.load(
    str(write_pseudo_labels(LoadedRun.open(teacher, MESH), tmp_path / "free", PseudoLabelRule(free=True)).file)
  )
  np.testing.assert_array_equal(labels.nodes, run.tree.leaves[prob.argmax(axis=1)])
  np.testing.assert_allclose(labels.probability, prob.max(axis=1), rtol=1e-4)


def test_another_run_trains_on_them_and_below_a_confidence_on_what_is_known(teacher, on_vectors, tmp_path):
  labels = PseudoLabels.load(str(write_pseudo_labels(LoadedRun.open(teacher, MESH)).file))
  least = float(np.median(labels.probability))
  said = write_pseudo_labels(LoadedRun.open(teacher, MESH), tmp_path / "sure.npz", PseudoLabelRule(least))
  sure = labels.probability >= least
  np.testing.assert_array_equal(said.labelled, sure)
  assert f"{(~sure).sum()} keep the label that they have" in pseudo_label_summary(said)
  data = dict(partial_labels="pseudo", pseudo_labels=str(said.file))
  source = Run.from_config(on_vectors(data=data)).source("train")
  truth = Run.from_config(on_vectors(data=dict(partial_labels="truth"))).source("train")
  coarse = np.isin(source.indices, labels.rows)
  np.testing.assert_array_equal(source.nodes[coarse, 0], np.where(sure, labels.nodes, labels.known))
  np.testing.assert_array_equal(source.nodes[~coarse], truth.nodes[~coarse])
  np.testing.assert_array_equal(source.indices, truth.indices)


def test_a_path_is_followed_below_the_known_label(make_run, on_vectors):
  head = dict(name="path_rnn", width=8, softmax="siblings", exact_inner_nodes=0)
  decode = dict(beam=1, normalise="siblings")
  folder = make_run(on_vectors(head=head, decode=decode, data=dict(coarse_level=2)))
  labels = PseudoLabels.load(str(write_pseudo_labels(LoadedRun.open(folder, MESH)).file))
  tree = folder.tree()
  assert np.isin(labels.nodes, tree.leaves).all() and tree.depth > 2 and len(labels.nodes) > 50
  for node, known in zip(labels.nodes.tolist(), labels.known.tolist(), strict=True):
    assert known in tree.path(node)


def test_own_images_whose_labels_end_above_a_leaf(make_run, on_vectors, tmp_path, capsys):
  tree = Run.from_config(on_vectors()).tree
  nodes = np.resize(tree.leaves, 60)
  nodes[::7] = 0
  nodes[::11] = -1  # nothing is known
  out = tmp_path / "own" / "train"
  out.mkdir(parents=True)
  np.save(out / "features.npy", np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32))
  np.save(out / "nodes.npy", nodes)
  own = dict(name="features", root=str(tmp_path / "own"), fine=1.0, coarse=0.0, validation=0.0)
  folder = make_run(on_vectors(data=own))
  assert main(["data", "pseudo-label", str(folder.path), "--out", str(tmp_path / "labels.npz")]) == 0
  printed = capsys.readouterr().out
  assert "14 of 14 training images whose labels end above a leaf have a pseudo-label" in printed
  assert "accuracy" not in printed, "these images have no whole labels"
  assert f"--config.data.partial_labels=pseudo --config.data.pseudo_labels={tmp_path / 'labels.npz'}" in printed
  data = own | dict(partial_labels="pseudo", pseudo_labels=str(tmp_path / "labels.npz"))
  filled = Run.from_config(on_vectors(data=data)).source("train").nodes[:, 0]
  short = ~np.isin(nodes, tree.leaves)
  assert np.isin(filled, tree.leaves).all()
  np.testing.assert_array_equal(filled[~short], nodes[~short])
  assert all(tree.path(node)[0] == 0 for node in filled[nodes == 0].tolist())


def test_what_cannot_be_labelled_is_said_in_a_sentence(make_run, on_vectors, teacher, capsys):
  with pytest.raises(UserError, match=r"--min-confidence 1\.5: must be from 0 to 1"):
    PseudoLabelRule(1.5)
  whole = dict(fine=1.0, coarse=0.0, partial_labels="direct")
  for changes, message in (
    (dict(data=whole), "there is nothing to label: no training image of 'noise' has a label that ends above a leaf"),
    (dict(data=whole, tree=dict(short_labels="stop")), "short_labels = 'stop' says that nothing follows a label"),
  ):
    folder = make_run(on_vectors(**changes))
    assert main(["data", "pseudo-label", str(folder.path)]) == 1
    assert message in capsys.readouterr().err
    assert not (folder.path / "pseudo_labels.npz").exists()
