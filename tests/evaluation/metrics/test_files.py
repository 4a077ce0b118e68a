"""`hierjax evaluate --predictions`: files of predictions and labels, the same numbers as `hj.metrics`, and faults."""

import csv
import json

import numpy as np
import pytest
from commands import run_command

import hierjax as hj
from hierjax.cli.common import UsageError
from hierjax.errors import UserError
from hierjax.evaluation.metrics.files import read_given

COUNT = 60


@pytest.fixture
def folder(tmp_path, toy_tree, rng):
  """A folder with a tree, labels, and the probabilities of the leaves of 60 images in a strange order."""
  (tmp_path / "tree.json").write_text(toy_tree.to_json())
  probs = rng.random((COUNT, 4)) ** 3
  probs /= probs.sum(axis=1, keepdims=True)
  best = toy_tree.leaves[np.where(rng.random(COUNT) < 0.7, probs.argmax(axis=1), rng.integers(0, 4, COUNT))]
  with (tmp_path / "labels.csv").open("w", newline="") as file:
    rows = [(f"{i}.png", toy_tree.path_text(best[i])) for i in range(COUNT)]
    csv.writer(file).writerows([("image", "label"), *rows, ("unused.png", "thing/cup")])
  with (tmp_path / "preds.csv").open("w", newline="") as file:
    order = [2, 0, 3, 1]
    names = [toy_tree.path_text(toy_tree.leaves[i]) for i in order]
    rows = [(f"./{i}.png", *probs[i, order]) for i in rng.permutation(COUNT)]
    csv.writer(file).writerows([("image", *names), *rows])
  return tmp_path, probs, best


def evaluate(folder, name, **flags):
  run_command("evaluate", predictions=folder / name, tree=folder / "tree.json", labels=folder / "labels.csv", **flags)


def test_the_command_writes_what_the_library_returns(folder, toy_tree, capsys):
  path, probs, best = folder
  evaluate(path, "preds.csv", out=path / "out", certify=0.3, sure=0.9)
  printed = capsys.readouterr().out
  assert "60 images" in printed and "95% interval" in printed and "1 images of" in printed and "certified" in printed
  found = json.loads((path / "out/eval/predictions.json").read_text())
  expected = hj.metrics(hj.Prediction.from_leaf_probs(probs, toy_tree), best, toy_tree)
  assert expected.keys() <= found.keys() and found["path_accuracy"] == expected["path_accuracy"]
  for name, value in expected.items():
    if name != "intervals" and not name.startswith("level_names"):
      assert found[name] == pytest.approx(value, abs=1e-6), name
  certificate = json.loads((path / "out/eval/certificate.json").read_text())
  assert certificate["certified"] == 0.3 and certificate["images"] == COUNT
  assert len((path / "out/eval/predictions-classes.csv").read_text().splitlines()) == 8


def test_files_of_every_kind_say_the_same(folder, toy_tree):
  path, probs, best = folder
  prediction = hj.Prediction.from_leaf_probs(probs, toy_tree)
  images = [f"{i}.png" for i in range(COUNT)]
  ends = toy_tree.ends(prediction.paths[:, 0])
  np.savez(path / "leaf.npz", leaf_probs=probs, images=images)
  np.savez(path / "node.npz", node_probs=prediction.node_prob, images=images)
  np.savez(path / "nodes.npz", nodes=ends, images=images)
  np.savez(path / "names.npz", nodes=[toy_tree.path_text(end) for end in ends], images=images)
  rows = [(image, toy_tree.path_text(end), 0.5, 1) for image, end in zip(images, ends, strict=True)]
  with (path / "paths.csv").open("w", newline="") as file:  # as `predict --top 2 --csv` writes it
    others = [(image, "thing", 0.2, 2) for image in images]
    csv.writer(file).writerows([("image", "path", "probability", "rank"), *rows, *others])
  for name in ("preds.csv", "leaf.npz", "node.npz", "nodes.npz", "names.npz", "paths.csv"):
    given = read_given(path / name, path / "labels.csv", toy_tree)
    found = {image.removeprefix("./"): end for image, end in
             zip(given.images, toy_tree.ends(given.prediction.paths[:, 0]), strict=True)}  # fmt: skip
    assert found == dict(zip(images, ends.tolist(), strict=True)), name
    labels = dict(zip(given.images, toy_tree.ends(given.labels), strict=True))
    assert labels[given.images[7]] == best[int(given.images[7].strip("./png"))] and given.unused == 1


def test_without_names_the_order_counts(folder, toy_tree):
  path, probs, best = folder
  np.savez(path / "leaf.npz", leaf_probs=np.vstack([probs, probs[:1]]))
  given = read_given(path / "leaf.npz", path / "labels.csv", toy_tree)
  np.testing.assert_array_equal(toy_tree.ends(given.labels), [*best, 4])
  np.savez(path / "leaf.npz", leaf_probs=probs)
  with pytest.raises(UserError, match=r"60 predictions and no array `images`, .* 61 images"):
    read_given(path / "leaf.npz", path / "labels.csv", toy_tree)


