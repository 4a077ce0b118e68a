"""A config made real, on noise that a small net can tell apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH

from configs import common
from hierjax.data.open_source import ArraySource
from hierjax.errors import UserError
from hierjax.evaluation.evaluate import make_eval_step, measure_split
from hierjax.evaluation.tables import accuracy_table
from hierjax.functional.distributions import of_nodes
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Stages
from hierjax.nn.classifier import ModelMethod
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop.run import train_and_evaluate
from hierjax.types import DecodeOptions


def config(**changes):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.backbone = dict(name="small_resnet", widths=(8,), blocks=1, stem_stride=4)
  c.head = dict(name="flat")
  c.update(changes)
  return c.to_dict()


@pytest.fixture(scope="module")
def run():
  return Run.from_config(config())


def variables_of(run):
  return run.init_variables(jax.random.key(0), (32, 32, 3))


@pytest.fixture(scope="module")
def variables(run):
  return jax.jit(lambda: variables_of(run))()


@pytest.mark.parametrize("count", [1, 16, 45])
def test_evaluation_is_the_mean_over_exactly_the_examples(run, variables, count, rng):
  images = rng.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
  source = ArraySource(images, rng.choice(run.tree.leaves, (count, 1)))
  loaded = LoadedRun(RunFolder("nowhere"), run, 1, variables, data_mesh())
  metrics, _ = measure_split(make_eval_step(run.preprocess, Stages()), loaded, source)

  pixels = (images.astype(np.float32) / 255 - 0.5) / 0.25
  paths = jax.jit(lambda pixels: run.method.predict(variables, pixels).paths)(pixels)
  right = np.asarray(paths)[:, 0] == run.tree.encode(source.nodes[:, 0])
  own = run.tree.encode(source.nodes[:, 0])
  assert metrics["num_examples"] == count
  np.testing.assert_allclose(metrics["path_accuracy"], (right | (own < 0)).all(axis=1).mean(), rtol=1e-6)
  for level, value in enumerate(metrics["level_accuracy"]):
    has = own[:, level] >= 0
    if has.any():
      np.testing.assert_allclose(value, right[has, level].mean(), rtol=1e-6)
    else:
      assert value is None


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_paths_of_examples_are_found_in_whatever_batch_they_are(run, variables, batch_size, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: 1)  # with 4, no batch has fewer than 4 images
  data = dataclasses.replace(run.data, on_bad_image="skip")
  smaller = dataclasses.replace(run, data=data, config=dataclasses.replace(run.config, batch_size=batch_size))
  images = run.source("test")
  unread = ArraySource(images.read(np.arange(len(images))), images.nodes, bad={2: "no image"})
  last = len(images) - 1
  loaded = LoadedRun(RunFolder("nowhere"), smaller, 1, variables, MESH)
  _, found = measure_split(make_eval_step(run.preprocess, Stages()), loaded, unread, {0, 2, last})
  pixels = (images.read(np.array([0, last])).astype(np.float32) / 255 - 0.5) / 0.25
  paths = jax.jit(lambda pixels: run.method.predict(variables, pixels).paths)(pixels)
  np.testing.assert_array_equal([found.pop(0), found.pop(last)], paths[:, :1])
  assert not found  # what was not read has no path


@pytest.mark.parametrize(
  ("views", "own_levels", "kept"), [(1, False, False), (1, True, True), (10, True, True), (10, False, False)]
)
def test_inconsistent_predictions_are_counted_where_there_can_be_any(run, views, own_levels, kept, monkeypatch):
  distribution = ModelMethod.distribution

  def with_levels(*arguments):
    found = distribution(*arguments)
    return found.replace(level_prob=of_nodes(found.node_prob, run.method.tree) if own_levels else None)

  monkeypatch.setattr(ModelMethod, "distribution", with_levels)
  step = make_eval_step(lambda examples, view: run.preprocess(examples), Stages(DecodeOptions(views=views)))
  examples = next(run.eval_batches(run.source("test")))
  metrics = jax.eval_shape(step, run.method, jax.eval_shape(lambda: variables_of(run)), examples).metrics
  assert ("inconsistent_predictions" in metrics) == kept and {"loss", "level_accuracy", "leaf_top1"} <= metrics.keys()


def test_balanced_class_weights_make_every_class_count_the_same(rng):
  run = Run.from_config(config(class_weights="balanced"))
  nodes = np.repeat(run.tree.leaves[:3], [1, 3, 6])[:, None]
  weights = run.class_weights(ArraySource(np.zeros((10, 32, 32, 3), np.uint8), nodes))
  found = np.asarray(weights(jnp.asarray(run.tree.encode(nodes))))
  np.testing.assert_allclose(found, 10 / 3 / np.repeat([1.0, 3.0, 6.0], [1, 3, 6]), rtol=1e-6)
  np.testing.assert_allclose(found.mean(), 1.0, rtol=1e-6)


def test_bfloat16_computes_in_it_and_keeps_the_weights_in_float32():
  run = Run.from_config(config(dtype="bfloat16", head=dict(name="path_rnn", width=8)))
  variables = jax.eval_shape(lambda: variables_of(run))
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  features = jax.eval_shape(
    lambda v: run.method.module.apply(v, jnp.zeros((2, 32, 32, 3)), method="features"), variables
  )
  assert features.stages[0].dtype == jnp.bfloat16


def test_labels_below_a_truncated_tree_count_for_their_ancestors():
  whole, top = Run.from_config(config()), Run.from_config(config(tree=dict(source="shapes", levels=1)))
  assert top.tree.num_nodes == whole.tree.level_offsets[1]
  ancestors = whole.tree.encode(whole.source("test").nodes[:, 0])[:, 0]
  np.testing.assert_array_equal(top.source("test").nodes[:, 0], ancestors)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"epochs": -1.0}, r"config\.epochs = -1\.0: must be 0, which keeps the initial weights"),
    ({"class_weights": "heavy"}, "choose from none, balanced"),
    ({"head": dict(name="oracle")}, r"config\.head\.name = 'oracle': choose from coarse_fine, dhnn_rnn, .*, path_rnn"),
    ({"backbone": dict(name="small_resnet", width=3)}, r"config\.backbone\.width: there is no such key; did you mean"),
    ({"dtype": "float16"}, "choose from float32, bfloat16"),
    ({"decode": dict(beam=0)}, r"config\.decode\.beam = 0: a beam keeps at least 1 path"),
    (
      {"head": dict(name="path_rnn", softmax="siblings"), "decode": dict(restrict="raw")},
      r"config\.decode\.restrict = raw: .* set restrict = tree, or softmax = nodes",
    ),
    ({"tree": dict(source="nowhere.csv")}, "there is no such file or folder"),
  ],
)
def test_bad_values_get_a_clear_sentence(changes, message):
  with pytest.raises(UserError, match=message):
    Run.from_config(config(**changes))


def test_the_table_shows_what_is_missing_as_a_dash():
  text = accuracy_table(
    {
      "level_names": ["family", "level 2"],
      "level_sizes": [2, 30],
      "level_accuracy": [0.5, None],
      "path_accuracy": 0.25,
      "node_accuracy": 0.375,
      "leaf_top1": 0.25,
      "leaf_top5": 1.0,
    }
  )
  lines = [line.split() for line in text.splitlines()[2:]]
  assert ["family", "accuracy", "2", "50.00%"] in lines
  assert ["level", "2", "accuracy", "30", "-"] in lines
  assert ["leaf", "top-5", "100.00%"] in lines
  assert len(lines) == 6


def test_a_run_keeps_where_training_labels_end_and_every_use_of_it_reads_them(tmp_path):
  train_and_evaluate(config(epochs=0.0, tree=dict(source="shapes", short_labels="stop")), str(tmp_path))
  run = Run.from_folder(RunFolder(tmp_path))
  ends = np.unique(run.source("train").nodes)
  assert set(run.tree.label_ends) == set(ends) and 0 < len(ends) < run.tree.num_nodes
  assert set(np.flatnonzero(run.method.tree.may_end)) == {*ends, *run.tree.leaves}
  unknown = Run.from_config(config())
  assert unknown.learning_ends(unknown.source("train")) is unknown


@pytest.mark.parametrize("merged", [{}, {"shared": 1}], ids=["one network", "merged"])
def test_the_shapes_of_variables_are_traced_once_for_equal_networks_and_are_ones_own(merged, monkeypatch):
  settings = config(merged=merged, head={"name": "coarse_fine" if merged else "flat"})
  first, second = (Run.from_config(settings) for _ in range(2))
  expected = jax.eval_shape(lambda: variables_of(first))
  found = first.variable_shapes
  assert jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), found, expected) and found == expected
  found.pop("params")
  monkeypatch.setattr(jax, "eval_shape", lambda *args: pytest.fail("traced again"))
  assert second.variable_shapes == expected
