import csv
import dataclasses
import io

import jax
import numpy as np
import pytest
from commands import MESH, run_command

from hierjax.data.source import ArraySource
from hierjax.errors import UserError
from hierjax.evaluation.predictions import Predictions, compared
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.plots import path_sheet as module
from hierjax.report.plots import predictions as paths_picture
from hierjax.report.plots.path_sheet import PathSheet, choose_groups, find_paths, groups_table, path_lines
from hierjax.report.plots.predictions import HEADER, draw_paths
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import PAD, LabelTree
from hierjax.types import Prediction

compared_together = jax.jit(compared)


def every_pair(tree, short_labels):
  """Returns the predictions of every pair of a label, none among them, and a path, and the true group of each."""
  assert tree.num_nodes == 7  # so that all tests share what is compiled
  labels, predicted = (x.ravel() for x in np.meshgrid(range(-1, 7), range(7)))
  paths = np.maximum(tree.encode(predicted, "stop"), PAD)
  mask = np.ones(56, np.float32)
  mask[[15, 41]] = 0
  node_prob = np.tile(np.arange(1, 8, dtype=np.float32) / 16, (56, 1))
  quarters = np.full((56, 1), 0.25, np.float32)
  prediction = Prediction(paths[:, None], quarters, quarters, node_prob, raw_nodes=paths)
  predictions = compared_together(prediction, tree.encode(labels, short_labels), mask)
  groups = []
  for label, answer, counts in zip(map(tree.path, labels), map(tree.path, predicted), mask, strict=True):
    same = answer == label if short_labels == "stop" else answer[: len(label)] == label
    group = "right" if same else "partly right" if answer[:1] == label[:1] else "wholly wrong"
    groups.append(group if label and counts else "none")
  return labels, predicted, jax.device_get(predictions), np.array(groups)


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_groups_part_all_pairs_of_labels_and_predictions(toy_tree, small_config, short_labels):
  labels, predicted, predictions, groups = every_pair(toy_tree, short_labels)
  for name, mask in predictions.groups.items():
    np.testing.assert_array_equal(mask, groups == name)
  run = dataclasses.replace(Run.from_config(small_config(neck=dict(name="none"))), tree=toy_tree)
  sheet = PathSheet(run, "test", ArraySource(np.zeros((56, 4), np.float32), labels[:, None]), predictions, {})
  for image, group in enumerate(groups):
    if group == "none":
      continue
    lines = path_lines(sheet, image)
    marks = [line.right for line in lines]
    assert (False in marks) == (group != "right") and (marks[0] is False) == (group == "wholly wrong")
    path = toy_tree.path(predicted[image])
    assert [line.name for line in lines[: len(path)]] == [toy_tree.names[node] for node in path]
    assert [line.probability for line in lines[: len(path)]] == [(node + 1) / 16 for node in path]
    ends_early = not toy_tree.is_leaf(predicted[image])
    assert [(line.name, line.probability) for line in lines[len(path) :]] == [("ends here", 0.25)] * ends_early


def random_answers(rng, n, shares, categories):
  kind = rng.choice(3, n, p=shares)
  empty = np.zeros((n, 1))
  predictions = Predictions(rng.random(n) < 0.9, kind == 0, kind < 2, *[empty] * 5)
  return predictions, rng.integers(categories, size=n)


@pytest.mark.parametrize(
  ("shares", "categories", "each"),
  [
    ((0.4, 0.3, 0.3), 7, 6),
    ((0.4, 0.3, 0.3), 2, 6),
    ((0.02, 0.0, 0.98), 3, 9),
    ((0.0, 0.5, 0.5), 3, 4),
    ((1.0, 0.0, 0.0), 3, 4),
  ],
)
def test_chosen_images_are_of_their_groups(rng, shares, categories, each):
  predictions, category = random_answers(rng, 200, shares, categories)
  right, partly, wrong = (set(np.flatnonzero(mask).tolist()) for mask in predictions.groups.values())
  chosen = {group: images.tolist() for group, images in choose_groups(predictions, category, each, rng).items()}
  for group, among in {"a": right, "b": partly, "c": right, "d": wrong}.items():
    assert set(chosen[group]) <= among and len(set(chosen[group])) == len(chosen[group]) <= each
  assert len(chosen["a"]) == min(each, len(right)) and len(chosen["b"]) == min(each, len(partly))
  pairs = {c: min(sum(category[i] == c for i in group) for group in (right, wrong)) for c in range(categories)}
  assert category[chosen["c"]].tolist() == category[chosen["d"]].tolist()
  assert len(chosen["c"]) == min(each, sum(pairs.values()))
  assert len(set(category[chosen["c"]].tolist())) == min(each, sum(count > 0 for count in pairs.values()))
  assert len(set(chosen["a"]) & set(chosen["c"])) == max(0, len(chosen["a"]) + len(chosen["c"]) - len(right))


def test_a_seed_fixes_what_is_chosen(rng):
  predictions, category = random_answers(rng, 200, (0.4, 0.3, 0.3), 20)
  first, same, other = (choose_groups(predictions, category, 4, np.random.default_rng(seed)) for seed in (3, 3, 4))
  for group, images in first.items():
    np.testing.assert_array_equal(images, same[group])
    assert not np.array_equal(images, other[group])


