"""A new run starts from a file of a backbone's weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import common
from hierjax.errors import UserError
from hierjax.inference.features import write_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.nn.pretrained.files import read_weights, to_bytes
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.initial.weights import InitConfig, start_weights, started
from hierjax.training.loop.run import train_and_evaluate
from state_dicts import drawn, fixture, from_text


@pytest.fixture(scope="module")
def run():
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.backbone = dict(name="vgg16", width=2, batch_norm=True, top=(4, 4))
  c.head = dict(name="flat")
  return Run.from_config(c.to_dict())


@pytest.fixture(scope="module")
def shapes(run):
  return jax.eval_shape(lambda: run.init_variables(jax.random.key(0), (32, 32, 3)))


def as_file(shapes, rng):
  """Random weights by the names that a file has."""
  flat = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in flatten_dict(shapes).items()}
  return {"/".join(path[1:]): array for path, array in flat.items() if path[1] == "backbone"}


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_the_backbone_is_the_files_and_the_head_fresh(name, run, shapes, rng, tmp_path):
  weights = as_file(shapes, rng)
  classifier = {"classifier/kernel": np.zeros((4, 7), np.float32), "classifier/bias": np.zeros(7, np.float32)}
  file = tmp_path / name
  file.write_bytes(to_bytes(weights | classifier, file))
  taken, said = start_weights(InitConfig(weights=str(file)), run, shapes, data_mesh())
  assert said == f"starting from {len(weights)} arrays of {file}; fresh are head."
  fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 7.0, np.float32), shapes)
  found = flatten_dict(started(fresh, taken))
  assert {path[0] for path in found} == {"params", "batch_stats"}
  for path, array in found.items():
    np.testing.assert_array_equal(array, weights.get("/".join(path[1:]), 7.0))


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_each_branch_of_a_merged_backbone_starts_from_the_file(shared, rng, tmp_path):
  c = common.base()
  common.smoke(c)
  c.tree.source, c.tree.levels = "shapes", 2
  c.backbone, c.head = dict(name="small_resnet", widths=(4, 6), blocks=1), dict(name="coarse_fine")
  plain = Run.from_config(c.to_dict())
  weights = as_file(plain.variable_shapes, rng)
  weights = {name: np.abs(array) for name, array in weights.items()}  # variances are not negative
  (file := tmp_path / "a.npz").write_bytes(to_bytes(weights, tmp_path / "a.npz"))
  c.merged.shared = shared
  merged = Run.from_config(c.to_dict())
  taken, said = start_weights(InitConfig(weights=str(file)), merged, merged.variable_shapes, data_mesh())
  assert said.endswith("fresh are head.")
  images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
  variables = started(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), merged.variable_shapes), taken)
  of_plain, _ = start_weights(InitConfig(weights=str(file)), plain, plain.variable_shapes, data_mesh())
  alone = started(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), plain.variable_shapes), of_plain)
  own, other = (
    run.method.module.apply(values, images, method="features").pooled
    for run, values in ((merged, variables), (plain, alone))
  )
  assert np.abs(other).max() > 0
  np.testing.assert_allclose(own, np.concatenate([other, other], axis=1), rtol=1e-5)


def test_a_mismatch_shows_both_sides_and_skip_is_the_way_out(run, shapes, rng, tmp_path):
  weights = as_file(shapes, rng)
  del weights["backbone/stages_0/norm1/mean"]
  weights["backbone/stages_0/conv1/bias"] = np.zeros(3, np.float32)
  weights["backbone/top/fc6/bias/more"] = weights["backbone/top/fc8/bias"] = np.zeros(5, np.float32)
  file = tmp_path / "a.npz"
  file.write_bytes(to_bytes(weights, file))

  def start(*skip):
    return start_weights(InitConfig(weights=str(file), skip=skip), run, shapes, data_mesh())

  with pytest.raises(UserError) as error:
    start()
  assert str(error.value).splitlines() == [
    f"config.init.weights = '{file}': its weights are not those of this model.",
    "  backbone/stages_0/norm1/mean (batch_stats): missing, wants shape (2,)",
    "  backbone/stages_0/conv1/bias: has shape (3,), wants shape (2,)",
    "  backbone/top/fc6/bias/more: left over, it has shape (5,)",
    "  backbone/top/fc8/bias: left over, it has shape (5,)",
    "to give these weights fresh values, set config.init.skip = ('^backbone/stages_0/', '^backbone/top/')",
  ]
  taken, said = start("^backbone/(stages_0|top)/")
  assert "fresh are backbone/stages_0/conv1/bias, " in said and said.endswith("backbone/top/fc7/kernel, head.")
  assert {path[2] for path in taken} == {"stages_1", "stages_2", "stages_3", "stages_4"}
  with pytest.raises(UserError, match=r"'haed' matches no weight's name, here or in .*a\.npz"):
    start("haed")


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_a_file_of_torchvisions_names_is_renamed_on_the_way(name, tmp_path):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.backbone = dict(name="vgg16", width=4, batch_norm=True, top=(16, 16))
  c.head = dict(name="flat")
  run = Run.from_config(c.to_dict())
  shapes = jax.eval_shape(lambda: run.init_variables(jax.random.key(0), (32, 32, 3)))
  named = from_text(str(fixture("vgg16_bn")["small"]))
  theirs = {key: drawn(key, shape) for key, shape in named.items()}
  (tmp_path / name).write_bytes(to_bytes(theirs, name))
  taken, said = start_weights(InitConfig(weights=str(tmp_path / name)), run, shapes, data_mesh())
  assert said.endswith("fresh are head.")
  found = {"/".join(path[1:]): np.asarray(array) for path, array in taken.items()}
  np.testing.assert_array_equal(
    found["backbone/stages_0/conv1/kernel"], theirs["features.0.weight"].transpose(2, 3, 1, 0)
  )
  np.testing.assert_array_equal(found["backbone/top/fc7/kernel"], theirs["classifier.3.weight"].T)
  np.testing.assert_array_equal(found["backbone/stages_4/norm3/var"], theirs["features.41.running_var"])


def test_others_names_of_a_network_without_any_are_refused(run, shapes, tmp_path):
  file = tmp_path / "a.npz"
  file.write_bytes(to_bytes({"features.0.weight": np.zeros((2, 3, 3, 3), np.float32)}, file))
  with pytest.raises(UserError, match=r"a\.npz: "):
    start_weights(InitConfig(weights=str(file)), run, shapes, data_mesh())


def test_without_an_epoch_the_imported_weights_are_kept_and_write_features(tmp_path, rng, capsys):
  c = common.base()
  common.smoke(c)
  c.tree.source = c.data.name = "shapes"
  c.data.examples, c.data.resize, c.data.crop = 48, 20, 16
  c.epochs = 0.0
  c.backbone = dict(name="small_resnet", widths=(4,), blocks=1)
  c.head = dict(name="flat")
  run = Run.from_config(c.to_dict())
  shapes = jax.eval_shape(lambda: run.init_variables(jax.random.key(0), (16, 16, 3)))
  weights = {name: np.abs(array) for name, array in as_file(shapes, rng).items()}  # variances among them
  c.init.weights = str(tmp_path / "a.npz")
  (tmp_path / "a.npz").write_bytes(to_bytes(weights, "a.npz"))
  for _ in range(2):  # the second finds it all there
    assert train_and_evaluate(c.to_dict(), str(tmp_path / "run")) == {}
    assert "epochs = 0" in capsys.readouterr().out
  folder = RunFolder(tmp_path / "run")
  step, variables = run.restored_variables(folder, data_mesh())
  found = {"/".join(path[1:]): array for path, array in flatten_dict(variables).items()}
  assert step == 0
  for name, array in weights.items():
    np.testing.assert_array_equal(found[name], array)
  about = write_features(LoadedRun.open(folder, data_mesh(), views=1), tmp_path / "out", ("test",))
  assert about["step"] == 0
  source = run.source("test")
  pixels = (source.read(np.arange(8))[:, 2:18, 2:18].astype(np.float32) / 255 - 0.5) / 0.25
  backbone = {room: part["backbone"] for room, part in variables.items()}
  pooled = jax.jit(run.method.module.backbone.apply)(backbone, pixels).pooled
  np.testing.assert_allclose(np.load(tmp_path / "out" / "test" / "features.npy"), pooled, rtol=1e-4, atol=1e-5)


def test_a_run_starts_from_one_source():
  with pytest.raises(UserError, match=r"config\.init\.run = 'runs/a' and config\.init\.weights = 'a\.npz': .* one of"):
    InitConfig(run="runs/a", weights="a.npz")


def test_a_file_in_the_home_folder_is_found(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "a.npz").write_bytes(to_bytes({"x": np.ones(2, np.float32)}, "a.npz"))
  assert read_weights("~/a.npz")["x"].tolist() == [1, 1]
