"""What a study measures of a run in another way, against the command that measures the same."""

import json

import pytest
from commands import MESH, evaluate

from hierjax.errors import UserError
from hierjax.inference.purpose import Purpose
from hierjax.runs.choices import keep_temperature, read_choices
from hierjax.runs.run import Run
from hierjax.study.measurement import Measurement

PARTS = dict(backbone=dict(name="features", width=6), neck=dict(name="none"), data=dict(name="noise", width=6))
SHARED = ("path_accuracy", "leaf_top1", "hierarchical_f1", "ece", "coverage_95")


@pytest.fixture
def run(make_run, small_config):
  """A run on vectors, whose levels need not agree, with a temperature."""
  folder = make_run(small_config(head=dict(name="coarse_fine", strategy="parallel"), **PARTS), sharpness=5.0)
  (folder.path / "metrics.jsonl").write_text("")
  keep_temperature(folder, 1, 2.5, {})
  return folder


def measured(folder, **how):
  measurement = Measurement((folder,), ("",), **how)
  measurement.write(MESH)
  return json.loads(measurement.file.read_text())["metrics"], measurement.file.name


def evaluated(folder, file):
  return json.loads((folder.path / "eval" / file).read_text())


def test_adaptation_is_that_of_evaluate(run):
  found, name = measured(run, alpha=0.7)
  evaluate(str(run.path), alpha="0.7")
  saved = evaluated(run, "test-alpha0.7.json")
  assert name == "study-alpha-0.7.json" and {key: found[key] for key in SHARED} == {key: saved[key] for key in SHARED}


def test_the_chosen_alpha_is_that_of_a_sweep_on_validation(run):
  found, name = measured(run, alpha="chosen")
  chosen = json.loads((run.path / name).read_text())["alpha"]
  assert name == "study-alpha-chosen.json" and found == measured(run, alpha=chosen)[0]
  assert [choice.kind for choice in read_choices(run)] == ["temperature"], "a study chooses nothing for other commands"
  evaluate(str(run.path), alpha="sweep", split="validation")
  assert [choice.value for choice in read_choices(run) if choice.kind == "alpha"] == [chosen]


def test_an_alpha_that_cannot_be_is_refused(run, make_run, small_config):
  with pytest.raises(UserError, match=r"alpha = 1\.5: on a tree of \d levels it must be from 0 to 1"):
    measured(run, alpha=1.5)
  flat = make_run(small_config(**PARTS))
  with pytest.raises(UserError, match=r"alpha = chosen: The head follows the chain rule"):
    measured(flat, alpha="chosen")


def test_without_its_temperature_a_run_answers_as_if_none_had_been_fitted(run):
  found, name = measured(run, calibrated=False)
  fewest, second = measured(run, calibrated=False, purpose=Purpose(minimise="edges"))
  assert (name, second) == ("study-uncalibrated.json", "study-edges-uncalibrated.json")
  calibrated, _ = measured(run)
  assert found["ece"] != calibrated["ece"]
  (run.path / "choices.json").unlink()
  assert float(Run.from_folder(run).method.temperature) == 1
  plain, _ = measured(run)
  edges, _ = measured(run, purpose=Purpose(minimise="edges"))
  for own, other in ((found, plain), (fewest, edges)):
    assert [own[key] for key in SHARED] == pytest.approx([other[key] for key in SHARED], rel=1e-6)
