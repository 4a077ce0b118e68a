"""Names of files that are not UTF-8, of labels and levels with accents, and terminals that have neither."""

import csv
import io
import json
import os
import sys

import pytest
from PIL import Image

from hierjax.cli.main import main

LABELS = ("fêlin/chat sauvage", "fêlin/lynx", "canidé/chien")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
  """Returns the folders of photographs and of a run on them, not yet trained."""
  folder = tmp_path_factory.mktemp("names")
  for i in range(36):
    path = folder / "photos" / ("train", "train", "validation", "test")[i // 3 % 4] / LABELS[i % 3]
    path.mkdir(parents=True, exist_ok=True)
    with open(os.fsencode(path) + b"/photo \xe9%d.png" % i, "wb") as file:
      Image.new("RGB", (16, 16), (80 * (i % 3) + i, 200 - 60 * (i % 3), i)).save(file, "png")
  return folder / "photos", folder / "run"


def printed(monkeypatch, encoding, *words):
  """Runs a command whose output has an encoding that lacks some of its characters; returns what it printed."""
  out, err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True), io.StringIO()
  with monkeypatch.context() as patch:
    patch.setattr(sys, "stdout", out)
    patch.setattr(sys, "stderr", err)
    status = main([str(word) for word in words])
  assert status == 0, err.getvalue()
  return out.buffer.getvalue().decode(encoding)


def test_every_command_prints_and_writes_such_names(places, monkeypatch, tmp_path):
  photos, run = places
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  values = ["data.resize=16", "data.crop=16", f"data.root={photos}", "batch_size=8", "epochs=1",
            "backbone.name=small_resnet", "backbone.widths=(4,)", "tree.level_names=(famille,espèce)"]  # fmt: skip
  trained = printed(
    monkeypatch, "ascii", "train", "photos:from_scratch", f"--workdir={run}", *(f"--config.{v}" for v in values)
  )
  assert "famille accuracy" in trained and "esp?ce accuracy" in trained and "photo ?" in trained
  assert "f?lin" in printed(monkeypatch, "ascii", "data", "show", photos / "train")
  assert "f?lin" in printed(monkeypatch, "ascii", "data", "check", photos)
  evaluated = printed(monkeypatch, "latin-1", "evaluate", run)
  assert "espèce accuracy" in evaluated and "canidé > chien" in evaluated
  assert json.loads(printed(monkeypatch, "ascii", "evaluate", run, "--json"))["test"]["level_names"][0] == "famille"
  answers = json.loads(printed(monkeypatch, "ascii", "predict", run, photos / "test", "--json"))["answers"]
  assert len(answers) == 9 and not any(row["error"] for row in answers)
  printed(monkeypatch, "ascii", "predict", run, photos / "test", "--csv", tmp_path / "answers.csv")
  with (tmp_path / "answers.csv").open(encoding="utf-8") as file:
    images = [row[0] for row in csv.reader(file)][1:]
  files = map(os.fsencode, (photos / "test").rglob("*.png"))
  assert sorted(images) == sorted(file.decode("utf-8", "backslashreplace") for file in files)
  printed(monkeypatch, "ascii", "report", run)
  page = (run / "report.html").read_bytes().decode("utf-8", "surrogateescape")
  assert ">espèce accuracy</th>" in page and "famille" in page
  assert (run / "eval" / "test-images.csv").read_bytes().count(b"photo \xe9") == 9
  printed(monkeypatch, "ascii", "plot", "predictions", run)
  assert list((run / "pictures").glob("*.png"))
