"""Joining the processes of a run, and the end of the one that coordinates them."""

import contextlib
import socket
import subprocess
import sys
import threading

import pytest

from hierjax.errors import UserError
from hierjax.runs import coordinator
from hierjax.runs.coordinator import Relay

# Joins a run of two processes as `train` does, says so, and waits for the other.
JOINS = """
import functools, sys
from jax.experimental import multihost_utils
from hierjax.runs import coordinator, peers
from hierjax.runs.folder import RunFolder

with coordinator.joined(sys.argv[2], functools.partial(peers.end, RunFolder(sys.argv[1]))):
  multihost_utils.sync_global_devices("begun")
  print("begun", flush=True)
  sys.stdin.read(1)
"""


def started(workdir, places):
  pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  return subprocess.Popen([sys.executable, "-c", JOINS, workdir, places], **pipes)


@pytest.mark.parametrize("dies", [True, False])
def test_the_end_of_the_coordinator_is_a_sentence_and_a_status(dies, tmp_path):
  (tmp_path / "checkpoints" / "80" / "model").mkdir(parents=True)
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{s.getsockname()[1]}"
  first, second = (started(tmp_path, f"{address},2,{i}") for i in range(2))
  try:
    for process in (first, second):
      while process.stdout.readline() not in ("begun\n", ""):
        pass
    if dies:
      first.kill()
      assert second.wait(timeout=20) == 75
      assert second.stderr.read().splitlines()[1:] == [
        "error: process 0 of the run, which coordinates the others, has ended, or cannot be reached any more; "
        "the same command on all processes goes on from step 80"
      ]
    else:
      for process in (first, second):
        process.stdin.write("x")
        process.stdin.flush()
      assert [process.communicate(timeout=60)[1].count("\n") for process in (first, second)] == [1, 1]
      assert [first.returncode, second.returncode] == [0, 0]
  finally:
    for process in (first, second):
      process.kill()
      process.communicate()


@pytest.fixture
def echo():
  """Returns the address of a server that sends back what it gets, and a function that ends it."""
  server = socket.create_server(("127.0.0.1", 0))
  opened = []

  def send_back(client):
    while data := client.recv(100):
      client.sendall(data)

  def serve():
    with contextlib.suppress(OSError):  # closed
      while True:
        opened.append(server.accept()[0])
        threading.Thread(target=send_back, args=opened[-1:]).start()

  threading.Thread(target=serve, daemon=True).start()
  yield f"127.0.0.1:{server.getsockname()[1]}", lambda: [one.shutdown(socket.SHUT_RDWR) for one in opened]
  server.close()


def connected(relay):
  host, port = relay.address.split(":")
  return socket.create_connection((host, int(port)), timeout=10)


def test_bytes_pass_through_and_the_end_of_the_target_is_seen_and_kept_from_the_client(echo):
  address, end = echo
  relay, seen = Relay(address), []
  relay.lost = seen.append
  with connected(relay) as client:
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"
    end()
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
      client.recv(100)
    assert seen[:1] == ["process 0 of the run, which coordinates the others, has ended, or cannot be reached any more"]
  relay.close()


def test_before_and_after_a_run_connections_end_as_without_a_relay(echo):
  address, end = echo
  relay = Relay(address)
  with connected(relay) as client:
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"
    end()
    assert client.recv(100) == b""
  relay.close()
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    nobody = f"127.0.0.1:{s.getsockname()[1]}"
  relay = Relay(nobody)
  with connected(relay) as client:
    assert client.recv(100) == b""
  relay.close()


def test_the_places_of_processes_in_words_and_by_a_cluster(monkeypatch):
  assert coordinator._places("10.0.0.1:1234,4,3") == ("10.0.0.1:1234", 4, 3, None)
  slurm = {"SLURM_JOB_ID": "65537", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1",
           "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2"}  # fmt: skip
  for name, value in slurm.items():
    monkeypatch.setenv(name, value)
  address, count, index, devices = coordinator._places("auto")
  assert address.startswith("n1:") and (count, index, devices) == (2, 1, [0])


@pytest.mark.parametrize("text", ["here", "10.0.0.1,2,0", "10.0.0.1:1234,2,2", "10.0.0.1:1234,2,x", "auto"])
def test_other_texts_are_refused(text):
  with (
    pytest.raises(UserError, match=f"--multihost={text}: give auto, or ADDRESS,N,I"),
    coordinator.joined(text, print),
  ):
    pass
