r"""Times of spatial recurrences, forward and gradient, against baselines in JAX and PyTorch; prints Markdown.

  python -m benchmarks.spatial
  python -m benchmarks.spatial --cases lstm:6x6:32 srn:6x6:32 --rounds 5 --sides plain_scan torch_plain

A case is CELL:HEIGHTxWIDTH:BATCH. The sides of a case are checked for agreement, and then run alternately, one round
after another. PyTorch's columns appear where it is installed, on a GPU where it finds one. The process has the settings
of `train.py`, for all sides. All cases on two cores take about 20 minutes.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # otherwise PyTorch finds no free memory on a GPU

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import spatial_torch
from benchmarks.spatial_baselines import Products, nested_scan, with_gradient
from hierjax.nn.layers.recurrence.cells import GATES
from hierjax.nn.layers.recurrence.spatial import DIRECTIONS, spatial_recurrence
from hierjax.runs.devices import keep_memory

SCANS: Mapping[str, Products] = {"plain_scan": "plain", "scan_by_cell": "by_cell", "scan_by_row": "by_row"}
SIDES = (*SCANS, "torch_plain", "torch_loop", "torch_diagonals", "torch_compiled")
# Relative to the norm. States near 0 may lie on either side of ReLU's kink, which changes more than rounding does.
AGREEMENT = {"float32": 1e-3, "tensorfloat32": 2e-2, "bfloat16": 5e-2}
PARTS = ("y", "dx", "d input_kernel", "d row_kernel", "d column_kernel", "d bias")

Side = Callable[[], Any]  # it returns when the computation has ended


class Case(NamedTuple):
  """One row of the table."""

  cell: str
  rows: int
  columns: int
  batch: int

  @classmethod
  def parse(cls, text: str) -> Case:
    """Reads `lstm:6x6:32`, as `str` writes it."""
    try:
      cell, grid, batch = text.split(":")
      rows, columns = grid.split("x")
      case = cls(cell, int(rows), int(columns), int(batch))
    except ValueError:
      case = cls("", 0, 0, 0)
    if case.cell not in GATES or min(case[1:]) < 1:
      raise argparse.ArgumentTypeError(f"{text}: give CELL:HEIGHTxWIDTH:BATCH, with CELL one of {', '.join(GATES)}")
    return case

  def __str__(self) -> str:
    return f"{self.cell}:{self.rows}x{self.columns}:{self.batch}"

  def arrays(self, width: int) -> list[np.ndarray]:
    """Returns the cotangent, x, the three kernels and the bias."""
    rng = np.random.default_rng(0)
    gates = width * GATES[self.cell]
    maps = rng.standard_normal((2, self.batch, self.rows, self.columns, width))
    kernels = rng.standard_normal((3, 4, width, gates)) * 0.5 / np.sqrt(width)
    return [a.astype(np.float32) for a in (*maps, *kernels, rng.standard_normal((4, gates)) * 0.1)]

  def flops(self, width: int) -> float:
    """Returns the operations of the products, neighbours outside the grid not counted; a gradient is two products."""
    gates = width * GATES[self.cell]
    cells = self.rows * self.columns
    products = 3 * cells - self.rows - self.columns  # of the inputs, and of the neighbours above and to the left
    return 3 * 2.0 * 4 * self.batch * width * gates * products


CASES = (
  *(Case("lstm", 6, 6, batch) for batch in (1, 8, 32, 256)),
  *(Case("lstm", side, side, 32) for side in (13, 28)),
  *(Case("srn", 6, 6, batch) for batch in (32, 256)),
)
DIAGONAL_CASES = (Case("lstm", 6, 6, 32),)  # for PyTorch's diagonals, which compile for a minute


class Program(NamedTuple):
  """A compiled side in JAX, with its compilation time and the size of its buffers."""

  call: Side
  compile_seconds: float
  temp_bytes: int
  note: str = ""


def compiled(function: Callable[..., Any], arguments: Sequence[jax.Array], note: str = "") -> Program:
  jax.clear_caches()  # the time includes tracing, and the sides share traces
  start = time.perf_counter()
  program = jax.jit(with_gradient(function)).lower(*arguments).compile()
  seconds = time.perf_counter() - start
  call = lambda: jax.block_until_ready(program(*arguments))  # noqa: E731
  memory: Any = program.memory_analysis()
  return Program(call, seconds, memory.temp_size_in_bytes, note)


def nested(case: Case, arguments: Sequence[jax.Array], products: Products) -> Program:
  """Returns the faster of: the directions in one batched step, one direction after the other."""
  programs = {}
  scan = functools.partial(nested_scan, cell=case.cell, directions=DIRECTIONS, products=products)
  for batched, note in ((True, "batched"), (False, "in turn")):
    programs[note] = compiled(functools.partial(scan, batched=batched), arguments, note)
  times = interleaved({note: program.call for note, program in programs.items()}, rounds=3)
  return programs[min(times, key=lambda note: statistics.median(times[note]))]


def interleaved(sides: Mapping[str, Side], rounds: int, least: float = 0.05) -> dict[str, list[float]]:
  """Returns the seconds of each side in each round; a side that takes less than `least` runs several times in each."""
  repeats = {}
  for name, side in sides.items():
    side()
    repeats[name] = max(1, int(least / seconds_of(side, 1)))
  found: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, side in sides.items():
      time.sleep(0.01)  # until the threads of the side before are idle
      if repeats[name] > 1:
        side()  # fills the caches for the timed calls
      found[name].append(seconds_of(side, repeats[name]))
  return found


def seconds_of(side: Side, repeats: int) -> float:
  start = time.perf_counter()
  for _ in range(repeats):
    side()
  return (time.perf_counter() - start) / repeats


def check_agreement(sides: Mapping[str, Side], tolerance: float, parts: Sequence[str] = PARTS) -> None:
  """Raises SystemExit where a side's output or a gradient differs from the first side's by more than that.

  As norms: where rounding moves a ReLU's input across 0, single numbers of a gradient are rightly far apart.
  """
  expected: list[np.ndarray] = []
  for name, side in sides.items():
    y, gradients = side()
    # PyTorch cannot convert bfloat16 to NumPy.
    values = [np.asarray(v.float().cpu() if hasattr(v, "cpu") else v, np.float64) for v in (y, *gradients)]
    expected = expected or values
    for part, value, wanted in zip(parts, values, expected, strict=True):
      difference = np.linalg.norm(value - wanted) / np.linalg.norm(wanted)
      if not difference <= tolerance:
        raise SystemExit(f"{name}: {part} differs from {next(iter(sides))}'s by {difference:.1e} of its norm")


def square_matmul(size: int, dtype: str) -> Side:
  a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
  multiply = jax.jit(lambda a: a @ a)
  return lambda: multiply(a).block_until_ready()


def torch_device() -> str | None:
  """Returns the device for PyTorch beside JAX; prints the reason where there is none."""
  if spatial_torch.torch is None:
    print("PyTorch is not installed: its columns are left out.\n")
  elif jax.default_backend() == "cpu":
    return "cpu"
  elif jax.default_backend() == "gpu" and spatial_torch.torch.cuda.is_available():
    return "cuda"
  else:
    print(f"PyTorch finds no {jax.default_backend()}: its columns are left out.\n")
  return None


def cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
  """Returns date, machine and versions in one line."""
  cpuinfo = Path("/proc/cpuinfo")
  lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
  cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
  device = "" if jax.default_backend() == "cpu" else f"{jax.devices()[0].device_kind}; "
  versions = f"Python {platform.python_version()}, jax {jax.__version__}"
  return f"{datetime.date.today()}; {device}{cpu}, {cores()} cores; {versions}"


def load_average() -> str:
  return "load average " + " ".join(f"{load:.2f}" for load in os.getloadavg())


def table_row(cells: Sequence[str]) -> str:
  return "| " + " | ".join(cells) + " |"


def table_head(names: Sequence[str]) -> str:
  return f"{table_row(names)}\n|---|{'--:|' * (len(names) - 1)}"


def jax_programs(case: Case, args: argparse.Namespace) -> dict[str, Program]:
  arguments = [jnp.asarray(a).astype(args.dtype) for a in case.arrays(args.width)]

  def ours(x: Any, *weights: Any) -> Any:
    return spatial_recurrence(x, None, *weights, cell=case.cell, directions=DIRECTIONS)

  programs = {"hierjax": compiled(ours, arguments)}
  for name, products in SCANS.items():
    if name in args.sides:
      programs[name] = nested(case, arguments, products)
  return programs


def torch_sides(case: Case, device: str | None, args: argparse.Namespace) -> dict[str, Side]:
  names = [name for name in args.sides if name.startswith("torch")]
  if not args.diagonals_everywhere and case not in DIAGONAL_CASES:
    names = [name for name in names if name in ("torch_plain", "torch_loop")]
  return spatial_torch.sides(names, case.arrays(args.width), case.cell, args.dtype, device) if device and names else {}


def measure(case: Case, device: str | None, matmul: Side, args: argparse.Namespace) -> tuple[list[str], list[str]]:
  """Returns a case's rows of the two tables."""
  programs = jax_programs(case, args)
  sides = {name: program.call for name, program in programs.items()} | torch_sides(case, device, args)
  check_agreement(sides, AGREEMENT[args.dtype if args.dtype == "bfloat16" else args.precision])
  times = interleaved(sides | {"matmul": matmul}, args.rounds)

  def cell_of(name: str) -> str:
    ratio = statistics.median(theirs / ours for theirs, ours in zip(times[name], times["hierjax"], strict=True))
    note = f", {programs[name].note}" if name in programs else ""
    return f"{1e3 * statistics.median(times[name]):.1f} ({ratio:.2f}{note})"

  ours, rate = statistics.median(times["hierjax"]), 2 * args.matmul**3 / statistics.median(times["matmul"])
  achieved = case.flops(args.width) / ours
  speed = [f"{1e3 * ours:.1f}", *(cell_of(name) if name in times else "" for name in args.sides)]
  speed += [f"{1e-9 * achieved:.0f} of {1e-9 * rate:.0f} ({achieved / rate:.2f})"]
  costs = [program.temp_bytes / 2**20 for program in programs.values()]
  seconds = [program.compile_seconds for program in programs.values()]
  return [str(case), *speed], [str(case), *(f"{v:.1f}" for v in (*costs, *seconds))]


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--cases", nargs="+", type=Case.parse, default=CASES, metavar="CELL:HEIGHTxWIDTH:BATCH")
  parser.add_argument("--sides", nargs="*", default=SIDES, choices=SIDES, help="what hierjax is compared with")
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--width", type=int, default=256, help="channels in and out")
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument(
    "--precision", default="float32", choices=("float32", "tensorfloat32"), help="of float32 products"
  )
  parser.add_argument("--diagonals-everywhere", action="store_true", help="PyTorch's diagonals in every case")
  parser.add_argument("--matmul", type=int, default=0, help="size of the square product whose rate is the measure")
  args = parser.parse_args()
  args.matmul = args.matmul or (2048 if jax.default_backend() == "cpu" else 8192)
  return args


