"""Runs on a disk of a few MiB that fills: they wait for room, or end with a sentence, and nothing else is printed."""

import json
import subprocess
import sys
import threading
import time
from contextlib import closing

import jax.numpy as jnp
import numpy as np
import pytest

from hierjax import disk
from hierjax.runs import checkpoint
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.folder import RunFolder
from hierjax.training.logs.console import Progress
from hierjax.training.logs.metrics_log import MetricsLog

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 6 MiB."""
  made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", tmp_path], capture_output=True, check=False)
  if made.returncode:
    pytest.skip("file systems cannot be mounted here")
  yield tmp_path
  subprocess.run(["umount", "-l", tmp_path], check=True)


def state(step):
  return {"w": jnp.full(MIB // 4, step, jnp.float32)}, {"step": jnp.int32(step)}


def saved(folder, *steps):
  with closing(Checkpoints(folder, select_best=False, create=True)) as checkpoints:
    for step in steps:
      checkpoints.save(step, *state(step))


def fill(folder, left):
  """Writes a file that leaves so many bytes."""
  file = folder / "filler"
  file.write_bytes(bytes(max(0, disk.room(folder) - left)))
  return file


def removed_later(file):
  thread = threading.Timer(0.5, file.unlink)
  thread.start()
  return thread


def test_a_checkpoint_waits_for_room(small_disk, monkeypatch, capfd):
  monkeypatch.setattr(disk, "_POLL_S", 0.05)
  saved(small_disk, 1)
  thread = removed_later(fill(small_disk, MIB))
  saved(small_disk, 2)
  thread.join()
  out, err = capfd.readouterr()
  first, second = err.splitlines()
  assert not out and second == "there is room again: the run goes on"
  assert (
    first.startswith(f"warning: {small_disk / '2'}: the disk is full: 2,097,1") and " are free; the run waits" in first
  )
  with closing(Checkpoints(small_disk, select_best=False)) as checkpoints:
    assert checkpoints.latest == 2 and not checkpoints.damaged


def test_after_a_while_it_ends_with_a_sentence_and_leaves_the_one_before(small_disk, monkeypatch, capfd):
  monkeypatch.setattr(disk, "WAIT_S", 0)
  saved(small_disk, 1)
  fill(small_disk, MIB)
  checkpoints = Checkpoints(small_disk, select_best=False, create=True)
  needed = rf"{small_disk / '2'}: the disk is full: 2,097,156 bytes are needed, 1,0\d\d,\d{{3}} are free; make room"
  with pytest.raises(disk.NoRoom, match=f"{needed}, and the same command goes on from step 1$"):
    checkpoints.save(2, *state(2))
  checkpoints.close()
  assert capfd.readouterr() == ("", "")


def test_a_disk_that_fills_while_a_checkpoint_is_written_costs_that_one_alone(small_disk, monkeypatch, capfd, rng):
  monkeypatch.setattr(checkpoint, "check_room", lambda *_: None)  # another program is faster
  model = {"w": jnp.asarray(rng.normal(size=MIB // 4), jnp.float32)}
  with closing(Checkpoints(small_disk, select_best=False, create=True)) as checkpoints:
    checkpoints.save(1, model, state(1)[1])
    checkpoints.wait()
    filler = fill(small_disk, MIB // 2)
    checkpoints.save(2, model, state(2)[1])
    for _ in range(100):  # until it has failed
      time.sleep(0.05)
      if checkpoints._orbax._async_manager._thread is None or not checkpoints._orbax._async_manager._thread.is_alive():
        break
    filler.unlink()
    checkpoints.save(3, model, state(3)[1])
  said = capfd.readouterr().err.splitlines()
  assert len(said) == 1 and said[0].startswith(
    f"warning: {small_disk / '2'}: the disk is full: 1,048,580 bytes are needed"
  )
  assert said[0].endswith("are free; the run goes on without this checkpoint")
  assert sorted(path.name for path in small_disk.iterdir()) == ["1", "3"]


def test_a_line_of_the_log_waits_for_room(small_disk, monkeypatch, capfd):
  monkeypatch.setattr(disk, "_POLL_S", 0.05)
  log = MetricsLog(RunFolder(small_disk), Progress(1000, 4), loggers=("jsonl",))
  thread = removed_later(fill(small_disk, 0))
  for step in range(1, 200):
    log.write(step, "train", {"loss": step / 3})
  thread.join()
  log.close()
  lines = [json.loads(line) for line in (small_disk / "metrics.jsonl").read_text().splitlines()]
  assert [line["loss"] for line in lines] == (np.arange(1, 200) / 3).tolist()
  assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()] == ["warning", "there is room again"]


TRAIN = """
import sys, threading
from pathlib import Path
from hierjax import disk
from hierjax.cli.main import main
from hierjax.training.loop.steps import Steps

disk.WAIT_S, disk._POLL_S = float(sys.argv[2]), 0.2
folder, take = Path(sys.argv[1]), Steps.take

def filling(steps, done, *args):
  if done == 5:
    (folder / "filler").write_bytes(bytes(disk.room(folder) - 2**18))
    threading.Timer(3.0, (folder / "filler").unlink).start()
  take(steps, done, *args)

Steps.take = filling
sys.exit(main(["train", "quickstart:smoke", f"--workdir={folder / 'run'}", "--config.checkpoint_every=0.2",
               "--config.epochs=3"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("patience", "status"), [("60", 0), ("0", 1)])
def test_a_training_on_a_disk_that_fills(small_disk, patience, status):
  command = [sys.executable, "-c", TRAIN, str(small_disk), patience]
  found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
  assert found.returncode == status, found.stderr
  last = found.stderr.strip().splitlines()[-1]
  assert last == "there is room again: the run goes on" if status == 0 else last.startswith("error: ")
  assert "the disk is full" in found.stderr and "Traceback" not in found.stderr
