"""The page of anybody's predictions: the same as that of a run, from files."""

import csv
import hashlib
import json
import shlex

import numpy as np
import pytest
from commands import run_command
from PIL import Image
from report_pages import Page

from hierjax.cli.common import UsageError
from hierjax.errors import UserError

LEAVES = ("animal/cat", "thing/cup", "animal/dog/basenji", "animal/dog/leonberg")


@pytest.fixture
def files(toy_tree, tmp_path, rng):
  """Predictions of 40 images, their labels, the tree, and photographs of all but one."""
  labels = rng.integers(0, 4, 40)
  prob = rng.dirichlet(np.ones(4), 40) + 0.5 * np.eye(4)[labels]
  prob /= prob.sum(axis=1, keepdims=True)
  names = [f"<{i}>.png" for i in range(40)]
  with (tmp_path / "preds.csv").open("w", newline="") as file:
    csv.writer(file).writerows([["image", *LEAVES], *([name, *row] for name, row in zip(names, prob, strict=True))])
  with (tmp_path / "labels.csv").open("w", newline="") as file:
    lines = [[name, LEAVES[label]] for name, label in zip(names, labels, strict=True)]
    csv.writer(file).writerows([["image", "label"], *lines, ["unused.png", LEAVES[0]]])
  (tmp_path / "tree.json").write_text(toy_tree.to_json())
  (tmp_path / "photos").mkdir()
  for name in names[1:]:
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
  return tmp_path


def rows(file):
  return list(csv.DictReader(file.read_text().splitlines()))


def report(files, **flags):
  flags = dict(predictions=files / "preds.csv", tree=files / "tree.json", labels=files / "labels.csv") | flags
  run_command("report", **{name: value for name, value in flags.items() if value})
  return Page((files / "out" / "report.html").read_text())


def test_it_has_the_numbers_of_evaluate_and_the_photographs(files, capsys):
  page = report(files, images=files / "photos", out=files / "out")
  said = capsys.readouterr().out
  assert "1 images of" in said and "have no prediction" in said and "have no picture here" in said
  flags = dict(predictions=files / "preds.csv", tree=files / "tree.json", labels=files / "labels.csv")
  run_command("evaluate", **flags, out=files / "out")
  saved = json.loads((files / "out" / "eval" / "predictions.json").read_text())
  assert f"{100 * saved['path_accuracy']:.2f}%" in page.text and sum(page.data["groupCounts"]) == 40
  assert len(page.data["pictures"]) == 39 == len(page.data["images"])
  assert page.data["thresholds"] and "Calibration" in page.text
  for name in ("preds.csv", "labels.csv"):
    assert hashlib.sha256((files / name).read_bytes()).hexdigest() in page.text
  nodes = rows(files / "out" / "eval" / "predictions-nodes.csv")
  assert sum(int(row["images"]) for row in nodes if row["level"] == "1") == 40


def test_evaluate_names_the_command_that_makes_it(files, capsys):
  flags = dict(predictions=files / "preds.csv", tree=files / "tree.json", labels=files / "labels.csv")
  run_command("evaluate", **flags, out=files / "out")
  _, command = capsys.readouterr().out.split("next:\n")
  _, module, program, name, *words = shlex.split(command)
  assert (module, program, name) == ("-m", "hierjax", "report")
  run_command(name, *words)
  assert Page((files / "out" / "report.html").read_text()).data["groupCounts"]


def test_without_photographs_it_has_the_rest(files):
  page = report(files, out=files / "out")
  assert page.data["pictures"] == [] and len(page.data["images"]) == 40
  assert "There are no pictures here" in page.text


def test_paths_alone_make_a_page_too(files):
  names = [f"<{i}>.png" for i in range(40)]
  with (files / "paths.csv").open("w", newline="") as file:
    csv.writer(file).writerows([["image", "path"], *([name, "animal/dog"] for name in names)])
  page = report(files, predictions=files / "paths.csv", out=files / "out")
  assert page.data["thresholds"] is None and "these predictions have none" in page.text
  assert not rows(files / "out" / "eval" / "predictions-calibration.csv")


def test_no_file_outside_of_the_folder_is_read(files, rng):
  Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(files / "secret.png")
  for name in ("preds.csv", "labels.csv"):
    (files / name).write_text((files / name).read_text().replace("<3>.png", "../secret.png"))
  page = report(files, images=files / "photos", out=files / "out")
  assert len(page.data["pictures"]) == 38


@pytest.mark.parametrize(
  "flags, message",
  [
    (dict(out="", predictions="p.csv", tree="t", labels="l"), "needs the label tree, the labels and a folder"),
    (dict(tree="t"), "--tree belong to --predictions"),
    (dict(predictions="p.csv", tree="t", labels="l", out="o", split="test"), "leave out --split"),
  ],
)
def test_flags_that_do_not_go_together(flags, message):
  with pytest.raises(UserError, match=message):
    run_command("report", **{name: value for name, value in flags.items() if value})


def test_nothing_to_show_is_a_wrong_command_line():
  with pytest.raises(UsageError, match="give WORKDIR"):
    run_command("report")


def test_a_folder_without_any_of_the_images_is_refused(files):
  (files / "empty").mkdir()
  with pytest.raises(UserError, match="none of the 40 images is in it"):
    report(files, images=files / "empty", out=files / "out")
