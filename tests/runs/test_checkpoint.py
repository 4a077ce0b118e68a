import asyncio
import gc
import json
import resource
import threading
from contextlib import closing
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax import disk
from hierjax.errors import UserError
from hierjax.runs import checkpoint
from hierjax.runs.checkpoint import Checkpoints, VanishedCheckpoint, template
from hierjax.runs.devices import data_mesh, replicated


def state(value):
  return {"params": {"w": jnp.full((3,), value)}}, {"step": jnp.int32(value)}


def names(folder):
  return {p.name for p in folder.iterdir()}


def test_the_two_latest_and_the_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, select_best=True, create=True)
  for step, accuracy in ((1, 0.2), (2, 0.9), (3, 0.5), (4, 0.1)):
    checkpoints.save(step, *state(step), accuracy)
  checkpoints.save(5, *state(5))  # between two evaluations
  checkpoints.wait()
  assert (checkpoints.latest, checkpoints.best) == (5, 2)
  checkpoints.close()
  assert names(tmp_path) == {"2", "4", "5"}
  checkpoints = Checkpoints(tmp_path, select_best=True)
  assert (checkpoints.latest, checkpoints.best) == (5, 2)
  checkpoints.close()


def test_of_equal_scores_the_later_is_best_and_what_has_no_score_is_never(tmp_path):
  checkpoints = Checkpoints(tmp_path, select_best=True, create=True)
  for step, score in ((1, None), (2, 0.5), (3, None), (4, 0.5), (5, 0.4), (6, None)):
    checkpoints.save(step, *state(step), score)
  checkpoints.close()
  assert names(tmp_path) == {"4", "5", "6"}


def test_a_checkpoint_is_on_the_disk_before_an_older_one_is_removed(tmp_path, monkeypatch):
  done = []
  monkeypatch.setattr(checkpoint, "sync", lambda path: done.append(f"sync {path.name}"))
  remove = checkpoint._remove
  monkeypatch.setattr(checkpoint, "_remove", lambda path: (done.append(f"remove {path.name}"), remove(path)))
  checkpoints = Checkpoints(tmp_path, select_best=False, create=True)
  for step in (1, 2, 3, 4):
    checkpoints.save(step, *state(step))
  checkpoints.close()
  assert done == ["sync 1", "sync 2", "sync 3", "remove 1", "sync 4", "remove 2"]


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


SHAPES = [template(part, replicated(data_mesh())) for part in state(0)]


def restored(folder):
  """Returns what a run goes on from."""
  with closing(Checkpoints(folder, select_best=True, create=True)) as checkpoints:
    model, training, remarks = checkpoints.restore_latest(*SHAPES)
    return float(model["params"]["w"][0]), int(training["step"]), remarks


def three(folder):
  with closing(Checkpoints(folder, select_best=True, create=True)) as checkpoints:
    for step in (3, 6, 9):
      checkpoints.save(step, *state(step), score=1 / step)


