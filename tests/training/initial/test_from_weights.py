"""The values of a config that pretrained weights say: network, size and normalisation."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import common
from hierjax.data.config import DataConfig
from hierjax.errors import UserError
from hierjax.training.initial import from_weights
from hierjax.training.initial.from_weights import with_weights
from hierjax.training.sections import overridden, resolved

TIMM = {
  "architecture": "resnet50",
  "num_classes": 1000,
  "pretrained_cfg": {
    "input_size": [3, 176, 176],
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
    "interpolation": "bicubic",
    "crop_pct": 0.8,
  },
}
OPEN = {"size": 0, "crop": 0, "resize": 0, "mean": (), "std": (), "interpolation": ""}


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(TIMM))
  save_file({"conv1.weight": np.zeros((2, 3, 7, 7), np.float32)}, tmp_path / "model.safetensors")
  return tmp_path


def config(weights="", backbone=None, **data):
  c = common.base().to_dict()
  c["backbone"] = backbone or {"name": "pretrained"}
  c["init"]["weights"] = str(weights)
  c["data"] |= OPEN | data
  return resolved(c)


def data_of(config):
  DataConfig(**config["data"])
  return {key: config["data"][key] for key in OPEN}


def test_open_values_are_the_authors(folder):
  found, lines = with_weights(config(folder))
  expected = dict(size=176, crop=176, resize=220, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")
  assert data_of(found) == expected
  assert found["backbone"]["name"] == "resnet50" and found["backbone"]["width"] == 64
  assert found["init"]["weights"] == str(folder) and len(found["init"]["sha256"]) == 64
  assert lines[0].startswith("weights: resnet50 from ") and found["init"]["sha256"][:12] in lines[0]
  assert lines[1] == (
    "images as they want them: the middle 176 pixels of 220, bicubic; mean 0.1, 0.2, 0.3; deviation 0.4, 0.5, 0.6"
  )
  assert with_weights(found)[0] == found and len(lines) == 2
  _, more = with_weights(config(folder, size=100, std=(0.5,) * 3))
  assert more[:2] == lines and more[2] == (
    "images as this run has them: the middle 100 pixels of 125, bicubic; mean 0.1, 0.2, 0.3; deviation 0.5, 0.5, 0.5"
  )


def test_values_that_are_set_stay(folder):
  found, _ = with_weights(config(folder, mean=(0.5,) * 3, interpolation="bilinear", crop=100, resize=111))
  assert data_of(found) == dict(
    size=0, crop=100, resize=111, mean=(0.5,) * 3, std=(0.4, 0.5, 0.6), interpolation="bilinear"
  )


@pytest.mark.parametrize(
  ("given", "sizes"),
  [
    (dict(size=224), (224, 224, 280)),
    (dict(size=224, crop=224), (224, 224, 280)),
    (dict(size=224, resize=280), (224, 224, 280)),
    (dict(crop=80), (80, 80, 100)),
    (dict(resize=200), (176, 176, 200)),
  ],
)
def test_one_number_sets_the_size(given, sizes, folder):
  found, _ = with_weights(config(folder, **given))
  assert tuple(found["data"][key] for key in ("size", "crop", "resize")) == sizes


def test_without_weights_seven_eighths_are_read():
  found, lines = with_weights(config(backbone={"name": "small_resnet"}, size=224, **NAMED))
  assert (found["data"]["crop"], found["data"]["resize"], lines) == (224, 256, [])


NAMED = dict(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (dict(backbone={"name": "vgg16"}), r"config\.data\.mean = \(\): no pretrained weights say it, so set it: \(0\.485"),
    (dict(backbone={"name": "vgg16"}, mean=(0.5,) * 3), r"config\.data\.std = \(\): no pretrained weights say it"),
    (dict(backbone={"name": "vgg16"}, **NAMED), r"config\.data\.size = 0: no pretrained .* set it, such as 224"),
    (dict(**NAMED), r"config\.backbone\.name = pretrained: config\.init\.weights is empty; set .* lite0 or hf:timm"),
    (
      dict(backbone={"name": "vgg16"}, **NAMED, size=224, crop=200),
      r"config\.data\.size = 224 makes data\.crop = 224, and config\.data\.crop = 200: set data\.crop or data\.size to",
    ),
    (dict(backbone={"name": "vgg16"}, **NAMED, size=224, resize=400), r"makes data\.resize = 256, and .* = 400"),
  ],
)
def test_what_nothing_says_must_be_set(given, message):
  with pytest.raises(UserError, match=message) as error:
    with_weights(config(**given))
  assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(folder):
  with pytest.raises(
    UserError, match=r"config\.backbone\.name = 'vgg16': config\.init\.weights = '.*' are of resnet50; se"
  ):
    with_weights(config(folder, backbone={"name": "vgg16"}))
  assert with_weights(config(folder, backbone={"name": "resnet50", "width": 4}))[0]["backbone"]["width"] == 4


def test_the_flag_for_the_size_replaces_those_of_a_config_file(folder):
  c = config(folder) | {"data": config(folder)["data"] | {"crop": 32, "resize": 40}}
  found, _ = with_weights(overridden(c, ["--config.data.size=160"]))
  assert (found["data"]["crop"], found["data"]["resize"]) == (160, 200)
  with pytest.raises(UserError, match=r"data\.resize = 200, and config\.data\.resize = 161"):
    with_weights(overridden(c, ["--config.data.size=160", "--config.data.resize=161"]))


def test_a_run_that_goes_on_does_not_look_for_its_weights(folder, monkeypatch):
  wanted = config(folder)
  saved, _ = with_weights(wanted)
  monkeypatch.setattr(from_weights, "find_weights", lambda *_: pytest.fail("it looked for them"))
  read = json.loads(json.dumps(saved))
  assert json.loads(json.dumps(with_weights(wanted, read)[0])) == read


def test_a_revision_is_kept_by_the_run(folder, monkeypatch):
  wanted = config("hf:timm/a")
  saved = resolved(config(folder)) | {"init": wanted["init"] | {"weights": "hf:timm/a@123", "sha256": "ab"}}
  saved = saved | {"data": saved["data"] | NAMED | {"size": 9, "crop": 9, "resize": 9}, "backbone": {"name": "vgg16"}}
  monkeypatch.setattr(from_weights, "find_weights", lambda *_: pytest.fail("it looked for them"))
  found, _ = with_weights(wanted, saved)
  assert (found["init"]["weights"], found["init"]["sha256"]) == ("hf:timm/a@123", "ab")
  assert found["backbone"]["name"] == "vgg16" and data_of(found)["crop"] == 9


def test_another_file_than_the_checksum_says_is_refused(folder):
  c = config(folder)
  good, _ = with_weights(c)
  assert with_weights(c | {"init": good["init"]})[0] == good
  with pytest.raises(UserError, match=r"config\.init\.sha256 = 'abc': .*model\.safetensors has .* it is another file"):
    with_weights(c | {"init": good["init"] | {"sha256": "abc"}})
