"""Labels that end above a leaf, and other trees, in evaluations of several runs."""

import json
import shutil

import numpy as np
import pytest

from hierjax.cli.main import main
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import LabelTree

WIDTH = 6
TREE = from_paths([("animal", "cat"), ("animal", "dog"), ("thing", "cup"), ("thing", "bed")])
WHOLE, TOP = 11, 7  # labels that end at a leaf and on the first level: with them no batch of 40 is full


@pytest.fixture(scope="module")
def runs(make_run, small_config, tmp_path_factory):
  """The folders of two runs on features, whose labels to test on may end early."""
  root, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
  (root / "tree.json").write_text(TREE.to_json())
  short = [*np.resize(TREE.leaves, WHOLE), *np.resize([0, 1], TOP)]
  for split, nodes in (("train", np.resize(TREE.leaves, 40)), ("test", rng.permutation(short))):
    (root / split).mkdir()
    np.save(root / split / "features.npy", rng.normal(size=(len(nodes), WIDTH)).astype(np.float32))
    np.save(root / split / "nodes.npy", nodes)
  config = small_config(
    backbone=dict(name="features", width=WIDTH), neck=dict(name="none"), head=dict(name="coarse_fine"),
    data=dict(name="features", root=str(root), validation=0.0), tree=dict(source="images"),
  )  # fmt: skip
  return [make_run(config, seed, name=f"run{seed}", sharpness=4.0).path for seed in range(2)]


def evaluation(path, *arguments):
  assert main(["evaluate", *map(str, arguments)]) == 0
  return json.loads((path / "eval" / "test.json").read_text())


def test_an_ensemble_counts_the_labels_that_its_members_count(runs, tmp_path):
  alone = [evaluation(run, run) for run in runs]
  together = evaluation(tmp_path, *runs, "--out", tmp_path)
  members = together["ensembles"][0]
  assert members["size"] == 1 and members["subsets"] == 2
  errors = 1 - np.array([[*one["raw_level_accuracy"], one["path_accuracy"]] for one in alone])
  np.testing.assert_allclose([*members["raw_level_error"], members["path_error"]], errors.mean(axis=0), atol=1e-6)
  both = together["ensembles"][1]
  errors = [*(1 - np.array(together["raw_level_accuracy"])), 1 - together["path_accuracy"]]
  np.testing.assert_allclose([*both["raw_level_error"], both["path_error"]], errors, atol=1e-6)
  for counted, error in zip((WHOLE + TOP, WHOLE), both["raw_level_error"], strict=True):
    assert error * counted == pytest.approx(round(error * counted), abs=1e-5) and 0 < error < 1


def test_runs_on_another_tree_are_not_compared(make_run, small_config, tmp_path, capsys):
  config = small_config(
    backbone=dict(name="features", width=WIDTH), neck=dict(name="none"), data=dict(name="noise", width=WIDTH)
  )
  folder = make_run(config)
  tree = folder.tree()
  renamed = LabelTree.from_children([name.upper() for name in tree.names], np.diff(tree.child_offsets))
  for name in "abcd":
    shutil.copytree(folder.path, tmp_path / name)
    if name in "cd":
      (tmp_path / name / "tree.json").write_text(renamed.to_json())
  a, b, c, d = (str(tmp_path / name) for name in "abcd")
  assert main(["evaluate", a, b, "--against", c, d]) == 1
  err = capsys.readouterr().err
  assert a in err and c in err and "tree" in err
