"""Laws of the kept features of a frozen backbone: what they are, when they are computed, and what trains on them."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH
from initial_weights import initial_weights

from configs import common
from hierjax.data.images import cache
from hierjax.data.images.read_image import BadImageError
from hierjax.data.pseudo_labels import PseudoLabels
from hierjax.data.sources.frozen import FrozenFeatures
from hierjax.errors import UserError
from hierjax.evaluation.pseudo_labels import write_pseudo_labels
from hierjax.inference import frozen
from hierjax.inference.frozen import frozen_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.members import Ensemble, Images, answers_of, open_images
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import FrozenConfig, Run
from hierjax.training.loop.frozen import on_frozen_features
from hierjax.training.loop.run import train_and_evaluate

FREEZE = (("^backbone/", None), (".*", 1.0))


def config_of(tmp_path, **changes):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.backbone = dict(name="small_resnet", widths=(8,), blocks=1)
  c.head = dict(name="flat")
  c.decode.beam = 1
  c.optim.lr_groups = FREEZE
  c.frozen.keep = True
  c.data.cache_folder = str(tmp_path / "cache")
  for key, value in changes.items():
    section, _, name = key.rpartition("__")
    setattr(c[section] if section else c, name, value)
  return c.to_dict()


def loaded(tmp_path, **changes):
  run = Run.from_config(config_of(tmp_path, **changes))
  variables = jax.tree.map(jnp.asarray, initial_weights(run.variable_shapes))
  return LoadedRun(RunFolder(tmp_path / "run"), run, 0, variables, devices.data_mesh())


def test_features_are_those_of_the_backbone_and_their_views_are_augmented(tmp_path):
  of = loaded(tmp_path)
  source = of.run.source("train")
  found = frozen_features(of, source, views=2)
  rows = np.arange(len(source))
  assert found.shape == (3, 8) and len(found) == len(source)
  np.testing.assert_array_equal(found.nodes, source.nodes)
  assert found.name_of(3) == source.name_of(3)
  pixels = source.read(rows).astype(np.float32) / 255
  images = (pixels - np.array(of.run.data.mean, np.float32)) / np.array(of.run.data.std, np.float32)
  backbone = of.run.method.module.backbone
  inside = {name: parts["backbone"] for name, parts in of.variables.items() if "backbone" in parts}
  pooled = backbone.apply(inside, jnp.asarray(images)).pooled
  features = found.read(rows)
  np.testing.assert_allclose(features[:, 0], pooled, atol=1e-5)
  assert (np.abs(features[:, 1] - features[:, 0]).max(axis=1) > 1e-4).mean() > 0.9
  assert (np.abs(features[:, 2] - features[:, 1]).max(axis=1) > 1e-4).mean() > 0.9


def test_features_are_computed_once_for_the_same_pixels_weights_and_settings(tmp_path, monkeypatch):
  computed = []
  original = frozen._computed
  monkeypatch.setattr(frozen, "_computed", lambda *args: computed.append(1) or original(*args))
  of = loaded(tmp_path)
  first = frozen_features(of, of.run.source("train"))
  again = loaded(tmp_path, seed=1)  # another seed, other initial weights of the head alone
  again = dataclasses.replace(again, variables=of.variables)
  second = frozen_features(again, again.run.source("train"))
  assert len(computed) == 1
  np.testing.assert_array_equal(first.features, second.features)
  frozen_features(of, of.run.source("validation"))
  assert len(computed) == 2  # other pixels
  changed = jax.tree.map(lambda x: x, of.variables)
  changed["params"]["backbone"] = jax.tree.map(lambda x: x * 1.01, changed["params"]["backbone"])
  frozen_features(dataclasses.replace(of, variables=changed), of.run.source("train"))
  assert len(computed) == 3  # other weights
  frozen_features(of, of.run.source("train"), views=1)
  assert len(computed) == 4
  third = loaded(tmp_path, data__mean=(0.4, 0.5, 0.5))
  frozen_features(dataclasses.replace(third, variables=of.variables), third.run.source("train"))
  assert len(computed) == 5  # other preprocessing
  frozen_features(of, of.run.source("train"))
  assert len(computed) == 5
  assert cache.clear(of.run.data.cache_place)[0] == 5


def test_runs_on_one_opened_set_read_its_pixels_once(tmp_path, monkeypatch):
  read = []
  original = frozen._digest
  monkeypatch.setattr(frozen, "_digest", lambda *args: read.append(len(args[1])) or original(*args))
  first = loaded(tmp_path)
  other = dataclasses.replace(first, run=dataclasses.replace(loaded(tmp_path, seed=1).run, opened=first.run.opened))
  parts = {split: len(first.run.source(split)) for split in ("train", "validation", "test")}
  for split, count in parts.items():
    for of in (first, other):
      frozen_features(of, of.run.source(split))
    assert sum(read) == count, split
    read.clear()
  alone = loaded(tmp_path)
  frozen_features(alone, alone.run.source("train"))
  assert sum(read) == parts["train"]


def test_pseudo_labels_of_kept_features_are_those_of_the_images(tmp_path, monkeypatch):
  """They read the features of S_fine and S_coarse together, which training on both reads too."""
  changes = dict(data__fine_per_label=1, data__coarse=1.0)
  kept = loaded(tmp_path, **changes)
  images = loaded(tmp_path, frozen__keep=False, **changes)
  found = [
    PseudoLabels.load(str(write_pseudo_labels(of, tmp_path / f"{i}.npz").file)) for i, of in enumerate((kept, images))
  ]
  np.testing.assert_array_equal(found[0].nodes, found[1].nodes)
  np.testing.assert_allclose(found[0].probability, found[1].probability, rtol=1e-4)
  monkeypatch.setattr(frozen, "_computed", lambda *_: pytest.fail("they are in the cache"))
  frozen_features(kept, kept.run.source("train"))


STAGES = dict(backbone=dict(name="small_resnet", widths=(8, 12), blocks=1))


@pytest.mark.parametrize(
  "own",
  [
    {},
    dict(head=dict(name="dhnn_s2s", width=4, size=40), **STAGES),  # 12 and 8 channels: 1 and 2 x 2 places, and zeros
    pytest.param(
      dict(head=dict(name="dhnn_rnn", width=4, size=10, conversion="pool_average", layers=1), **STAGES),
      marks=pytest.mark.slow,  # tests/nn/test_kept.py has what such a head reads
    ),
    dict(neck=dict(name="context", scales=(1, 2), hidden=(8,), channels=4)),
  ],
  ids=["flat", "dhnn_s2s", "dhnn_rnn", "context neck"],
)
def test_training_on_kept_features_is_training_with_the_images(tmp_path, own, monkeypatch):
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  changes = dict(data__resize=16, data__crop=16, data__mirror=False, data__pad=0, epochs=2.0, calibrate=False, **own)
  if "head" in own and own["head"]["name"] == "dhnn_rnn":
    changes["tree__levels"] = 2
  kept = train_and_evaluate(config_of(tmp_path, **changes), str(tmp_path / "kept"))
  usual = train_and_evaluate(config_of(tmp_path, frozen__keep=False, **changes), str(tmp_path / "usual"))

  def losses(name):
    lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]

  np.testing.assert_allclose(losses("kept"), losses("usual"), rtol=1e-4)
  assert kept["path_accuracy"] == usual["path_accuracy"] and kept["num_examples"] == usual["num_examples"]
  if not own:  # what is left as it was does not depend on the head
    saved = Run.from_folder(RunFolder(tmp_path / "kept"))
    _, variables = saved.restored_variables(RunFolder(tmp_path / "kept"), devices.data_mesh())
    fresh = jax.jit(lambda key: saved.init_variables(key, (16, 16, 3)))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["backbone"], fresh["params"]["backbone"])
    same = jax.tree.map(np.array_equal, variables["params"]["head"], fresh["params"]["head"])
    assert not any(jax.tree.leaves(same))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(optim__lr_groups=((".*", 1.0),)), r"config\.frozen\.keep = True: the backbone trains"),
    (
      dict(merged__shared=0, head=dict(name="coarse_fine")),
      r"config\.frozen\.keep = True: a merged network has several",
    ),
    (
      dict(head=dict(name="dhnn_s2s", width=4), neck=dict(name="context", scales=(1,))),
      r"keeps the last map for the neck, and dhnn_s2s reads those of all stages",
    ),
    (dict(frozen__keep=False, frozen__views=3), r"config\.frozen\.views: needs config\.frozen\.keep"),
    (dict(frozen__views=-1), r"config\.frozen\.views = -1"),
    (dict(frozen__most=0), r"config\.frozen\.most = 0: must be 1 or more"),
    (
      dict(head=dict(name="dhnn_s2s", width=4, conversion="linear")),
      r"config\.frozen\.keep = True does not keep what the head reads; .*'linear' has weights.*choose pool or pool_av",
    ),
    (dict(data__mixup=0.2), r"config\.data\.mixup and cutmix mix images, and this run trains on features"),
  ],
)
def test_what_cannot_be_kept_is_refused_with_its_key(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    train_and_evaluate(config_of(tmp_path, **changes), str(tmp_path / "run"))


def test_of_many_images_fewer_views_are_kept_and_the_run_says_so(tmp_path, capsys):
  config = FrozenConfig(keep=True, views=2)
  assert [config.views_of(images) for images in (0, 60, 33_333, 33_334, 50_000, 50_001, 500_000)] == [
    2,
    2,
    2,
    1,
    1,
    0,
    0,
  ]
  of = loaded(tmp_path, frozen__views=5, frozen__most=200)
  train = of.run.source("train")
  assert on_frozen_features(of, train, None)[0].shape == (200 // len(train), 8)
  said = capsys.readouterr().out
  assert f"{len(train)} images have {200 // len(train) - 1} augmented views each, and not the 5 of config" in said
  of = loaded(tmp_path, frozen__views=1)
  assert on_frozen_features(of, train, None)[0].shape == (2, 8) and not capsys.readouterr().out


def test_features_that_are_larger_than_half_of_the_memory_are_refused(tmp_path, monkeypatch):
  of = loaded(tmp_path)
  source = of.run.source("train")  # 8 numbers an image
  sizes = {"SC_PAGE_SIZE": 2 * 8 * 4, "SC_PHYS_PAGES": len(source)}
  monkeypatch.setattr(frozen.os, "sysconf", sizes.get)
  frozen_features(of, source)
  with pytest.raises(UserError, match=r"config\.frozen\.keep = True: the features of .* images have 0\.0 GiB.*views"):
    frozen_features(of, source, views=1)


def test_features_that_are_not_finite_name_the_image(tmp_path):
  source = loaded(tmp_path).run.source("train")
  rows = np.zeros((4, 1, 8), np.float32)
  rows[2, 0, 3] = np.inf
  with pytest.raises(UserError, match=r"example 12: its features are not finite"):
    frozen._check_finite(rows, np.array([True, True, True, False]), source, 10)
  frozen._check_finite(rows, np.array([True, True, False, True]), source, 10)


def test_an_image_that_cannot_be_read_has_no_features(tmp_path):
  source = loaded(tmp_path).run.source("train")
  features = np.zeros((len(source), 1, 4), np.float32)
  features[5] = np.nan
  kept = FrozenFeatures(source, features)
  assert kept.read(np.array([4, 6])).shape == (2, 1, 4)
  with pytest.raises(BadImageError, match="example 5 cannot be read"):
    kept.read(np.array([4, 5]))


@pytest.mark.parametrize(
  ("changes", "trains", "computes"),
  [({}, 1, 4), ({"sharding__data": 4}, 4, 4), ({"frozen__keep": False}, 4, 0)],
  ids=["kept vectors", "asked for", "images"],
)
def test_one_cpu_device_trains_on_kept_vectors_and_all_compute_them(tmp_path, monkeypatch, changes, trains, computes):
  from hierjax.training.loop.setup import set_up

  config = config_of(tmp_path, **changes)
  training, seen = set_up(config, str(tmp_path / "run")), []
  assert training.layout.mesh.size == trains
  of = dataclasses.replace(loaded(tmp_path, **changes), mesh=training.layout.mesh)
  original = LoadedRun.map
  monkeypatch.setattr(LoadedRun, "map", lambda self, *rest: seen.append(self.mesh.size) or original(self, *rest))
  frozen_features(of, of.run.source("validation"))
  assert seen == ([computes] if computes else [])


def test_an_ensemble_reads_what_its_members_keep(tmp_path):
  kept = [loaded(tmp_path), loaded(tmp_path, seed=1, frozen__keep=False)]
  kept.append(dataclasses.replace(kept[0], variables=jax.tree.map(lambda x: 1.1 * x, kept[0].variables)))
  runs = [dataclasses.replace(of, folder=RunFolder(tmp_path / str(i))) for i, of in enumerate(kept)]
  ensemble = Ensemble(((0,), (1,), (2,)), tuple(runs), ("0", "1", "2"), runs[0].mesh)
  images = open_images(ensemble, "test")
  read = [type(images.readers[i][1]) for i in images.reader_of]
  assert images.reader_of == (0, 1, 2) and read[0] == read[2] == FrozenFeatures != read[1]
  source = images.source
  from_images = Images(images.split, source, ((runs[0].run, source),), (0, 0, 0))
  for own, other in zip(answers_of(ensemble, images), answers_of(ensemble, from_images), strict=True):
    chex.assert_trees_all_close(own, other, atol=1e-5)
