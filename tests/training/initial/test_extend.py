"""A run that extends another: more epochs, more images, other labels; what stays of its weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from hierjax.cli.main import main
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.initial.extend import Carried, carried_over, node_changes, same_nodes
from hierjax.training.initial.weights import started
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import LabelTree

EVEN = [("animal", "dog"), ("animal", "cat"), ("thing", "cup"), ("thing", "bed")]
EVEN_LATER = [("new", "x"), ("animal", "ant"), ("animal", "cat"), ("animal", "dog"), ("thing", "cup"), ("thing", "axe")]
DEEPER = [*EVEN_LATER[1:], ("thing", "axe", "big"), ("lone",)]
SMALL = {"width": 3, "size": 4, "layers": 1}
HEADS = {
  "flat": ({"name": "flat"}, DEEPER),
  "flat_ends": ({"name": "flat_ends"}, DEEPER),
  "multilabel": ({"name": "multilabel"}, DEEPER),
  "path_rnn": ({"name": "path_rnn", "width": 4}, DEEPER),
  "path_rnn, even": ({"name": "path_rnn", "width": 4}, EVEN_LATER),
  "coarse_fine": ({"name": "coarse_fine"}, DEEPER),
  "dhnn_rnn": ({"name": "dhnn_rnn", **SMALL}, EVEN_LATER),
  "dhnn_s2s": ({"name": "dhnn_s2s", "feedback": "labels", **SMALL}, DEEPER),
  "sibling_softmax": ({"name": "sibling_softmax"}, DEEPER),
}
WEIGHTS_ALONE = {  # what a step reads is changed by the nodes that are new: so are its logits
  "siblings": ({"name": "path_rnn", "width": 4, "softmax": "siblings"}, DEEPER),
  "coarse_to_fine": ({"name": "coarse_fine", "strategy": "coarse_to_fine"}, DEEPER),
  "fine_to_coarse": ({"name": "coarse_fine", "strategy": "fine_to_coarse"}, EVEN_LATER),
  "soft": ({"name": "dhnn_s2s", **SMALL}, EVEN_LATER),
  "sigmoid": ({"name": "dhnn_s2s", "output": "sigmoid", **SMALL}, DEEPER),
}


def extended(small_config, head, later, rng):
  """Returns a run with weights, and a run of another tree that extends it, with its own."""
  config = small_config(head=head, neck={"name": "none"}, backbone={"name": "small_resnet", "widths": (4, 4, 4)})
  old, new = (Run.from_config(config, from_paths(paths)) for paths in (EVEN, later))
  shapes = [jax.eval_shape(lambda r=run: r.init_variables(jax.random.key(0), r.example_shape)) for run in (old, new)]
  saved, fresh = (jax.tree.map(lambda s: np.float32(rng.normal(size=s.shape)), s) for s in shapes)
  carried = carried_over(flatten_dict(saved), flatten_dict(shapes[1]), old, new)
  return (old, saved), (new, jax.jit(started)(fresh, carried)), carried


def entries_of(run):
  """Returns what the outputs of a head stand for, in words that do not depend on the tree, but for levels."""
  axes = run.method.module.head.weight_axes(run.method.tree)
  layers = sorted(name for name in axes if name.endswith("bias"))
  return [e if isinstance(e, str) or e < 0 else run.tree.path_names(e) for name in layers for e in axes[name][-1]]


def logits(run_and_weights, images, path):
  run, variables = run_and_weights
  paths = jnp.asarray(run.tree.encode([run.tree.find(path)] * len(images)))
  return np.asarray(jax.jit(run.method.module.apply)(variables, images, paths))


@pytest.mark.parametrize("name", HEADS)
def test_the_logits_of_the_nodes_that_stay_are_those_of_the_run_that_is_extended(name, small_config, rng):
  old, new, _ = extended(small_config, *HEADS[name], rng)
  images = jnp.asarray(rng.normal(size=(2, *old[0].example_shape)), jnp.float32)
  before, after = (logits(side, images, ("animal", "cat")) for side in (old, new))
  steps = min(before.shape[1], after.shape[1]) if before.ndim == 3 else None
  was, now = entries_of(old[0]), entries_of(new[0])
  if name == "coarse_fine":  # an entry a level
    was, now = ([(e, es[:i].count(e)) for i, e in enumerate(es)] for es in (was, now))
  staying = [e for e in was if e in now]
  assert len(staying) >= 3 and len(now) > len(staying)
  one, other = (x[:, :steps] if steps else x for x in (before, after))
  np.testing.assert_array_equal(one[..., [was.index(e) for e in staying]], other[..., [now.index(e) for e in staying]])


@pytest.mark.parametrize("name", [*HEADS, *WEIGHTS_ALONE])
def test_every_weight_of_a_node_that_stays_is_carried_over_and_every_other_is_fresh(name, small_config, rng):
  (old, saved), (new, weights), carried = extended(small_config, *(HEADS | WEIGHTS_ALONE)[name], rng)
  saved, weights = flatten_dict(saved), flatten_dict(weights)
  parts = {path for path, value in carried.items() if isinstance(value, Carried)}
  axes = [run.method.module.head.weight_axes(run.method.tree) for run in (old, new)]
  assert {"/".join(path[2:]) for path in parts} == axes[1].keys()
  for path in weights.keys() - parts:  # all else has the shape that it had
    np.testing.assert_array_equal(weights[path], saved[path])
  stayed = 0
  for path in parts & saved.keys():
    before, after = (places(run, side["/".join(path[2:])]) for run, side in zip((old, new), axes, strict=True))
    for key, place in after.items():
      if key in before:
        np.testing.assert_array_equal(weights[path][place], saved[path][before[key]])
      else:
        assert not np.isin(weights[path][place], saved[path]).any()
    stayed += len(before.keys() & after.keys())
  assert stayed


def places(run, axes):
  """Returns where in a weight the entries of each combination of nodes, tokens and levels stand."""
  words = [
    [(None, slice(None))] if axis is None
    else [(e if isinstance(e, str) or e < 0 else run.tree.path_names(e), i) for i, e in enumerate(axis)]
    for axis in axes
  ]  # fmt: skip
  return {tuple(w for w, _ in row): tuple(i for _, i in row) for row in itertools.product(*words)}


def test_nodes_are_the_same_by_their_ids_or_else_by_their_paths():
  old, new = from_paths([("a", "b"), ("a", "c"), ("d",)]), from_paths([("z",), ("a", "c"), ("b", "b")])
  assert {new.path_text(n): old.path_text(o) for n, o in same_nodes(old, new).items()} == {"a": "a", "a/c": "a/c"}
  assert node_changes(old, new) == "2 nodes carried over, 3 (z, b, b/b) new, 2 (d, a/b) gone"
  one_top = from_paths([("a", "b"), ("a", "c")])  # whose root is a
  assert same_nodes(one_top, new) == {new.find(["a", "c"]): 1} and same_nodes(new, one_top) == {1: new.find(["a", "c"])}
  by_ids = [LabelTree.from_children(["x", name], [2, 0, 0], ids=ids) for name, ids in (("y", "01"), ("Y", "21"))]
  assert same_nodes(*by_ids) == {1: 1}


def photographs(root, names, count=6):
  """Writes pictures of one colour a class."""
  for i, name in enumerate(names):
    (root / name).mkdir(parents=True)
    for k in range(count):
      Image.new("RGB", (16, 16), (40 * i + k, 200 - 40 * i, 90)).save(root / name / f"{k}.png")


@pytest.fixture
def training(tmp_path):
  """Returns a command that trains on the folder `photos`."""
  sizes = [
    "resize=16",
    "crop=16",
    "validation=0.3",
    f"cache_folder={tmp_path / 'cache'}",
    f"root={tmp_path / 'photos'}",
  ]
  network = ["--config.backbone.name=small_resnet", "--config.backbone.widths=(4,)", "--config.batch_size=4"]
  return [
    "train",
    "photos:from_scratch",
    f"--workdir={tmp_path / 'run'}",
    *network,
    *(f"--config.data.{size}" for size in sizes),
  ]


def test_a_class_is_added_to_a_finished_run_and_more_epochs(tmp_path, training, capsys):
  photos, run = tmp_path / "photos", str(tmp_path / "run")
  photographs(photos, ["train/animal/cat", "train/animal/dog", "test/animal/cat", "test/animal/dog"])
  command = [*training, "--config.epochs=1"]
  assert main(command) == 0
  assert main([*command, "--config.epochs=2"]) == 1
  assert f"`hierjax train --extend {run} --config.epochs=2.0`" in capsys.readouterr().err
  photographs(photos, ["train/thing/cup", "test/thing/cup"])
  assert main(command) == 1
  assert f"`hierjax train --extend {run}`" in capsys.readouterr().err

  assert main(["train", "--extend", run, "--config.epochs=2"]) == 0
  printed = capsys.readouterr().out
  assert "3 nodes carried over, 2 (thing, thing/cup) new, none gone" in printed
  assert "warning: config.data.validation = 0.3 keeps another part" in printed
  assert main(["train", "--extend", run, "--config.epochs=2"]) == 0  # the same command goes on, and is done
  assert "extending" not in capsys.readouterr().out
  assert main(["evaluate", f"{run}-extended"]) == 0
  assert RunFolder(f"{run}-extended").evaluation("test")["num_examples"] == 18
  assert main(["train", "quickstart", "--extend", run]) == 2
  assert "--extend takes the config of its run" in capsys.readouterr().err


def test_the_same_images_keep_their_validation_and_nothing_is_warned_of(tmp_path, training, capsys):
  photographs(tmp_path / "photos", ["train/animal/cat", "train/animal/dog"])
  assert main([*training, "--config.epochs=0"]) == 0
  assert main(["train", "--extend", str(tmp_path / "run")]) == 0
  printed = capsys.readouterr().out
  assert "extending step 0" in printed and "another part" not in printed
