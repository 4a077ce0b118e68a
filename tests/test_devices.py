"""What the process is told before devices are asked for."""

import platform
import subprocess
import sys

import pytest

# Prints how many pages a thread other than the first one faults in for a buffer that it had and freed before.
FAULTS = """
import resource, sys, threading
from hierjax.devices import keep_freed_memory

def fault():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  b"1" * (64 << 20)
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
  found.extend(fault() for _ in range(3))

found = []
if sys.argv[1] == "keep":
  keep_freed_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(found[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_thread_finds_a_large_buffer_s_pages_again():
  def faults(word):
    return int(subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, check=True, text=True).stdout)

  if faults("default") < 1000:
    pytest.skip("pages are so large here that no more of them are faulted in without it")
  assert faults("keep") < 100
