"""Parts from a module outside the package: the file of docs/how_to/own_parts.md, as it stands."""

import dataclasses
import functools
import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH

from hierjax.config_files import load_config, show_config
from hierjax.errors import UserError
from hierjax.functional.metrics import BATCH_METRICS, evaluate_batch
from hierjax.nn.backbones.foreign import as_features
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop import run as loop
from hierjax.types import Batch, Features

PAGE = (Path(__file__).parents[1] / "docs" / "how_to" / "own_parts.md").read_text(encoding="utf-8")
TINY = ("--config.backbone.widths=(4,)", "--config.backbone.stem_stride=2")
PARTS = {
  "linen backbone": ("--config.backbone.name=my_parts:PlainNet", "--config.backbone.width=4"),
  "nnx backbone": ("--config.backbone.name=my_parts:nnx_net", "--config.backbone.width=4"),
  "neck": ("--config.neck.name=my_parts:Narrow", "--config.neck.width=3"),
  "head": ("--config.head.name=my_parts:ScaledHead", "--config.head.scale=3.0"),
}


FUNCTIONS = """
import jax.numpy as jnp
from hierjax.functional.losses import subtree_cross_entropy
from hierjax.functional.metrics import Metric
from hierjax.functional.paths import climb
from hierjax.functional.search import Paths


def last_leaves(distribution, tree, options):
  ends = jnp.asarray(tree.leaves)[::-1][None, : options.beam]
  ends = jnp.broadcast_to(ends, (distribution.node_prob.shape[0], options.beam))
  score = jnp.take_along_axis(distribution.node_prob, ends, axis=1)
  return Paths(climb(ends, tree), jnp.log(score), jnp.ones_like(score))


def doubled(logits, nodes, tree):
  return 2 * subtree_cross_entropy(logits, nodes, tree)


top_level = Metric(lambda j: j.best[:, 0] == j.labels[:, 0], lambda j: j.labels[:, 0] >= 0)
"""


@pytest.fixture(autouse=True)
def my_parts(tmp_path, monkeypatch):
  (tmp_path / "my_parts.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0])
  monkeypatch.syspath_prepend(tmp_path)
  yield
  for name in ("my_parts", "my_functions"):
    sys.modules.pop(name, None)


def config_with(part):
  section = PARTS[part][0].split(".")[1]
  return load_config("quickstart:smoke,flat", [*(t for t in TINY if f".{section}." not in t), *PARTS[part]])


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_ones_own_learns_and_predicts(part):
  run = Run.from_config(config_with(part))
  images = jax.random.normal(jax.random.key(0), (4, *run.example_shape))
  paths = jnp.asarray(run.tree.encode(run.tree.leaves[:4]))[:, None]
  variables = jax.jit(run.method.module.init)(jax.random.key(1), images)

  @jax.jit
  def step(params, rest):
    def loss(params):
      outputs, changed = run.method.module.apply(
        {"params": params, **rest}, images, paths, train=True, mutable="batch_stats"
      )
      return run.method.loss(outputs, paths).mean(), changed

    (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads), changed, value, grads

  params, rest = variables.pop("params"), variables
  first, changed, loss, grads = step(params, rest)
  _, _, second_loss, _ = step(first, changed)
  assert second_loss < loss
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(grads["backbone"]))
  assert len(jax.tree.leaves(changed)) == len(jax.tree.leaves(rest))
  assert all(bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(rest), strict=True))
  found = jax.jit(run.method.predict)({"params": first, **changed}, images)
  assert all(run.tree.is_path(path) for path in np.asarray(found.paths[:, 0]).tolist())


def test_a_run_with_parts_of_ones_own_is_opened_again(tmp_path, monkeypatch):
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  config = load_config("quickstart:smoke", [*PARTS["nnx backbone"], *PARTS["neck"], *PARTS["head"]])
  workdir = tmp_path / "run"
  metrics = loop.train_and_evaluate(config | {"epochs": 0.4}, str(workdir))
  assert metrics["num_examples"] == 16
  run = Run.from_folder(RunFolder(str(workdir)))
  assert type(run.method.module.head).__name__ == "ScaledHead" and run.method.module.head.scale == 3.0
  assert run.config.backbone == {"name": "my_parts:nnx_net", "width": 4}


def test_the_fields_of_a_part_of_ones_own_are_shown():
  shown = show_config(config_with("head"))
  assert "\nhead.name = 'my_parts:ScaledHead'" in shown and "\nhead.scale = 3.0" in shown
  with pytest.raises(UserError, match=r"config\.head\.scalee: .*did you mean 'scale'"):
    load_config("quickstart", [*PARTS["head"], "--config.head.scalee=1"])


