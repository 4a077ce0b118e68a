"""Flags with which XLA compiles fastest on CPUs, whatever its programs are then worth: tests mostly compile."""

from importlib.metadata import version

FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
  FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]  # a third less
FAST = " ".join(FLAGS)
