import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.runs.checkpoint import Checkpoints, template
from hierjax.runs.devices import data_mesh, replicated


def state(value):
  return {"params": {"w": jnp.full((3,), value)}}, {"step": jnp.int32(value)}


def test_the_latest_and_the_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, select_best=True, create=True)
  for step, accuracy in ((1, 0.2), (2, 0.9), (3, 0.5), (4, 0.1)):
    checkpoints.save(step, *state(step), accuracy)
  checkpoints.save(5, *state(5))  # between two evaluations
  checkpoints.wait()
  assert checkpoints.latest == 5
  assert checkpoints.best == 2
  checkpoints.close()
  assert {p.name for p in tmp_path.iterdir()} == {"2", "5"}


def test_checkpoints_without_a_score_are_removed_once_they_are_not_the_latest(tmp_path):
  checkpoints = Checkpoints(tmp_path, select_best=True, create=True)
  for step, score in ((1, None), (2, 0.5), (3, None), (4, None), (5, 0.4), (6, None)):
    checkpoints.save(step, *state(step), score)
  checkpoints.close()
  assert {p.name for p in tmp_path.iterdir()} == {"2", "6"}


def test_without_validation_the_last_one_counts(tmp_path):
  checkpoints = Checkpoints(tmp_path, select_best=False, create=True)
  for step in (1, 2):
    checkpoints.save(step, *state(step))
  checkpoints.wait()
  assert checkpoints.best == checkpoints.latest == 2
  checkpoints.close()


def test_restoring_places_the_arrays_and_the_model_can_be_read_alone(tmp_path):
  checkpoints = Checkpoints(tmp_path, select_best=False, create=True)
  checkpoints.save(7, *state(7))
  checkpoints.close()
  whole = replicated(data_mesh())
  shapes = [template(jax.eval_shape(lambda part=part: part), whole) for part in state(0)]
  checkpoints = Checkpoints(tmp_path, select_best=False)
  model, training = checkpoints.restore(7, *shapes)
  np.testing.assert_array_equal(model["params"]["w"], 7.0)
  assert len(model["params"]["w"].sharding.device_set) == 4
  assert int(training["step"]) == 7
  np.testing.assert_array_equal(checkpoints.restore_model(7, shapes[0])["params"]["w"], 7.0)
  other = template({"params": {"w": jnp.zeros((4,))}}, whole)
  with pytest.raises(
    UserError, match=r"another model than config.*: params/w is \[3\] in the checkpoint, and \[4\] by"
  ):
    checkpoints.restore_model(7, other)
  checkpoints.close()


def test_saving_what_all_devices_hold_compiles_nothing(tmp_path):
  placed = jax.device_put(jnp.zeros((8, 52)), replicated(data_mesh()))  # a part for each of 4 devices
  checkpoints, events = Checkpoints(tmp_path, select_best=False, create=True), []
  jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
  checkpoints.save(1, {"params": {"w": placed}}, {"step": placed})
  checkpoints.close()
  assert not [event for event in events if "compile" in event]


def test_a_flipped_bit_is_noticed_and_a_checkpoint_without_a_checksum_is_read(tmp_path, rng):
  model = {"params": {"w": jnp.asarray(rng.normal(size=3000), jnp.float32)}}
  checkpoints = Checkpoints(tmp_path, select_best=False, create=True)
  checkpoints.save(7, model, {"step": jnp.int32(7)})
  checkpoints.wait()
  wanted = template(model, replicated(data_mesh()))
  checkpoints.restore_model(7, wanted)
  about = tmp_path / "7" / "_CHECKPOINT_METADATA"
  kept = about.read_text()
  about.write_text(json.dumps(json.loads(kept) | {"custom_metadata": {}}))  # as older checkpoints are
  np.testing.assert_array_equal(checkpoints.restore_model(7, wanted)["params"]["w"], model["params"]["w"])
  about.write_text(kept)
  file = max((p for p in (tmp_path / "7" / "model").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  written = file.read_bytes()
  for quarter in (1, 2, 3):  # the array's compressed bytes: one bit of them is one value, or hundreds, or an error
    data = bytearray(written)
    data[len(data) * quarter // 4] ^= 16
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"7 is damaged \("):
      checkpoints.restore_model(7, wanted)
  checkpoints.close()