def test_a_decoding_rule_a_loss_and_a_metric_of_ones_own(tmp_path):
  """The rule gives the leaves of the largest numbers, the loss is doubled, the metric is of the top level."""
  (tmp_path / "my_functions.py").write_text(FUNCTIONS)
  own = ("--config.decode.rule=my_functions:last_leaves", "--config.head.criterion=my_functions:doubled")
  plain, run = (Run.from_config(load_config("quickstart:smoke,flat", [*TINY, *more])) for more in ((), own))
  metrics = BATCH_METRICS | {"top_level": importlib.import_module("my_functions").top_level}
  images = jax.random.normal(jax.random.key(0), (4, *run.example_shape))
  leaves = run.tree.leaves[[-1, -1, 0, 0]]
  paths = jnp.asarray(run.tree.encode(leaves))[:, None]

  @functools.partial(jax.jit, static_argnums=1)
  def answered(method, options):
    outputs, variables = method.module.init_with_output(jax.random.key(1), images)
    prediction = method.predict(variables, images, None, options)
    batch = Batch(images, paths, jnp.ones(4))
    return method.loss(outputs, paths), prediction, evaluate_batch(prediction, batch, method.tree, metrics)

  loss, _, _ = answered(plain.method, plain.options)
  doubled, found, measured = answered(run.method, dataclasses.replace(run.options, beam=2))
  np.testing.assert_allclose(doubled, 2 * loss, rtol=1e-5)
  assert all(path.max() == leaf for row in found.paths for path, leaf in zip(row, run.tree.leaves[:-3:-1], strict=True))
  assert measured["path_accuracy"].value() == 0.5
  last = run.tree.path(int(run.tree.leaves[-1]))[0]
  assert measured["top_level"].value() == np.mean([run.tree.path(leaf)[0] == last for leaf in leaves.tolist()])


@pytest.mark.parametrize("override", ["decode.rule=my_functions:none", "head.criterion=my_functions:none"])
def test_a_function_that_is_not_there_is_named_with_its_key(override, tmp_path):
  (tmp_path / "my_functions.py").write_text(FUNCTIONS)
  key, value = override.split("=")
  with pytest.raises(UserError, match=rf"config\.{re.escape(key)} = '{value}'"):
    run = Run.from_config(load_config("quickstart:smoke,flat", [*TINY, f"--config.{override}"]))
    images, paths = jnp.zeros((1, *run.example_shape)), jnp.zeros((1, 1, run.tree.depth), jnp.int32)

    def both():
      outputs, variables = run.method.module.init_with_output(jax.random.key(1), images)
      return run.method.loss(outputs, paths), run.method.predict(variables, images, None, run.options)

    jax.eval_shape(both)


def test_arrays_become_features():
  near, far, vector = jnp.ones((2, 4, 4, 3)), jnp.full((2, 2, 2, 5), 3.0, jnp.bfloat16), jnp.ones((2, 7))
  assert as_features(vector).stages == () and as_features(vector).pooled.shape == (2, 7)
  found = as_features((near, far))
  assert [stage.shape for stage in found.stages] == [near.shape, far.shape]
  assert found.pooled.dtype == jnp.float32 and bool((found.pooled == 3).all()) and found.pooled.shape == (2, 5)
  assert [stage.shape for stage in as_features(near).stages] == [near.shape]
  features = Features((near,), vector)
  assert as_features(features) is features
  with pytest.raises(UserError, match=r"shapes \[\(2,\)\]"):
    as_features(jnp.ones(2))


def test_arguments_that_are_no_data_are_no_fields():
  (Path(sys.path[0]) / "odd_parts.py").write_text(
    "from flax import linen as nn\n\n"
    "def net(width: int = 2, act=nn.relu, kind: 'Missing' = 'x', *rest, **more):\n  return nn.Dense(width)\n"
  )
  shown = load_config("quickstart", ["--config.backbone.name=odd_parts:net", "--config.backbone.kind=y"])["backbone"]
  assert shown == {"name": "odd_parts:net", "width": 2, "kind": "y"}


def test_a_thing_that_is_no_part_is_refused():
  (Path(sys.path[0]) / "no_parts.py").write_text("def net():\n  return 3\n\nclass Net:\n  pass\n")
  for override, fact in (("backbone.name=no_parts:net", "this is a int"), ("head.name=no_parts:Net", "for_tree")):
    with pytest.raises(UserError, match=f"no_parts:[nN]et.*{fact}"):
      Run.from_config(load_config("quickstart:smoke", [f"--config.{override}"]))