def test_no_flipped_bit_of_any_file_is_silent(tmp_path, rng):
  """Whatever bit of a checkpoint is wrong, it is as it was saved, or is damaged."""
  model, training = ({"w": jnp.asarray(rng.normal(size=n), jnp.float32)} for n in (3000, 500))
  with closing(Checkpoints(tmp_path, select_best=False, create=True)) as checkpoints:
    checkpoints.save(7, model, training)
  shapes = [template(part, replicated(data_mesh())) for part in (model, training)]
  files = sorted((p for p in (tmp_path / "7").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  places = [(file, int(rng.integers(file.stat().st_size))) for file in [*files, *[files[-1], files[-2]] * 5]]
  noticed = 0
  for file, place in places:
    written = file.read_bytes()
    file.write_bytes(written[:place] + bytes([written[place] ^ 1 << int(rng.integers(8))]) + written[place + 1 :])
    with closing(Checkpoints(tmp_path, select_best=False)) as checkpoints:
      try:
        found = checkpoints.restore_latest(*shapes)[:2]
      except UserError as error:
        assert "7 is damaged (" in str(error)
        noticed += 1
      else:
        chex.assert_trees_all_equal(found, (model, training))
    file.write_bytes(written)
  assert noticed >= 10  # each in the arrays' compressed bytes


@pytest.mark.parametrize("key", ["step", "score", "contents", "layouts"])
def test_a_changed_record_is_damage(tmp_path, key):
  three(tmp_path)
  about = tmp_path / "6" / "_CHECKPOINT_METADATA"
  kept = json.loads(about.read_text())
  record = kept["custom_metadata"]["hierjax"]
  record[key] = {"step": 7, "score": 0.9, "contents": {}, "layouts": {}}[key]
  about.write_text(json.dumps(kept))
  with closing(Checkpoints(tmp_path, select_best=True)) as checkpoints:
    assert (checkpoints.best, checkpoints.latest, list(checkpoints.damaged)) == (3, 9, [6])
    assert "6 is damaged (the record" in str(checkpoints.damaged[6])


def test_a_checkpoint_by_the_name_of_another_step_is_damage(tmp_path):
  three(tmp_path)
  (tmp_path / "9").rename(tmp_path / "90")
  assert restored(tmp_path)[1] == 6


def test_a_run_goes_on_from_the_newest_that_is_whole_and_the_others_are_set_aside(tmp_path):
  three(tmp_path)
  for file in (tmp_path / "9" / "training").rglob("d/*"):
    file.write_bytes(b"\0" * file.stat().st_size)
  (tmp_path / "6" / "_CHECKPOINT_METADATA").unlink()
  weight, step, remarks = restored(tmp_path)
  assert (weight, step) == (3.0, 3)
  assert [remark.partition("is damaged")[0] for remark in remarks] == [
    f"warning: checkpoint {tmp_path / str(step)} " for step in (9, 6)
  ]
  assert "it is damaged-9 now, and the run goes on from step 3" in remarks[0]
  assert names(tmp_path) == {"3", "damaged-6", "damaged-9"}
  assert restored(tmp_path) == (3.0, 3, [])


def test_where_no_checkpoint_is_whole_nothing_is_moved(tmp_path):
  three(tmp_path)
  for step in (3, 6, 9):
    (tmp_path / str(step) / "_CHECKPOINT_METADATA").write_text("{}")
  with pytest.raises(UserError, match="9 is damaged"):
    restored(tmp_path)
  with closing(Checkpoints(tmp_path, select_best=True)) as checkpoints, pytest.raises(UserError, match="9 is damaged"):
    checkpoints.counting()
  assert names(tmp_path) == {"3", "6", "9"}


def test_a_folder_that_has_the_name_of_a_step_is_no_checkpoint(tmp_path):
  three(tmp_path)
  (tmp_path / "999" / "notes").mkdir(parents=True)
  (tmp_path / "12").mkdir()
  with closing(Checkpoints(tmp_path, select_best=True, create=True)) as checkpoints:
    assert (checkpoints.latest, checkpoints.damaged) == (9, {})
    checkpoints.save(12, *state(12))
    checkpoints.save(15, *state(15))
  assert names(tmp_path) == {"3", "12", "15", "999"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that orbax has given up
def test_a_reader_beside_a_trainer_finds_a_whole_checkpoint_or_that_it_is_gone(tmp_path):
  three(tmp_path)
  stop, read, gone = threading.Event(), 0, 0

  def trainer():
    with closing(Checkpoints(tmp_path, select_best=False, create=True)) as checkpoints:
      for step in range(10, 17):
        checkpoints.save(step, *state(step))
    stop.set()

  thread = threading.Thread(target=trainer)
  thread.start()
  while not stop.is_set():
    with closing(Checkpoints(tmp_path, select_best=True)) as checkpoints:
      step = checkpoints.counting()
      try:
        assert float(checkpoints.restore_model(step, SHAPES[0])["params"]["w"][0]) == step
        read += 1
      except VanishedCheckpoint:
        gone += 1
  thread.join()
  assert read > 0 and gone <= read


def test_a_checkpoint_that_is_removed_while_it_is_read_is_not_called_damaged(tmp_path, monkeypatch):
  three(tmp_path)
  with closing(Checkpoints(tmp_path, select_best=True)) as checkpoints:
    restore = checkpoints._orbax.restore

    def removed_meanwhile(folder, args):
      checkpoint._remove(folder)
      return restore(folder, args=args)

    monkeypatch.setattr(checkpoints._orbax, "restore", removed_meanwhile)
    with pytest.raises(VanishedCheckpoint, match="6 was removed while it was read"):
      checkpoints.restore_model(6, SHAPES[0])


def test_too_little_room_is_one_sentence_with_path_needed_and_free_bytes(tmp_path, monkeypatch):
  three(tmp_path)
  with closing(Checkpoints(tmp_path, select_best=True, create=True)) as checkpoints:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20 + 15))
    monkeypatch.setattr(disk, "WAIT_S", 0)
    needed = rf"{tmp_path / '10'}: the disk is full: 1,048,592 bytes are needed, 1,048,591 are free; make room"
    with pytest.raises(UserError, match=needed + ", and the same command goes on from step 9$"):
      checkpoints.save(10, *state(10))
    checkpoints.check_room_for([])
    with pytest.raises(UserError, match=r"1,048,593 bytes are needed, .* a run keeps up to 4 checkpoints"):
      checkpoints.check_room_for(np.zeros(17, np.uint8))
    monkeypatch.undo()
    checkpoints.save(10, *state(10))
  assert restored(tmp_path) == (10.0, 10, [])


def test_a_write_that_fails_is_one_sentence_and_the_run_goes_on_when_it_can(tmp_path, capfd, caplog, rng):
  three(tmp_path)
  model = {"params": {"w": jnp.asarray(rng.normal(size=100_000), jnp.float32)}}
  checkpoints = Checkpoints(tmp_path, select_best=True, create=True)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # as a full disk, for this process alone
  try:
    checkpoints.save(10, model, state(10)[1])
    with pytest.raises(UserError, match=r"10 could not be written \(.*goes on from step 9$"):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  checkpoints.close()
  assert capfd.readouterr() == ("", "")
  assert not [record for record in caplog.records if record.levelname == "ERROR"]  # a program may print its log
  assert names(tmp_path) == {"3", "6", "9"}
  assert restored(tmp_path) == (9.0, 9, [])


def test_a_read_that_is_dropped_prints_nothing_and_other_errors_do(monkeypatch):
  said = []
  monkeypatch.setattr(checkpoint, "_report_unraisable", said.append)
  dropped = Exception("Encountered error while reading array index: ()")
  dropped.__cause__ = GeneratorExit()
  checkpoint._report_others(SimpleNamespace(exc_value=dropped))
  assert not said
  checkpoint._report_others(SimpleNamespace(exc_value=Exception("Encountered error while reading array index: ()")))
  assert len(said) == 1


@pytest.mark.parametrize(
  ("file", "error", "shown"),
  [
    ("/site-packages/orbax/checkpoint/_src/serialization.py", "DATA_LOSS", 0),
    ("/home/me/orbax-tools/read.py", "DATA_LOSS [tensorstore_spec='{}']", 0),
    ("/home/me/orbax-tools/read.py", "a tensorstore that is not there", 1),
  ],
)
def test_reads_of_orbax_that_fail_after_the_first_are_not_logged(file, error, shown, caplog):
  names = {}
  exec(compile(f"async def read(): raise ValueError({error!r})", file, "exec"), names)  # noqa: S102 (to have its code in the file)
  with closing(asyncio.new_event_loop()) as loop:
    task = loop.create_task(names["read"]())
    loop.run_until_complete(asyncio.wait([task]))
    del task  # whose error nobody has asked for
    gc.collect()
  assert len([record for record in caplog.records if record.name == "asyncio"]) == shown