@pytest.fixture
def sheet(small_config, rng):
  """A sheet of every pair of a label and a prediction, over a tree whose names are no mathematics, and long."""
  names = ["$a_", "b\n", "$\\frac{", "a name/of-many_words " * 9, "$x$", "x^", "-"]
  tree = LabelTree.from_children(names, [2, 2, 1, 2, 0, 0, 0, 0])
  labels, _, predictions, _ = every_pair(tree, "stop")
  run = dataclasses.replace(Run.from_config(small_config(neck=dict(name="none"))), tree=tree)
  images = rng.integers(0, 255, (56, 8, 10, 1), dtype=np.uint8)
  chosen = choose_groups(predictions, labels, 3, rng)
  return PathSheet(run, "test", ArraySource(images, labels[:, None], "toys"), predictions, chosen)


def drawn(monkeypatch, folder, sheet):
  texts = []
  original = paths_picture.Page.text

  def text(page, left, top, text, **how):
    texts.append(text)
    original(page, left, top, text, **how)

  monkeypatch.setattr(paths_picture.Page, "text", text)
  path = draw_paths(folder, sheet)
  assert sorted(p.name for p in path.parent.iterdir()) == ["paths.csv", "paths.png"]
  return texts, list(csv.DictReader(io.StringIO(path.with_suffix(".csv").read_text(encoding="utf-8"))))


def test_the_table_and_the_picture_say_the_same(sheet, tmp_path, monkeypatch):
  texts, rows = drawn(monkeypatch, RunFolder(tmp_path), sheet)
  assert tuple(rows[0]) == HEADER
  assert texts.count("✓") == sum(row["right"] == "1" for row in rows)
  assert texts.count("✗") == sum(row["right"] == "0" for row in rows)
  assert texts.count("?") == sum(row["right"] == "" for row in rows)
  assert [t for t in texts if t[:2] in ("0.", "1.")] == [f"{float(row['probability']):.2f}" for row in rows]
  for group, images in sheet.chosen.items():
    own = [row for row in rows if row["group"] == group]
    named = [sheet.source.name_of(image) for image in images.tolist()]
    assert list(dict.fromkeys(row["image"] for row in own)) == named and len(named) == int(own[-1]["place"])
  sizes = {row["group"]: row["in_group"] for row in rows}
  right, partly, wrong = (int(mask.sum()) for mask in sheet.predictions.groups.values())
  assert sizes == {"a": str(right), "b": str(partly), "c": str(right), "d": str(wrong)}
  assert any(f": {right} right, {partly} partly right, {wrong} wholly wrong" in text for text in texts)
  assert "47 images of test" in groups_table(sheet) and f"{100 * wrong / 47:.2f}%" in groups_table(sheet)


def test_empty_groups_say_so(sheet, tmp_path, monkeypatch):
  predictions = dataclasses.replace(sheet.predictions, right=np.ones(56, bool))
  chosen = choose_groups(predictions, sheet.source.nodes[:, 0], 3, np.random.default_rng(0))
  texts, rows = drawn(
    monkeypatch, RunFolder(tmp_path), dataclasses.replace(sheet, predictions=predictions, chosen=chosen)
  )
  assert {row["group"] for row in rows} == {"a"}
  assert [t[:3] for t in texts if t.endswith(": no image")] == ["(b)", "(c)", "(d)"]


def test_a_sheet_is_what_the_run_predicts(context_run):
  found = find_paths(LoadedRun.open(context_run, MESH), "validation", each=2)
  assert found.split == "validation"
  run, tree, n = Run.from_folder(context_run), found.run.tree, len(found.source)
  _, variables = run.restored_variables(context_run, MESH)
  pixels = found.source.read(np.arange(n))[:, 2:18, 2:18].astype(np.float32)
  logits = jax.jit(run.method.module.apply)(variables, (pixels / 255 - 0.5) / 0.25)  # of a softmax over the leaves
  prob = np.asarray(jax.nn.softmax(logits))
  below = np.array([[node in tree.path(leaf) for leaf in tree.leaves] for node in range(tree.num_nodes)])
  for image in range(n):
    path = tree.path(tree.leaves[prob[image].argmax()])
    assert found.predictions.paths[image, : len(path)].tolist() == list(path) and found.predictions.counted[image]
    np.testing.assert_allclose(
      found.predictions.probability[image, : len(path)], prob[image] @ below[list(path)].T, 1e-4
    )
    assert found.predictions.right[image] == (path[-1] == found.source.nodes[image, 0])
  counts = groups_table(found).splitlines()
  assert counts[0] == f"{n} images of validation"
  assert [int(line.split()[-2]) for line in counts[3:]] == [mask.sum() for mask in found.predictions.groups.values()]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--each=0"], "--each 0: choose from 1 to 20"),
    (["--seed=-1"], "--seed -1: must be 0 or more"),
  ],
)
def test_mistakes_on_the_command_line_end_in_a_sentence(context_run, flags, message):
  with pytest.raises(UserError, match=message):
    run_command("plot predictions", context_run.path, *flags)


@pytest.mark.parametrize(
  ("images", "labels", "message"),
  [
    (np.zeros((3, 5), np.float32), 1, r"a picture needs grey or RGB images; this set has arrays of shape \[5\]"),
    (np.zeros((3, 20, 20, 3), np.uint8), 2, "images of 'shapes' have several label paths"),
  ],
)
def test_data_that_make_no_sheet_are_refused_before_the_work(context_run, monkeypatch, images, labels, message):
  monkeypatch.setattr(Run, "source", lambda run, split: ArraySource(images, np.zeros((3, labels), np.int32)))
  monkeypatch.setattr(module, "predictions_of_run", lambda *_: pytest.fail("predicted"))
  with pytest.raises(UserError, match=message):
    find_paths(LoadedRun.open(context_run, MESH))
