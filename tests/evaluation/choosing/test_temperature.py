"""The temperature: fitted on validation, kept in the run's folder, used by every command."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from hierjax.evaluation.choosing.temperature import GRID, calibrate_run, fit
from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
from hierjax.evaluation.predictions import predictions_of_run
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.predictor import Predictor
from hierjax.runs.choices import keep_temperature, read_choices
from hierjax.runs.devices import data_mesh
from hierjax.runs.run import Run
from path_oracle import log_softmax


def sums(logits, labels, temperatures=GRID):
  """Returns the sum of the images' negative log-likelihood at each temperature."""
  rows = np.arange(len(labels))
  return np.array([-log_softmax(logits / t)[rows, labels].sum() for t in temperatures])


@pytest.mark.parametrize(("images", "true"), [(2000, 0.6), (2000, 1.7), (40, 0.6)])
def test_it_is_the_minimum_of_the_likelihood_and_the_prior(images, true, rng):
  logits = rng.normal(size=(images, 5)) * 2
  labels = np.array([rng.choice(5, p=p) for p in np.exp(log_softmax(logits / true))])

  def cost(log_t):
    return sums(logits, labels, [np.exp(log_t)])[0] / images + log_t**2 / (2 * images)

  found = fit(sums(logits, labels), images)
  best = minimize_scalar(cost, bounds=(-2, 2), method="bounded").x
  assert found.images == images
  np.testing.assert_allclose(np.log(found.temperature), best, atol=0.01)
  np.testing.assert_allclose(found.nll, sums(logits, labels, [1.0])[0] / images, rtol=1e-6)
  assert found.nll_after < found.nll
  if images == 2000:
    assert abs(found.temperature / true - 1) < 0.1


def test_few_images_that_are_all_right_do_not_make_it_certain():
  logits, labels = np.eye(3) * 2, np.arange(3)
  assert 0.3 < fit(sums(logits, labels), 3).temperature < 1
  assert fit(np.zeros(len(GRID)), 0) is None


@pytest.fixture(scope="module")
def run(make_run, small_config):
  """The folder of an untrained run whose logits are six times too large."""
  return make_run(small_config(data={"validation": 0.3}, neck=dict(name="none")), sharpness=6.0)


def test_every_use_of_the_folder_is_at_the_temperature(run):
  plain = Run.from_folder(run)
  before = predictions_of_run(LoadedRun.open(run, data_mesh()), "validation", plain.source("validation"))
  fitted = calibrate_run(plain, run, data_mesh())
  (choice,) = read_choices(run)
  assert choice.kind == "temperature" and choice.value == fitted.temperature and choice.made_for == {"step": 1}
  assert fitted.temperature > 1.5 and fitted.images == len(plain.source("validation"))
  loaded = LoadedRun.open(run, data_mesh())
  assert loaded.run.method.temperature == np.float32(fitted.temperature)
  after = predictions_of_run(loaded, "validation", loaded.run.source("validation"))
  for rows, nll in ((before, fitted.nll), (after, fitted.nll_after)):
    np.testing.assert_allclose(-np.log(rows.label_probability).mean(), nll, rtol=2e-3)
  np.testing.assert_array_equal(before.paths, after.paths)
  found = evaluate_run(run, data_mesh(), SplitSettings("validation"))
  assert found["temperature"] == pytest.approx(fitted.temperature)
  assert json.loads((run.path / "eval/validation.json").read_text())["temperature"] == found["temperature"]
  image = np.asarray(plain.source("validation").read(np.arange(1))[0])
  (answer,) = Predictor(run.path)([image])
  size = loaded.run.data.resize
  assert image.shape == (size, size, 3)
  np.testing.assert_allclose(answer.probability, after.probability[0][after.paths[0] >= 0][-1], rtol=1e-4)


def test_a_temperature_is_that_of_the_weights_that_count(make_run, small_config):
  folder = make_run(small_config(neck=dict(name="none")), name="other")
  keep_temperature(folder, 7, 0.5, {})  # of weights of another step
  assert Run.from_folder(folder).method.temperature == 1
  keep_temperature(folder, 1, 0.25, {})
  assert Run.from_folder(folder).method.temperature == 0.25


def test_it_can_be_left_out(run):
  config = Run.from_folder(run)
  off = dataclasses.replace(config, config=dataclasses.replace(config.config, calibrate=False))
  assert calibrate_run(off, run, data_mesh()) is None
  assert len(jax.devices()) == 4  # the sums above were over several devices
