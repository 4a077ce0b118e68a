"""What the process is told before devices are asked for."""

import platform
import subprocess
import sys

import pytest

# Prints how many pages most calls of a program fault in for buffers that earlier calls had and freed. Some of the first
# calls fault in both ways: a small allocation may lie where their buffer was, until the heap has room for both.
FAULTS = """
import resource, statistics, sys
import jax, jax.numpy as jnp
from hierjax.devices import prepare_cpu

if sys.argv[1] == "prepared":
  prepare_cpu()
program = jax.jit(lambda x: jnp.broadcast_to(x, (64, 1 << 18)) * 2)
x, faults = jnp.ones(1 << 18), []
for _ in range(50):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  jax.block_until_ready(program(x))
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median_low(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_program_finds_the_pages_of_its_large_buffers_again():
  def faults(word):
    return int(subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, check=True, text=True).stdout)

  if faults("default") < 1000:
    pytest.skip("pages are so large here that no more of them are faulted in without it")
  assert faults("prepared") < 100