def main() -> None:
  keep_memory()  # before `arguments` starts the backend and its threads
  args = arguments()
  jax.config.update("jax_default_matmul_precision", args.precision)
  jax.config.update("jax_enable_compilation_cache", False)
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"{args.dtype}, {args.width} channels, products of float32 in {args.precision}, {args.rounds} rounds\n")
  device = torch_device()
  if device:
    print(spatial_torch.use_threads(cores(), args.precision) + "\n")
  print(
    "Milliseconds of output and all gradients: the median, and in brackets how many times hierjax's in that round.\n"
  )
  rate = f"GFLOP/s of the {args.matmul}² product's"
  print(table_head(["case", "hierjax", *args.sides, rate]), flush=True)
  matmul, costs = square_matmul(args.matmul, args.dtype), []
  compiled(jnp.sin, [jnp.zeros(()), jnp.zeros(())])  # the first compilation of a process loads the compiler
  for case in args.cases:
    speed, cost = measure(case, device, matmul, args)
    print(table_row(speed), flush=True)
    costs.append(cost)
  names = ["hierjax", *(name for name in args.sides if name in SCANS)]
  print(
    "\nXLA's temporary buffers, which hold all that is neither argument nor result, and cold trace and compilation:\n"
  )
  print(table_head(["case", *(f"{name}, MiB" for name in names), *(f"{name}, s" for name in names)]))
  print("\n".join(map(table_row, costs)))
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
