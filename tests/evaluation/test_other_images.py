"""Commands with `--data-root`: what a run has found on its own images stays as it was."""

import json
import shutil

import pytest
from commands import evaluate, run_command
from PIL import Image

from hierjax.data.sources.shapes import write_folders
from hierjax.errors import UserError
from hierjax.inference.predictor import Predictor
from hierjax.runs.choices import read_choices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def begun(make_run, small_config, tmp_path_factory):
  """Two runs on a set of split folders, one whose levels may disagree and one with an LSTM, and a copy of the set."""
  root = tmp_path_factory.mktemp("set")
  for split in SPLITS:
    write_folders(root / "own" / split, 36, side=16)
  shutil.copytree(root / "own", root / "other")
  data, small = dict(name="folder", root=str(root / "own"), resize=16), dict(name="none")
  both = make_run(
    small_config(data=data, tree=dict(levels=2), head=dict(name="coarse_fine")), name="both", sharpness=4.0
  )
  rnn = make_run(
    small_config(data=data, neck=small, tree=dict(levels=2), head=dict(name="path_rnn", width=6)), name="rnn"
  )
  for folder in (both, rnn):
    run, about = Run.from_folder(folder), json.loads((folder.path / "data.json").read_text())
    judged_on = {split: run.images_of(split)["checksum"] for split in ("validation", "test")}
    (folder.path / "data.json").write_text(json.dumps(about | {"judged_on": judged_on}))
  return both, rnn, root / "other"


@pytest.fixture
def runs(begun, tmp_path):
  """The same, copied."""
  both, rnn, other = begun
  for part in (both.path, rnn.path, other):
    shutil.copytree(part, tmp_path / part.name)
  return tmp_path / "both", tmp_path / "rnn", tmp_path / "other"


def change(root, *splits):
  for split in splits:
    file = min((root / split).rglob("*.png"))
    Image.effect_noise((16, 16), 64).convert("RGB").save(file)


def contents(folder):
  return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


COMMANDS = {
  "threshold": lambda run, other, **at: evaluate(run, threshold="sweep", selective_accuracy=0.01, **at),
  "certificate": lambda run, other, **at: evaluate(run, certify=0.01, **at),
  "alpha": lambda run, other, **at: evaluate(run, alpha="sweep", **at),
  "paths": lambda run, other, **at: run_command("plot predictions", run, **at),
  "tree": lambda run, other, **at: run_command("plot tree", run, **at),
  "neighbours": lambda run, other, **at: run_command("plot neighbours", run, **at),
  "compare": lambda run, other, **at: run_command("compare", run, other, **at),
  "states": lambda run, other, **at: run_command("plot states", other, **at),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_nothing_that_the_run_has_is_replaced(runs, what, capsys):
  both, rnn, other = runs
  change(other, *SPLITS)
  folder = rnn if what == "states" else both
  COMMANDS[what](both, rnn)
  before, _ = contents(folder), capsys.readouterr()
  COMMANDS[what](both, rnn, data_root=other)
  printed, after = capsys.readouterr().out, contents(folder)
  assert {name: after[name] for name in before} == before
  new = after.keys() - before.keys()
  assert new and all("-images-" in name for name in new)
  choosing = what in ("threshold", "certificate", "alpha")
  assert choosing == any(name.startswith("choices") for name in before)
  assert choosing == (f"not kept in {folder / 'choices.json'}, whose choices are of other validation images" in printed)


def test_what_was_chosen_on_the_runs_own_images_is_used_after_others_were_tried(runs):
  both, rnn, other = runs
  change(other, *SPLITS)
  COMMANDS["threshold"](both, rnn)
  (choice,) = read_choices(RunFolder(both))
  COMMANDS["threshold"](both, rnn, data_root=other)
  COMMANDS["alpha"](both, rnn, data_root=other)
  assert read_choices(RunFolder(both)) == [choice]
  Predictor(both, threshold="chosen")  # raises where there is none
  evaluate(both, threshold="chosen", data_root=other)
  (found,) = (json.loads(p.read_text()) for p in (both / "eval").glob("test-threshold-images-*.json"))
  assert found["threshold"] == choice.value


@pytest.mark.parametrize("what", ["threshold", "certificate"])
def test_a_choice_on_the_runs_own_images_has_no_numbers_of_others(runs, what):
  both, rnn, other = runs
  change(other, "test")
  COMMANDS[what](both, rnn, data_root=other)
  (choice,) = read_choices(RunFolder(both))
  assert choice.about["split"] == "validation" and set(choice.about["coverage"]) == {"validation"}
  assert list((both / "eval").glob("test-threshold-images-*.json"))
  if what == "certificate":
    found = json.loads((both / "eval" / "certificate.json").read_text())
    assert set(found["coverage"]) == {"validation"} and found["data"]["checksum"] == choice.about["checksum"]


def test_a_picture_of_other_validation_images_is_another(runs):
  both, rnn, other = runs
  change(other, "val")
  COMMANDS["threshold"](both, rnn, data_root=other)
  assert not (both / "pictures" / "selective.csv").exists() and list((both / "pictures").glob("selective-images-*.csv"))
  assert (both / "eval" / "test-threshold.json").exists()


def test_predictions_of_others_do_not_go_to_a_runs_folder(runs):
  both, _, other = runs
  with pytest.raises(UserError, match="both is the folder of a run"):
    evaluate(predictions=other / "x.csv", tree="shapes", labels=other / "y.csv", out=both)
