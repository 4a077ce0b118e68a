"""The page of a run: its numbers are those of `evaluate`, its pictures those of the set, its names text."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from commands import MESH, evaluate, run_command
from PIL import Image
from report_pages import Page

from hierjax.errors import UserError
from hierjax.evaluation.calibration import Calibration
from hierjax.evaluation.evaluate import SplitSettings
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.page.findings.of_run import findings_of, place_of
from hierjax.report.page.write import write_report
from hierjax.runs.run import Run

NAMES = ["<b>bold<", "x & y", '"quoted"', "{{ 7 * 7 }}"]


def report(folder, **settings):
  """Returns the page of a run, taken apart."""
  loaded, settings = LoadedRun.open(folder, MESH, settings.get("data_root", "")), SplitSettings(**settings)
  return Page(write_report(place_of(loaded, settings), findings_of(loaded, settings)).read_text())


def drawn_images(root, rng, counts):
  for split, count in counts.items():
    for top in ("first", "second"):
      for name in NAMES:
        (root / split / top / name).mkdir(parents=True)
        for i in range(count):
          pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
          Image.fromarray(pixels).save(root / split / top / name / f"<i>{i}.png")


@pytest.fixture(scope="module")
def folder(make_run, small_config, tmp_path_factory):
  """A run of drawn weights on folders of images whose names are hostile."""
  root = tmp_path_factory.mktemp("photos")
  drawn_images(root, np.random.default_rng(0), {"train": 4, "validation": 6, "test": 6})
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


def test_the_pictures_are_those_of_the_set_and_names_are_text(folder):
  page = report(folder)
  for text in ("temperature 1.000", "<b>bold<", "x & y", '"quoted"', "{{ 7 * 7 }}", "<run>", "<i>0.png", "Learning"):
    assert text in page.text or any(text in name for name, *_ in page.data["images"]), text
  source = Run.from_folder(folder).source("test")
  known = {source.read(np.array([i]))[0].tobytes() for i in range(len(source))}
  pictures = [Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) for uri in page.data["pictures"]]
  assert len(pictures) == 48 and {np.asarray(picture).tobytes() for picture in pictures} == known
  assert {name for name, *_ in page.data["images"]} == {
    source.name_of(i).removeprefix(f"{Run.from_folder(folder).data.root}/") for i in range(48)
  }


def test_its_tables_say_what_evaluate_counts(folder):
  report(folder)
  evaluate(folder.path)
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


def test_the_numbers_of_the_page_are_those_of_evaluate(folder):
  page = report(folder)
  evaluate(folder.path)
  saved = folder.evaluation("test")
  for name in ("path_accuracy", "hierarchical_f1", "leaf_top1"):
    assert f"{100 * saved[name]:.2f}%" in page.text
    low, high = (f"{100 * end:.2f}%" for end in saved["intervals"][name])
    assert f"{low} to {high}" in page.text


def test_thresholds_shorten_the_paths_that_evaluate_shortens(folder):
  data = report(folder).data["thresholds"]
  for threshold in (0.2, 0.5, 0.9):
    evaluate(folder.path, threshold=threshold)
    saved, i = folder.selective_evaluation("test"), data["grid"].index(threshold)
    assert data["coverage"][i] == pytest.approx(saved["coverage"], abs=1e-5)
    assert data["accuracy"][i] == (saved["selective_accuracy"] and pytest.approx(saved["selective_accuracy"], abs=1e-5))
    np.testing.assert_allclose(data["levels"][i], saved["level_coverage"], atol=1e-5)
  assert data["marks"] == []
  evaluate(folder.path, threshold="sweep", selective_accuracy=0.05)
  chosen = folder.selective_evaluation("test")["threshold"]
  assert report(folder).data["thresholds"]["marks"] == [["chosen on validation", chosen]]


def test_no_number_is_taken_from_a_file_of_other_images(folder, tmp_path):
  """Once, eval/test.json of the old images stood beside counts of the new ones."""
  evaluate(folder.path)
  kept = json.loads((folder.path / "eval" / "test.json").read_text())
  wrong = kept | {"path_accuracy": 0.123456, "node_accuracy": 0.123456}
  (folder.path / "eval" / "test.json").write_text(json.dumps(wrong))
  assert "12.35%" not in report(folder).text
  (folder.path / "eval" / "test.json").write_text(json.dumps(kept))
  drawn_images(tmp_path, np.random.default_rng(1), {"train": 4, "validation": 6, "test": 9})
  loaded = LoadedRun.open(folder, MESH, str(tmp_path))
  place = place_of(loaded)
  assert place.page.startswith("report-images-") and place.tables.startswith("test-images-")
  found = findings_of(loaded)
  page = Page(write_report(place, found).read_text())
  assert sum(page.data["groupCounts"]) == 72 == len(found.numbers)
  assert page.data["groupCounts"][0] == found.predictions.right.sum()
  assert f"{100 * found.predictions.right.mean():.2f}%" in page.text
  assert "These are not the test images that the run began with." in page.text


def test_the_calibration_is_on_the_page(folder):
  loaded = LoadedRun.open(folder, MESH)
  words = " ".join(report(folder).text.split())
  nodes, *shares = Calibration.of(findings_of(loaded).predictions).row(slice(None))
  assert nodes == 96
  assert f"all levels{nodes}{''.join(f'{100 * share:.2f}%' for share in shares)}" in words


def test_the_command_needs_no_evaluation_before(folder, capsys):
  run_command("report", folder.path, split="validation")
  assert capsys.readouterr().out.splitlines() == [str(folder.path / name) for name in ("report.html", "MODEL_CARD.md")]
  assert Page((folder.path / "report.html").read_text()).data["groupCounts"]
  run_command("report", folder.path, split="train")
  assert "The model was trained on these images" in capsys.readouterr().out


def test_two_runs_have_a_page(make_run, small_config, capsys):
  config = small_config(neck=dict(name="none"), data=dict(resize=8, crop=8))
  first, second = (make_run(config, seed, name=f"run {seed}", sharpness=9.0) for seed in (0, 1))
  run_command("report", first.path, second.path)
  path = first.path / "report-against-run-1.html"
  assert capsys.readouterr().out.splitlines() == [str(path), str(first.path / "MODEL_CARD.md")]
  words = " ".join(Page(path.read_text()).text.split())
  assert "run 0 against run 1" in words and "McNemar's exact test" in words
  ours, theirs = (findings_of(LoadedRun.open(one, MESH)).predictions.right for one in (first, second))
  assert f"test, {(ours & ~theirs).sum()} against {(theirs & ~ours).sum()}:" in words
  with pytest.raises(UserError, match="named twice"):
    run_command("report", first.path, first.path)


def test_features_have_no_pictures(make_run, small_config):
  config = small_config(
    neck=dict(name="none"), data=dict(name="noise", width=24), backbone=dict(name="features", width=24)
  )
  page = report(make_run(config, name="vectors"))
  assert page.data["pictures"] == [] and page.data["images"] and "There are no pictures here" in page.text


def test_several_paths_an_image_are_refused(make_run, small_config):
  config = small_config(neck=dict(name="none"), head=dict(name="multilabel"), data=dict(resize=8, crop=8))
  with pytest.raises(UserError, match="is a multi-label head, and a report shows one path an image"):
    report(make_run(config, name="several"))
