"""A repository of the Hugging Face Hub in a cache, as huggingface_hub lays it out: a small ResNet-50 of ten classes."""

import hashlib
import json
from pathlib import Path

import pytest

from hierjax.nn.pretrained.files import to_bytes
from state_dicts import drawn, fixture, from_text

NAME = "hf:timm/resnet50.a1_in1k"
REVISION = "5" * 40
ABOUT = {
  "architecture": "resnet50",
  "num_classes": 1000,
  "pretrained_cfg": {
    "input_size": [3, 160, 160],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "crop_pct": 0.95,
    "crop_mode": "center",
  },
}


def weights_bytes(file="model.safetensors"):
  shapes = from_text(str(fixture("resnet50")["small"]))
  return to_bytes({name: drawn(name, shape) for name, shape in shapes.items()}, file)


def hub_cache(folder, monkeypatch):
  """Makes a folder the Hub's cache, with one repository in it, and no network; returns the repository's folder."""
  constants = pytest.importorskip("huggingface_hub.constants", reason="the extra hub is not installed")
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  repository = folder / "models--timm--resnet50.a1_in1k"
  snapshot = repository / "snapshots" / REVISION
  for part in (snapshot, repository / "blobs", repository / "refs"):
    part.mkdir(parents=True)
  (repository / "refs" / "main").write_text(REVISION)
  for name, data in (("config.json", json.dumps(ABOUT).encode()), ("model.safetensors", weights_bytes())):
    blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
    blob.write_bytes(data)
    (snapshot / name).symlink_to(Path("../../blobs") / blob.name)
  return repository
