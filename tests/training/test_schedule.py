"""Learning rates by step, the plateau, and the steps at which something is due."""

import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.training.schedule import Plateau, RunLength, ScheduleConfig, make_schedule


@pytest.mark.parametrize(
  ("section", "expected"),
  [
    ({"name": "constant"}, [1, 1, 1, 1, 1]),
    ({"name": "constant", "warmup": 2.0}, [0, 0.25, 0.5, 0.75, 1]),
    ({"name": "step", "boundaries": (1.0, 2.0), "factor": 0.1}, [1, 1, 0.1, 0.1, 0.01]),
    ({"name": "step", "boundaries": (1.5,), "factor": 0.5, "warmup": 0.5}, [0, 1, 1, 0.5, 0.5]),
    ({"name": "step", "boundaries": (0.9, 1.0, 1.1), "factor": 0.5}, [1, 1, 0.125, 0.125, 0.125]),  # all at step 2
    ({"name": "step", "boundaries": (1.0,), "factor": 0.5, "warmup": 1.0}, [0, 0.5, 0.5, 0.5, 0.5]),
    ({"name": "cosine"}, [1, (1 + np.cos(np.pi / 5)) / 2, None, None, (1 + np.cos(4 * np.pi / 5)) / 2]),
  ],
)
def test_schedules_move_in_epochs(section, expected):
  schedule, _ = make_schedule(section, 1.0, RunLength(2.0, 5))
  for step, value in enumerate(expected):
    if value is not None:
      np.testing.assert_allclose(schedule(jnp.int32(step)), value, rtol=1e-6, atol=1e-7)


def test_a_boundary_within_warmup_is_refused():
  message = r"config\.schedule\.boundaries: 2\.0 lies within the 5\.0 epochs of config\.schedule\.warmup"
  with pytest.raises(UserError, match=message):
    make_schedule({"name": "step", "boundaries": (8.0, 2.0), "warmup": 5.0}, 1.0, RunLength(2.0, 9))
  make_schedule({"name": "cosine", "boundaries": (2.0,), "warmup": 5.0}, 1.0, RunLength(2.0, 9))


@pytest.mark.parametrize("section", [{"warmup": 1e9}, {"boundaries": (1e7,)}])
def test_epochs_of_a_schedule_are_not_beyond_all_measure(section):
  with pytest.raises(UserError, match=rf"config\.schedule\.{next(iter(section))} = .*: .*at most 100,000"):
    make_schedule(section, 1.0, RunLength(2.0, 5))


def test_unknown_keys_and_values_of_a_schedule_are_refused():
  with pytest.raises(UserError, match=r"config\.schedule\.monitor = 'f1': must be loss or accuracy"):
    make_schedule({"monitor": "f1"}, 1.0, RunLength(1.0, 1))
  with pytest.raises(UserError, match="did you mean 'warmup'"):
    make_schedule({"warm_up": 1.0}, 1.0, RunLength(1.0, 1))


def _scales(values, **settings):
  config = ScheduleConfig(name="plateau", **settings)
  plateau, found = Plateau.initial(), []
  for value in values:
    plateau = plateau.after(value, config)
    found.append(float(plateau.scale))
  return found


def test_the_plateau_drops_after_its_patience_and_only_then():
  config = ScheduleConfig(name="plateau", factor=0.5, patience=2, min_delta=0.1)
  plateau = Plateau.initial()
  seen = []
  for loss in (2.0, 1.5, 1.45, 1.46, 1.0, 1.0, 0.95, 0.96, 0.97):
    plateau = plateau.after(loss, config)
    seen.append((float(plateau.scale), float(plateau.best)))
  best = [2.0, 1.5, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0]
  scale = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
  np.testing.assert_allclose(seen, np.stack([scale, best], axis=1), rtol=1e-6)


def test_with_min_delta_0_any_decrease_is_an_improvement_and_an_equal_value_is_none():
  falls = np.float32(1) - np.arange(5, dtype=np.float32) * np.float32(2**-20)
  assert _scales(falls.tolist(), factor=0.5, patience=1, min_delta=0.0) == [1.0] * 5
  assert _scales([1.0, 1.0, 1.0], factor=0.5, patience=1, min_delta=0.0) == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
  ("epochs", "expected"),
  [(1.0, [3, 5, 8, 10, 11]), (0.5, [2, 3, 4, 5, 7, 8, 9, 10, 11]), (2.0, [5, 10, 11]), (100.0, [11])],
)
def test_what_is_due_after_so_many_epochs_is_due_at_the_first_step_from_then_on_and_at_the_last(epochs, expected):
  length = RunLength(steps_per_epoch=2.5, total_steps=11)
  assert [step for step in range(1, 12) if length.due(step, epochs)] == expected


def test_bounds_of_the_steps_stretch_and_shorten_epochs():
  usual = RunLength.of(10.0, 4.0)
  assert usual == RunLength(10.0, 40) == RunLength.of(10.0, 4.0, (20, 100))
  few = RunLength.of(0.5, 4.0, (200, 0))
  assert few == RunLength(50.0, 200)
  assert [step for step in range(1, 201) if few.due(step, 1.0)] == [50, 100, 150, 200]
  assert RunLength.of(1000.0, 4.0, (0, 200)) == RunLength(50.0, 200)
  assert RunLength.of(1000.0, 0.0, (200, 0)).total_steps == 0


def test_the_length_says_what_an_epoch_is_where_a_bound_changed_it():
  assert RunLength.of(10.0, 4.0).in_words(10.0) == "40 steps, 4.0 passes over the images"
  said = RunLength.of(1000.0, 40.0, (0, 2500)).in_words(1000.0)
  assert said.startswith("2,500 steps, 2.5 passes") and "an epoch of this run is 0.062 passes" in said
