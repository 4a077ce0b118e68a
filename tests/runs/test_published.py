"""Runs that are pushed to a Hub and loaded from it; the Hub is a folder."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from commands import MESH
from PIL import Image

import hierjax
from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.inference.predictor import Predictor
from hierjax.runs.choices import Choice, keep_choice, keep_temperature
from hierjax.runs.folder import RunFolder
from hierjax.runs.published import publish

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
FLAT = dict(head=dict(name="flat"), neck=dict(name="none"))


class FakeHub:
  """The calls of huggingface_hub that hierjax makes, on a folder; `cache` is laid out as huggingface_hub does it."""

  def __init__(self, root):
    self.root, self.cache, self.private = root / "hub", root / "cache", {}

  def create_repo(self, repository, private, exist_ok):
    assert exist_ok
    if not repository.startswith("me/"):
      response = mock.Mock(status_code=403, headers={})
      raise huggingface_hub.errors.HfHubHTTPError("no", response=response)
    self.private.setdefault(repository, private)
    (self.root / repository).mkdir(parents=True, exist_ok=True)

  def upload_folder(self, repo_id, folder_path, revision, commit_message, delete_patterns):
    assert revision is None and commit_message and delete_patterns == ["checkpoints/**"]
    shutil.rmtree(self.root / repo_id / "checkpoints", ignore_errors=True)
    shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
    return mock.Mock(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

  def _kept(self, repository, name):
    """Returns the file of the cache: a link in a snapshot to a blob, for reading alone."""
    data = (self.root / repository / name).read_bytes()
    place = self.cache / f"models--{repository.replace('/', '--')}"
    blob, link = place / "blobs" / hashlib.sha256(data).hexdigest(), place / "snapshots" / ("5" * 40) / name
    for path in (blob, link):
      path.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
      blob.write_bytes(data)
      blob.chmod(0o444)
      link.symlink_to(os.path.relpath(blob, link.parent))
    return link

  def hf_hub_download(self, repository, name, revision):
    if not (self.root / repository).exists():
      raise huggingface_hub.errors.RepositoryNotFoundError("no", response=mock.Mock(status_code=404, headers={}))
    if not (self.root / repository / name).exists():
      raise huggingface_hub.errors.EntryNotFoundError("no")
    return str(self._kept(repository, name))

  def snapshot_download(self, repository, revision, allow_patterns):
    from fnmatch import fnmatch

    for file in sorted((self.root / repository).rglob("*")):
      name = file.relative_to(self.root / repository).as_posix()
      if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
        self._kept(repository, name)
    return str(self._kept(repository, "config.json").parent)


@pytest.fixture
def hub(tmp_path, monkeypatch):
  fake = FakeHub(tmp_path)
  monkeypatch.setattr(huggingface_hub, "HfApi", lambda library_name: fake)
  for name in ("hf_hub_download", "snapshot_download"):
    monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
  monkeypatch.setattr("hierjax.runs.devices.data_mesh", lambda: MESH)
  return fake


@pytest.fixture
def folder(make_run, small_config):
  config = small_config(**FLAT, data=dict(root="/home/me/photos"), init=dict(weights="/home/me/w.npz", sha256="0" * 64))
  folder = make_run(config, sharpness=9.0)
  (folder.path / "tensorboard").mkdir()
  (folder.path / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 1.0}\n')
  keep_temperature(folder, 1, 2.0, {"split": "validation"})
  conditions = {"views": [1], "alpha": 0.0, "members": [{"run": ".", "step": 1}]}
  keep_choice(folder, Choice("threshold", 0.4, conditions))
  return folder


@pytest.fixture
def files(tmp_path):
  rng, files = np.random.default_rng(0), [tmp_path / f"{i}.png" for i in range(5)]
  for file in files:
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
  return files


def test_a_pushed_run_answers_as_it_did(hub, folder, files, capsys):
  assert main(["push", str(folder.path), "hf:me/shapes", "--private"]) == 0
  said = capsys.readouterr().out
  assert "https://huggingface.co/me/shapes/commit/1" in said and "hierjax predict hf:me/shapes" in said
  assert hub.private == {"me/shapes": True}
  loaded = hierjax.load("hf:me/shapes")
  assert loaded(files) == Predictor(folder.path)(files)  # at the temperature, and without a confidence threshold
  for words in (["--threshold", "chosen"], []):
    outputs = []
    for run in (str(folder.path), "hf:me/shapes"):
      assert main(["predict", run, *map(str, files), *words, "--json"]) == 0
      outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]


def test_only_what_predict_needs_is_pushed(hub, folder):
  assert main(["push", str(folder.path), "hf:me/shapes"]) == 0
  pushed = hub.root / "me" / "shapes"
  names = {path.relative_to(pushed).as_posix() for path in pushed.rglob("*") if path.is_file()}
  outside = {name for name in names if not name.startswith("checkpoints/1/")}
  assert outside == {"config.json", "tree.json", "data.json", "choices.json", "README.md"}
  assert not {Path(name).suffix for name in names} & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz"}
  for name in names:
    content = (pushed / name).read_bytes()
    assert not content.startswith(b"\x80") and b"/home/me" not in content, name  # no pickle, and no folder of mine
  weights = sum((pushed / name).stat().st_size for name in names if "/model/" in name)
  assert weights < 1.5 * sum(p.stat().st_size for p in (folder.checkpoints / "1" / "model").rglob("*") if p.is_file())
  assert RunFolder(pushed).config()["init"]["weights"] == "" and "# me/shapes" in (pushed / "README.md").read_text()


def test_pushing_again_leaves_one_checkpoint(hub, folder, make_run, small_config):
  assert main(["push", str(folder.path), "hf:me/shapes"]) == 0
  stale = hub.root / "me" / "shapes" / "checkpoints" / "7"
  shutil.copytree(stale.with_name("1"), stale)
  assert main(["push", str(folder.path), "hf:me/shapes"]) == 0
  assert [path.name for path in stale.parent.iterdir()] == ["1"] and hub.private == {"me/shapes": False}


def test_a_folder_is_a_place_too(folder, files, tmp_path, hub):
  assert main(["push", str(folder.path), str(tmp_path / "out")]) == 0
  assert Predictor(tmp_path / "out")(files) == Predictor(folder.path)(files)
  assert main(["push", str(folder.path), str(tmp_path / "out")]) == 1  # it is there


def test_code_of_others_is_neither_pushed_nor_loaded(hub, folder, tmp_path):
  assert main(["push", str(folder.path), "hf:me/shapes"]) == 0
  for key, value in (("head", {"name": "os:system"}), ("metrics", ["evil.module:Thing"])):
    config = json.loads((folder.path / "config.json").read_text())
    (hub.root / "me" / "shapes" / "config.json").write_text(json.dumps(config | {key: value}))
    shutil.rmtree(hub.cache, ignore_errors=True)
    with pytest.raises(UserError, match="would import"):
      hierjax.load("hf:me/shapes")
  original = (folder.path / "config.json").read_text()
  config = json.loads(original)
  config["loggers"] = ["jsonl", "mine:Logger"]
  (folder.path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match="mine:Logger"):
    publish(folder, tmp_path / "out", MESH, "")
  (folder.path / "config.json").write_text(original)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (["hf:you/shapes"], "the Hub answers with status 403; `hf auth login`"),
    (["hf:shapes"], "a name of the Hub is hf:OWNER/NAME"),
  ],
)
def test_what_the_hub_refuses_is_one_sentence(words, sentence, hub, folder, capsys):
  assert main(["push", str(folder.path), *words]) == 1
  error = capsys.readouterr().err
  assert sentence in error and error.count("\n") == 1


def test_a_repository_that_is_not_there(hub):
  with pytest.raises(UserError, match="no such repository, or it is private"):
    hierjax.load("hf:me/nothing")


def test_the_cache_is_enough_without_a_network(hub, folder, files, monkeypatch, tmp_path):
  """By huggingface_hub itself, from a cache that was filled before."""
  assert main(["push", str(folder.path), "hf:me/shapes"]) == 0
  wanted = hierjax.load("hf:me/shapes")(files)
  monkeypatch.undo()
  constants = huggingface_hub.constants
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  refs = hub.cache / "models--me--shapes" / "refs"
  refs.mkdir()
  (refs / "main").write_text("5" * 40)
  monkeypatch.setattr("hierjax.runs.devices.data_mesh", lambda: MESH)
  assert hierjax.load("hf:me/shapes")(files) == wanted
