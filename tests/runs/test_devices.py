"""What the process is told before devices are asked for, and how one of several ends."""

import os
import platform
import socket
import subprocess
import sys
import types

import pytest
from commands import run_command

from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.devices import fail

# Prints how many pages most calls of a program fault in for buffers that earlier calls had and freed. Some of the first
# calls fault in both ways: a small allocation may lie where their buffer was, until the heap has room for both.
FAULTS = """
import resource, statistics, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from hierjax.runs.devices import keep_memory

if sys.argv[1] == "prepared":
  keep_memory()
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
program = jax.jit(lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], 64, 1 << 17)) * 2)
sharding = NamedSharding(Mesh(np.array(jax.devices()), "d"), PartitionSpec("d"))
x, faults = jax.device_put(jnp.ones((2, 1 << 17)), sharding), []
for _ in range(50):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  jax.block_until_ready(program(x))
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median_low(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("cpus", ["1", "2"])
def test_a_program_finds_the_pages_of_its_large_buffers_again(cpus):
  def faults(word):
    command = [sys.executable, "-c", FAULTS, word, cpus]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return int(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)

  if faults("default") < 1000:
    pytest.skip("pages are so large here that no more of them are faulted in without it")
  assert faults("prepared") < 100


# Prints the MiB of memory of a process that has freed 504 of 512, before and after it returns them.
KEEPS = """
import numpy as np
from hierjax.runs import devices

def print_memory():
  print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS")))

devices.keep_memory()
arrays = [np.ones(1 << 20) for _ in range(64)]
last = arrays.pop()
del arrays
print_memory()
devices.return_memory()
print_memory()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_is_kept_until_it_is_returned():
  found = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, check=True, text=True).stdout
  kept, returned = map(int, found.split())
  assert kept - returned > 400


# Joins a run of two processes, of which the second fails and the first waits for it.
FAILS = """
import sys
from jax.experimental import multihost_utils
from hierjax.runs import devices

devices._HEARTBEAT = 10  # seconds; the first process is waited for that long
devices.join(f"127.0.0.1:{sys.argv[1]},2,{sys.argv[2]}")
multihost_utils.sync_global_devices("begun")
if sys.argv[2] == "1":
  devices.fail("error: no such image")
multihost_utils.sync_global_devices("ended")
"""


def test_a_process_that_fails_ends_at_once_and_takes_the_others_with_it():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = str(s.getsockname()[1])
  command = [sys.executable, "-c", FAILS, port]
  first, second = (subprocess.Popen([*command, n], stderr=subprocess.PIPE, text=True) for n in "01")
  try:
    assert second.communicate(timeout=150)[1].endswith("error: no such image\n") and second.returncode == 1
    first.communicate(timeout=90)  # by default it would wait for the other for 100 seconds, or 300
    assert first.returncode
  finally:
    first.kill()
    second.kill()


def test_alone_it_ends_as_usual():
  with pytest.raises(SystemExit, match="error: no such image"):
    fail("error: no such image")


@pytest.mark.parametrize(
  ("cores", "batch_size", "expected"),
  [
    (4, 0, 4),
    (16, 0, 8),
    (2, 128, 2),
    (16, 128, 8),
    (3, 64, 2),
    (4, 33, 3),
    (8, 20, 2),
    (4, 8, 1),
    (4, 7, 1),
    (1, 64, 1),
  ],
)
def test_the_cores_share_a_batch_that_they_divide_evenly(cores, batch_size, expected, monkeypatch, tmp_path):
  said = {}
  monkeypatch.setenv("XLA_FLAGS", "")
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
  monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
  monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
  monkeypatch.setattr(devices, "keep_memory", lambda: None)
  monkeypatch.setattr("jax.config.update", said.__setitem__)
  devices.prepare(batch_size)
  assert said == {"jax_num_cpu_devices": expected}


# Prints how many devices a process has that asks for a number of them.
ASKS = """
import sys
import jax
from hierjax.runs import devices

devices.prepare(128, int(sys.argv[1]))
print(jax.local_device_count())
"""


@pytest.mark.parametrize(
  "chosen", [{}, {"JAX_NUM_CPU_DEVICES": "2"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}]
)
def test_devices_that_are_asked_for_are_there_whatever_the_environment_says(chosen, tmp_path):
  environment = os.environ | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path), **chosen}
  found = subprocess.run([sys.executable, "-c", ASKS, "1"], env=environment, capture_output=True, check=True, text=True)
  assert found.stdout == "1\n"


@pytest.mark.parametrize(
  ("count", "cores", "found", "message"),
  [
    (3, 2, (), r"--devices 3: this process may use 2 cores"),
    (2, 2, ("gpu",) * 8, r"--devices 2: this process has 8 x H100 \(gpu\), and the flag is the number of CPU devices"),
    (2, 2, ("cpu",) * 4, r"--devices 2: this process has 4 x H100 \(cpu\)"),  # they have been made already
  ],
)
def test_devices_that_cannot_be_had_are_refused(count, cores, found, message, monkeypatch):
  def update(name, value):
    raise RuntimeError(name)

  local = [types.SimpleNamespace(platform=platform, device_kind="H100") for platform in found]
  monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
  monkeypatch.setattr(devices, "keep_memory", lambda: None)
  monkeypatch.setattr("jax.config.update", update)
  monkeypatch.setattr("jax.local_devices", lambda: local)
  with pytest.raises(UserError, match=message):
    devices.prepare(128, count)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "data features"])
def test_the_flag_reaches_the_devices(command, monkeypatch):
  def prepare(batch_size=0, count=0):
    raise UserError(f"asked for {count}")

  monkeypatch.setattr(devices, "prepare", prepare)
  words = {"train": ["quickstart"], "evaluate": ["run"], "predict": ["run", "x.png"], "data features": ["run", "out"]}
  with pytest.raises(UserError, match="asked for 2"):
    run_command(command, *words[command], devices=2)


@pytest.mark.parametrize(
  "chosen", [{"JAX_NUM_CPU_DEVICES": "1"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}]
)
def test_a_number_of_devices_that_is_chosen_stays(chosen, monkeypatch, tmp_path):
  said = {}
  for name, value in {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path), **chosen}.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(devices, "keep_memory", lambda: None)
  monkeypatch.setattr("jax.config.update", said.__setitem__)
  devices.prepare(64)
  assert not said
