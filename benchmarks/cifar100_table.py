r"""Training of the rows of a CIFAR-100 table; prints the table in Markdown.

  python benchmarks/cifar100_table.py flat_cifar100:cpu cnnrnn_cifar100:cpu --seeds 3 --workdir runs/cifar100

The command may be stopped and started again: it skips finished runs and continues a stopped one. `--print-only` trains
nothing. The columns `coarse` and `fine` are raw level accuracies, `path` is path accuracy.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"coarse": ("raw_level_accuracy", 0), "fine": ("raw_level_accuracy", 1), "path": ("path_accuracy", None)}


def workdir_of(row: str, seed: int, folder: Path) -> Path:
  return folder / f"{row.replace(':', '-').replace(',', '-')}-seed{seed}"


def metrics_of(workdir: Path) -> dict | None:
  path = workdir / "eval" / "test.json"
  return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def train(row: str, seed: int, workdir: Path) -> None:
  config, _, variant = row.partition(":")
  command = [
    sys.executable,
    "train.py",
    f"--config=configs/{config}.py:{variant}",
    f"--config.seed={seed}",
    f"--workdir={workdir}",
  ]
  print("$", *command[1:], flush=True)
  subprocess.run(command, cwd=ROOT, check=True)


def cell(values: list[float]) -> str:
  mean = f"{100 * statistics.mean(values):.2f}"
  return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def table(rows: list[str], seeds: int, folder: Path) -> str:
  """Returns the table in Markdown: mean and standard deviation over the seeds that are finished, in percent."""
  lines = ["| config | seeds | " + " | ".join(NEEDED) + " |", "|---|---|" + "---|" * len(NEEDED)]
  for row in rows:
    found = [m for seed in range(seeds) if (m := metrics_of(workdir_of(row, seed, folder)))]
    cells = []
    for name, index in NEEDED.values():
      values = [m[name] if index is None else m[name][index] for m in found if index is None or index < len(m[name])]
      cells.append(cell(values) if values else "-")
    lines.append(f"| {row} | {len(found)} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("rows", nargs="+", metavar="CONFIG:VARIANT")
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--workdir", type=Path, default=Path("runs/cifar100"))
  parser.add_argument("--print-only", action="store_true")
  args = parser.parse_args()
  for seed in range(args.seeds):
    for row in args.rows:
      workdir = workdir_of(row, seed, args.workdir)
      if not args.print_only:
        train(row, seed, workdir)  # a finished run only prints its table
  print(table(args.rows, args.seeds, args.workdir))


if __name__ == "__main__":
  main()
