"""A process of a run sees that another one has ended or is frozen."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing

import jax
import pytest
from jax.experimental import multihost_utils

from hierjax.config_files import load_config
from hierjax.runs import peers
from hierjax.runs.folder import RunFolder


@pytest.fixture
def ended(monkeypatch):
  """Makes this process the first of two; what ends it is kept in the list."""
  lost = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: None)
  monkeypatch.setattr(peers, "_BEAT_S", 0.01)
  monkeypatch.setattr(peers, "_SILENT_S", 0.2)
  monkeypatch.setattr(peers, "end", lambda folder, why: lost.append(why))
  return lost


def beating(folder, stop):
  number = 0
  while not stop.wait(0.02):
    (folder / ".alive-1").write_text(str(number := number + 1))


def test_a_silent_process_ends_this_one_and_a_living_one_does_not(tmp_path, ended):
  stop = threading.Event()
  thread = threading.Thread(target=beating, args=(tmp_path, stop))
  thread.start()
  with peers.watched(RunFolder(tmp_path)):
    time.sleep(0.5)
    alive = list(ended)
    stop.set()
    thread.join()
    time.sleep(0.5)
  assert not alive and ended and ended[0].startswith("process 1 of the run has ended, or has not answered")
  assert (tmp_path / ".alive-0").read_text() == "done"


def test_one_that_ends_right_after_the_start_is_noticed(tmp_path, ended):
  (tmp_path / ".alive-1").write_text("1")  # its first number, and its last
  with peers.watched(RunFolder(tmp_path)):
    time.sleep(0.5)
  assert ended


def test_a_process_that_has_come_to_its_end_may_be_silent(tmp_path, ended):
  (tmp_path / ".alive-1").write_text("done")
  with peers.watched(RunFolder(tmp_path)):
    time.sleep(0.5)
  assert not ended


def test_the_sentence_names_the_step_and_the_status_is_the_documented_one(tmp_path, monkeypatch, capfd):
  statuses = []
  monkeypatch.setattr(peers.os, "_exit", statuses.append)
  monkeypatch.setattr(peers, "_ending", threading.Lock())
  for step in (40, 80):
    (tmp_path / "checkpoints" / str(step) / "model").mkdir(parents=True)
  peers.end(RunFolder(tmp_path), "process 1 of the run has ended")
  assert statuses == [75]
  assert capfd.readouterr().err == (
    "error: process 1 of the run has ended; the same command on all processes goes on from step 80\n"
  )


PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
from hierjax.runs import peers
from hierjax.runs.folder import RunFolder
peers.end_where_jax_aborts(RunFolder(Path(sys.argv[1])))
"""
FRAMES = (
  r'b"*** Check failure stack trace: ***\n    @     0x7f5de4c40634  absl::SendToLog()\n    @     0x7f  (unknown)"'
)


def run(program, folder, **options):
  command = [sys.executable, "-c", PROGRAM + program, str(folder)]
  return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_reason_of_an_abort_is_printed_and_its_trace_is_in_a_file(tmp_path, toy_tree):
  (tmp_path / "checkpoints" / "40" / "model").mkdir(parents=True)
  found = run(
    f"""
print("of Python", file=sys.stderr)
def abort():
  os.write(2, b"F1201 client.h:80] Terminating process\\n    of @ 0x7f\\n")
  os.write(2, {FRAMES} + b"\\n")
  os.abort()
threading.Thread(target=abort).start()
time.sleep(60)""",
    tmp_path,
  )
  (trace,) = tmp_path.glob(".trace-*.txt")
  assert found.returncode == peers.LOST
  assert found.stderr.splitlines() == [
    "of Python",
    "F1201 client.h:80] Terminating process",
    "    of @ 0x7f",
    f"(its stack trace is in {trace})",
    "error: JAX aborted this process for the reason above; most likely another one of the run, or its machine, has "
    "ended; the same command on all processes goes on from step 40",
  ]
  assert [line.split()[-1] for line in trace.read_text().splitlines()] == ["***", "absl::SendToLog()", "(unknown)"]
  RunFolder(tmp_path / "new").path.mkdir()
  trace.rename(tmp_path / "new" / trace.name)
  with closing(RunFolder(tmp_path / "new")) as folder:  # a run begins in a folder that has one
    folder.begin(load_config("quickstart:smoke", []), toy_tree, "checksum")


