"""`evaluate --certify` and `--threshold certified`, from the images to the files."""

import json
import shutil

import numpy as np
import pytest
from commands import MESH, evaluate
from scipy.stats import binomtest

from hierjax.errors import UserError
from hierjax.evaluation import predictions
from hierjax.evaluation.choosing.certificates import STRICT_FIRST, Promise, guided_start
from hierjax.evaluation.choosing.selective import Confidences
from hierjax.functional.selective import UNSHORTENED
from hierjax.inference.members import open_ensemble, open_images
from hierjax.inference.pipeline import Stages
from hierjax.inference.predictor import Predictor
from hierjax.runs.choices import read_choices
from hierjax.runs.folder import RunFolder


@pytest.fixture(scope="module")
def made(make_run, small_config):
  """A run of drawn weights that keeps images for calibration."""
  config = small_config(
    neck=dict(name="none"), data=dict(resize=8, crop=8, examples=960, calibration=0.5), batch_size=80,
    backbone=dict(name="small_resnet", widths=(4,), blocks=1),
  )  # fmt: skip
  return make_run(config, seed=1, name="run", sharpness=6.0)


@pytest.fixture
def run(made, tmp_path):
  shutil.copytree(made.path, tmp_path / "run")
  return RunFolder(tmp_path / "run")


@pytest.fixture
def knowing(monkeypatch):
  """Makes the labels those of the best paths for nearly all images, the more so the more confident a path is."""
  plain = predictions.predict_split

  def predict_split(*args):
    found = plain(*args)
    known = np.random.default_rng(len(found.labels)).random(len(found.labels)) < 0.55 + 0.6 * found.probability[:, 0]
    return found.replace(labels=np.where(known[:, None], found.paths, found.labels))

  monkeypatch.setattr(predictions, "predict_split", predict_split)


def found_on(run, split):
  ensemble = open_ensemble([str(run.path)], MESH, "", 0)
  stages = Stages(ensemble.whole.run.options, threshold=UNSHORTENED)
  return Confidences.of(predictions.predict_split(ensemble, open_images(ensemble, split), stages))


@pytest.mark.parametrize("of", ["answers", "images"])
def test_the_certificate_is_that_of_the_exact_tests_on_the_calibration_images(run, knowing, of, capsys):
  calibration, test = found_on(run, "calibration"), found_on(run, "test")
  assert len(calibration.length) == 480
  share = 0.9
  evaluate(run.path, certify=share, sure=0.8, of=of)
  printed = capsys.readouterr().out

  start, tested = (0, slice(None)) if of == "images" else guided_start(calibration, Promise(share, 0.8))
  expected = None
  for threshold in STRICT_FIRST[start:]:
    answered, right = (each[tested] for each in calibration.answers(threshold))
    trials = (right[answered] if of == "answers" else right | ~answered).tolist()
    if not trials or binomtest(sum(trials), len(trials), share, alternative="greater").pvalue > 0.2:
      break
    expected = threshold
  assert expected is not None and 0 < expected < STRICT_FIRST[start]

  record = json.loads((run.path / "eval" / "certificate.json").read_text())
  assert (record["threshold"], record["certified"], record["sure"], record["of"]) == (expected, share, 0.8, of)
  assert record["split"] == "calibration" and record["bound"] >= share
  for split, confidences in (("calibration", calibration), ("test", test)):
    at = confidences.at(expected)
    for name in ("coverage", "selective_accuracy", "level_accuracy"):
      assert record[name][split] == at[name]
    assert json.loads((run.path / "eval" / f"{split}-threshold.json").read_text())["coverage"] == at["coverage"]
  assert f"certified at threshold {expected:g}: with probability 0.8" in printed and "used twice" not in printed
  assert printed.count("end at level 1") == 2  # the accuracy by level, of both splits

  (run.path / "eval" / "test-threshold.json").unlink()
  evaluate(run.path, threshold="certified")
  measured = json.loads((run.path / "eval" / "test-threshold.json").read_text())
  assert measured["threshold"] == expected and measured["coverage"] == record["coverage"]["test"]
  (choice,) = read_choices(run)
  assert {"checksum": record.pop("data")["checksum"], **record} == choice.about
  images = np.zeros((1, 8, 8, 3), np.uint8)
  named = Predictor(run.path, threshold="certified")(images), Predictor(run.path, threshold=str(choice.value))(images)
  assert [row.path for row in named[0]] == [row.path for row in named[1]]


def test_where_nothing_is_certified_no_command_answers_by_it(run, capsys):
  evaluate(run.path, certify=0.999)
  printed = capsys.readouterr().out
  record = json.loads((run.path / "eval" / "certificate.json").read_text())
  assert record["certified"] is None and record["bound"] < 0.999
  assert (
    "nothing is certified" in printed and f"it can be promised that at least {100 * record['bound']:.2f}%" in printed
  )
  for use in (lambda: evaluate(run.path, threshold="certified"), lambda: Predictor(run.path, threshold="certified")):
    with pytest.raises(UserError, match="says that nothing could be certified"):
      use()


def test_without_calibration_validation_is_used_twice_and_without_both_nothing_is_tested(run, capsys):
  config = run.config()
  config["data"] |= {"calibration": 0.0}
  (run.path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match=r"choices\.json has no certificate; `hierjax evaluate .* --certify 0\.95` looks"):
    evaluate(run.path, threshold="certified")
  evaluate(run.path, certify=0.1)
  assert "the validation images are used twice" in capsys.readouterr().out
  assert json.loads((run.path / "eval" / "certificate.json").read_text())["split"] == "validation"
  config["data"] |= {"validation": 0.0}
  (run.path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match="has neither calibration nor validation images"):
    evaluate(run.path, certify=0.1)


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (dict(sure=0.9), "--sure and --of belong to --certify"),
    (dict(of="images"), "--sure and --of belong to --certify"),
    (dict(certify=0.9, threshold="0.5"), "--certify finds the threshold"),
    (dict(certify=0.9, alpha="sweep"), "--certify finds the threshold"),
    (dict(certify=1.5), r"--certify 1\.5: must be above 0 and below 1"),
    (dict(certify=0.9, sure=0.0), "--sure 0: must be above 0 and below 1"),
  ],
)
def test_flags_that_do_not_go_together_are_refused(made, flags, message):
  with pytest.raises(UserError, match=message):
    evaluate(made.path, **flags)