LEAVES = "image,animal/cat,thing/cup,animal/dog/basenji,animal/dog/leonberg\n"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (LEAVES, "must have a header"),
    (f"{LEAVES}0.png,1,0,0", r"preds.csv:2: 4 cells, and the header has 5"),
    (f"{LEAVES}0.png,1,0,0,0\n1.png,x,0,0,0", r"preds.csv:3: 'x' is no number"),
    (f"{LEAVES}0.png,1,0,0,0\n1.png,1,1,0,0", r"preds.csv:3: the probabilities of the leaves sum to 2, not to 1"),
    (f"{LEAVES}0.png,nan,0,0,0", r"preds.csv:2: the probability in column 0 is nan"),
    (f"{LEAVES}0.png,2,-1,0,0", r"preds.csv:2: the probability in column 1 is -1"),
    (f"{LEAVES}0.png,1,0,0,0\n0.png,1,0,0,0", r"preds.csv:3: '0.png' has a prediction already, at .*preds.csv:2"),
    (f"{LEAVES}wolf.png,1,0,0,0", r"preds.csv:2: 'wolf.png' has no label in .*labels.csv"),
    (
      "image,animal/cat,thing/cup\n0.png,1,0",
      r"preds.csv:1: probabilities of shape|preds.csv:1: 2 of 4 have no column",
    ),
    ("image,cat,cup,basenji,wolf\n0.png,1,0,0,0", r"preds.csv:1: 'wolf' is"),
    ("image,path\n0.png,animal/cat\n1.png,animal/wolf", r"preds.csv:3: 'wolf' is not below 'animal'"),
  ],
)
def test_the_message_has_the_line(folder, toy_tree, text, message):
  path, *_ = folder
  (path / "preds.csv").write_text(text)
  with pytest.raises(UserError, match=message):
    read_given(path / "preds.csv", path / "labels.csv", toy_tree)


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ("0.png,animal/wolf", r"labels.csv:2: 'wolf' is not below"),
    ("0.png,animal\n0.png,thing", r"labels.csv:3: '0.png' has a second label"),
    (",animal", r"labels.csv:2: the row has no image"),
  ],
)
def test_so_has_that_of_labels(folder, toy_tree, rows, message):
  path, *_ = folder
  (path / "labels.csv").write_text(f"image,label\n{rows}\n")
  with pytest.raises(UserError, match=message):
    read_given(path / "preds.csv", path / "labels.csv", toy_tree)


def test_npz_files_hold_numbers_and_texts_alone(folder, toy_tree):
  path, probs, _ = folder
  labels = path / "labels.csv"
  for name, arrays, message in (
    ("none.npz", {"other": probs}, "must have one of the arrays leaf_probs, node_probs, nodes; it has none"),
    ("two.npz", {"leaf_probs": probs, "nodes": [1]}, "must have one of"),
    ("objects.npz", {"nodes": np.array([{}], object)}, "cannot be read as an npz file of numbers"),
    ("count.npz", {"leaf_probs": probs, "images": ["0.png"]}, "1 images and 60 predictions"),
    ("bad.npz", {"leaf_probs": probs + 1}, "bad.npz: leaf_probs: image 0: .* not to 1"),
  ):
    np.savez(path / name, **arrays)
    with pytest.raises(UserError, match=message):
      read_given(path / name, labels, toy_tree)
  (path / "text.npz").write_text("no npz")
  np.save(path / "single.npy", probs)
  (path / "single.npy").rename(path / "single.npz")
  for name in ("text.npz", "single.npz", "missing.npz"):
    with pytest.raises(UserError, match=name):
      read_given(path / name, labels, toy_tree)


@pytest.mark.parametrize(
  ("words", "flags", "message"),
  [
    ((), {}, "give WORKDIR, a run's folder, or --predictions"),
    (("run",), {"tree": "t"}, "belong to --predictions"),
    (("run",), {"predictions": "p"}, "leave out run"),
    ((), {"predictions": "p", "alpha": 1}, "leave out --alpha"),
    ((), {"predictions": "p", "tree": "t"}, "needs the label tree and the labels"),
  ],
)
def test_arguments_that_do_not_go_together(words, flags, message):
  with pytest.raises((UserError, UsageError), match=message):
    run_command("evaluate", *words, **flags)


def test_a_certificate_needs_probabilities(folder, toy_tree):
  path, *_ = folder
  (path / "preds.csv").write_text("image,path\n0.png,animal")
  with pytest.raises(UserError, match="--certify needs probabilities"):
    evaluate(path, "preds.csv", certify=0.5)