@pytest.mark.parametrize(
  ("end", "status"),
  [
    ("1 / 0", 1),
    ("os._exit(7)", 7),
    ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ("os.killpg(0, signal.SIGTERM)", -signal.SIGTERM),
  ],
)
def test_nothing_that_cpp_prints_is_lost_however_the_process_ends(tmp_path, end, status):
  found = run(f"""os.write(2, b"first\\n" + {FRAMES} + b"\\nlast")\n{end}""", tmp_path, start_new_session=True)
  (trace,) = tmp_path.glob(".trace-*.txt")
  assert found.returncode == status and len(trace.read_text().splitlines()) == 3
  lines = [line for line in found.stderr.splitlines() if not line.startswith((" ", "Traceback", "ZeroDivisionError"))]
  assert lines == ["first", f"(its stack trace is in {trace})", "last"]


def test_without_a_folder_a_trace_goes_to_the_temporary_ones_and_without_a_stderr_nothing_does(tmp_path):
  (tmp_path / "tmp").mkdir()
  environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
  found = run(f"os.write(2, {FRAMES})", tmp_path / "none", env=environment)
  (trace,) = (tmp_path / "tmp").glob(".trace-*.txt")
  assert found.stderr == f"(its stack trace is in {trace})\n" and len(trace.read_text().splitlines()) == 3
  assert run("os.close(2)\npeers.end_where_jax_aborts(RunFolder(Path(sys.argv[1])))", tmp_path).returncode == 0


# What JAX says of process 1 where process 0 has ended or is frozen, and the reverse.
LOST = {
  (0, "SIGKILL"): "UNAVAILABLE",
  (0, "SIGSTOP"): "DEADLINE_EXCEEDED",
  (1, "SIGKILL"): "unhealthy",
  (1, "SIGSTOP"): "unhealthy",
}


def pair(folder, lost, sign, stack):
  """Starts two processes that meet, of which one kills or freezes itself; returns the other."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    place = f"127.0.0.1:{free.getsockname()[1]}"
  program = f"""
import jax
number, up = int(sys.argv[2]), Path(sys.argv[1], "up")
jax.distributed.initialize({place!r}, 2, number, heartbeat_timeout_seconds=5)
if number != {lost}:
  up.touch()
  time.sleep(100)
while not up.exists():
  time.sleep(0.05)
os.kill(os.getpid(), signal.{sign})"""
  for number, output in ((lost, subprocess.DEVNULL), (1 - lost, subprocess.PIPE)):
    command = [sys.executable, "-c", PROGRAM + program, str(folder), str(number)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = stack.enter_context(subprocess.Popen(command, env=environment, stderr=output, text=True))
    stack.callback(process.kill)
  return process


def test_the_end_of_a_process_ends_the_other_with_the_sentence_and_without_a_trace(tmp_path):
  with ExitStack() as stack:  # all at once, since they wait
    folders = {case: tmp_path / "-".join(map(str, case)) for case in LOST}
    for folder in folders.values():
      folder.mkdir()
    others = {case: pair(folder, *case, stack) for case, folder in folders.items()}
    for case, other in others.items():
      said = other.communicate(timeout=120)[1]
      assert other.returncode == peers.LOST and LOST[case] in said, f"{case}: {said}"
      assert said.splitlines()[-1].startswith("error: JAX aborted this process for the reason above"), case
      assert "@     0x" not in said, case
      (trace,) = folders[case].glob(".trace-*.txt")
      assert "@     0x" in trace.read_text()


def test_all_begin_together_with_a_number_written_and_end_together(tmp_path, monkeypatch, ended):
  own, met = tmp_path / ".alive-0", []
  monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: met.append(own.read_text()))
  with peers.watched(RunFolder(tmp_path)):
    assert len(met) == 1 and met[0].isdigit()
  assert len(met) == 2 and met[1] != "done"
  with pytest.raises(KeyError), peers.watched(RunFolder(tmp_path)):
    raise KeyError("of this process alone, so the others do not come")
  assert len(met) == 3


def test_one_process_watches_nothing(tmp_path):
  with peers.watched(RunFolder(tmp_path)):
    pass
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("error", "lost"),
  [
    (jax.errors.JaxRuntimeError("UNAVAILABLE: Connection reset by peer"), True),
    (ValueError("Gloo all-reduce failed"), True),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"), False),
    (ValueError("RESOURCE_EXHAUSTED: Gloo"), False),
    (KeyError("a bug"), False),
  ],
)
def test_memory_that_is_short_here_is_no_lost_process(error, lost):
  assert peers.is_lost(error) is lost
