"""The page that `report` writes: its numbers, its pictures, and names that would like to be markup."""

import base64
import csv
import html.parser
import io
import json
import re

import numpy as np
import pytest
from commands import MESH, evaluate
from PIL import Image

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.evaluation.calibration import Calibration
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.page import findings_of, write_report
from hierjax.runs.run import Run

NAMES = ["<b>bold</b>", "x & y", '"quoted"', "{{ 7 * 7 }}"]


def findings(folder):
  return findings_of(LoadedRun.open(folder, MESH))


class Page(html.parser.HTMLParser):
  """The tags, attributes and text of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.sources, self.links, self.text = [], [], [], ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.sources += [value for name, value in attrs if name == "src"]
    self.links += [value for name, value in attrs if name in ("href", "action")]

  def handle_data(self, data):
    self.text += data


@pytest.fixture(scope="module")
def folder(make_run, small_config, tmp_path_factory):
  """A run of drawn weights on folders of images whose names are hostile."""
  root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
  for split, count in (("train", 4), ("validation", 6), ("test", 6)):
    for top in ("first", "second"):
      for name in NAMES:
        if "/" in name:
          name = name.replace("/", "")
        (root / split / top / name).mkdir(parents=True)
        for i in range(count):
          pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
          Image.fromarray(pixels).save(root / split / top / name / f"<i>{i}.png")
  config = small_config(
    neck=dict(name="none"), batch_size=40, tree=dict(source="images"),
    data=dict(name="folder", root=str(root), resize=8, crop=8),
    backbone=dict(name="small_resnet", widths=(4,), blocks=1),
  )  # fmt: skip
  folder = make_run(config, name="<run>", sharpness=6.0)
  (folder.path / "metrics.jsonl").write_text(
    json.dumps({"step": 1, "split": "train", "loss": 2.0}) + "\n"
    + json.dumps({"step": 1, "split": "validation", "loss": 2.5, "path_accuracy": 0.1}) + "\n"
  )  # fmt: skip
  return folder


def rows(file):
  return list(csv.DictReader(file.read_text().splitlines()))


def test_the_page_is_one_file_whose_names_are_text(folder):
  page = Page(write_report(findings(folder)).read_text())
  assert not page.links and all(source.startswith("data:image/png;base64,") for source in page.sources)
  assert not {"b", "i", "run", "script"} & set(page.tags)
  for text in ("temperature1.000", "<b>bold<b>", "x & y", '"quoted"', "{{ 7 * 7 }}", "<run>", "<i>0.png", "Training"):
    assert text in page.text, text

  run = Run.from_folder(folder)
  source = run.source("test")
  known = {source.read(np.array([i]))[0].tobytes() for i in range(len(source))}
  pictures = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in page.sources]
  small = [np.asarray(picture) for picture in pictures if picture.size == (8, 8)]
  assert len(small) > 20 and all(pixels.tobytes() in known for pixels in small)


def test_its_tables_say_what_evaluate_counts(folder):
  write_report(findings(folder))
  saved, tree = folder.evaluation("test"), Run.from_folder(folder).tree
  images = rows(folder.path / "eval" / "test-images.csv")
  assert len(images) == saved["num_examples"] == 48
  assert np.mean([int(row["right"]) for row in images]) == pytest.approx(saved["path_accuracy"])
  far = [int(row["edges"]) for row in images if row["right"] == "0"]
  assert np.mean(far) == pytest.approx(saved["mistake_severity_edges"])
  nodes = rows(folder.path / "eval" / "test-nodes.csv")
  assert {row["node"] for row in nodes} == {tree.path_text(node) for node in range(tree.num_nodes)}
  for row in nodes:
    own = [image for image in images if f"{image['label']}/".startswith(f"{row['node']}/")]
    said = [image for image in images if f"{image['predicted']}/".startswith(f"{row['node']}/")]
    both = [image for image in own if image in said]
    assert (int(row["images"]), int(row["predicted"])) == (len(own), len(said))
    assert float(row["recall"]) == pytest.approx(len(both) / len(own), abs=1e-6)
    assert row["precision"] == "" if not said else float(row["precision"]) == pytest.approx(
      len(both) / len(said), abs=1e-6
    )  # fmt: skip
  pairs = rows(folder.path / "eval" / "test-confusions.csv")
  assert sum(int(row["images"]) for row in pairs) == len(far)
  for row in pairs:
    among = [im for im in images if (im["label"], im["predicted"]) == (row["label"], row["predicted"])]
    assert int(row["images"]) == len(among) and row["first_image"] == among[0]["image"]
    assert float(row["share_of_label"]) == pytest.approx(len(among) / 6, abs=1e-6)
  bins = [row for row in rows(folder.path / "eval" / "test-calibration.csv") if row["level"] == "2"]
  sums = [sum(int(row["nodes"]) * float(row[name]) for row in bins) for name in ("mean_probability", "accuracy")]
  assert sums == pytest.approx(
    [sum(float(row["probability"]) for row in images), sum(int(row["right"]) for row in images)], abs=1e-3
  )
  assert sum(int(row["nodes"]) for row in bins) == 48
  for row in bins:
    assert float(row["probability_up_to"]) - 1 / 15 < float(row["mean_probability"]) <= float(row["probability_up_to"])


def test_no_word_of_the_page_is_outdated(folder):
  evaluate(folder.path, threshold=0.2)
  text = Page(write_report(findings(folder)).read_text()).text.lower()
  (folder.path / "eval" / "test-threshold.json").unlink()
  for word in ("sure", "stop below", "stop-below", "whole path", "believed", "right when said", "learnt", "takes for"):
    assert not re.search(rf"\b{word}\b", text), word
  for word in (
    "path accuracy", "mean node accuracy", "mistake severity (edges)", "expected calibration error", "coverage",
    "selective accuracy", "confidence threshold", "recall", "precision",
  ):  # fmt: skip
    assert word in text, word


def test_the_calibration_is_on_the_page(folder):
  found = findings(folder)
  text = " ".join(Page(write_report(found).read_text()).text.split())
  nodes, *shares = Calibration.of(found.predictions).row(slice(None))
  assert nodes == 96
  assert f"all levels{nodes}{''.join(f'{100 * share:.2f}%' for share in shares)}" in text


def test_selective_accuracy_is_on_it_once_it_has_been_measured(folder, make_run):
  page = Page(write_report(findings(folder)).read_text())
  assert "--threshold sweep" in page.text and "end at level" not in page.text
  evaluate(folder.path, threshold="sweep", selective_accuracy=0.05)
  selective = Page(write_report(findings(folder)).read_text())
  saved = folder.selective_evaluation("test")
  assert f"confidence threshold {saved['threshold']:g}" in selective.text
  for name in ("coverage", "selective_accuracy"):
    assert f"{100 * saved[name]:.2f}%" in selective.text
  assert len(selective.sources) == len(page.sources) + 1
  evaluate(folder.path, threshold=0.123)  # the picture is of another threshold
  assert len(Page(write_report(findings(folder)).read_text()).sources) == len(page.sources)
  saved["members"][0]["steps"] = [7]  # of other weights
  folder.write_evaluation("test-threshold", saved)
  assert "end at level" not in Page(write_report(findings(folder)).read_text()).text


def test_the_command_evaluates_what_has_not_been(folder, capsys):
  (folder.path / "eval" / "validation.json").unlink(missing_ok=True)
  assert main(["report", str(folder.path), "--split", "validation"]) == 0
  assert capsys.readouterr().out.splitlines() == [str(folder.path / "report.html")]
  assert folder.evaluation("validation")["num_examples"] == 48
  assert main(["report", str(folder.path / "nowhere")]) == 1
  assert "is not a run folder" in capsys.readouterr().err


def test_features_have_no_pictures_but_of_probabilities(make_run, small_config):
  config = small_config(
    neck=dict(name="none"), data=dict(name="noise", width=24), backbone=dict(name="features", width=24)
  )
  page = Page(write_report(findings(make_run(config, name="vectors"))).read_text())
  assert len(page.sources) == 1 and "Confusions" in page.text


def test_several_paths_an_image_are_refused(make_run, small_config):
  config = small_config(neck=dict(name="none"), head=dict(name="multilabel"), data=dict(resize=8, crop=8))
  folder = make_run(config, name="several")
  with pytest.raises(UserError, match="is a multi-label head, and a report shows one path an image"):
    findings(folder)
