"""How the tests compile on CPUs: with the flags that compile fastest, into a folder that is kept between runs."""

import shutil
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1] / ".cache" / "xla"
MOST_BYTES = 4 * 2**30


def fastest_flags() -> str:
  """Returns XLA's flags with which compiling is fastest, whatever the speed of the programs: tests mostly compile."""
  flags = ["--xla_backend_optimization_level=0"]
  if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]  # a third less
  return " ".join(flags)


FLAGS = fastest_flags()


def flags_beside(given: str, devices: int) -> str:
  """Returns the flags of tests on so many devices and those that are given, each once.

  They are a part of the key of a compiled program, and the workers of pytest are given those of pytest itself.
  """
  own = [*FLAGS.split(), f"--xla_force_host_platform_device_count={devices}"]
  return " ".join([flag for flag in own if flag not in given.split()] + given.split())


def folder_of_programs(root: Path = ROOT, most_bytes: int = MOST_BYTES) -> Path:
  """Returns where JAX keeps what it compiles; removes the folders of other versions, and one beyond `most_bytes`.

  JAX's own key has the program, the flags and the processor, so that programs of other sources stay unused.
  """
  folder = root / f"jax-{version('jax')}-{version('jaxlib')}"
  for other in root.iterdir() if root.is_dir() else ():
    if other != folder or sum(file.stat().st_size for file in other.iterdir()) > most_bytes:
      shutil.rmtree(other, ignore_errors=True)
  folder.mkdir(parents=True, exist_ok=True)
  return folder
