r"""Training of the grid of configs/coarse_labels_cifar100.py; prints its table, draws Figure 8 of Guo et al. (2018).

  python -m benchmarks.coarse_labels_table --features runs/superclass-features --seeds 3 --picture figure8.png
  python -m benchmarks.coarse_labels_table --words cpu --pairs f20c50 --workdir runs/coarse_labels-cpu

The first command trains on features that `hierjax data features` wrote, the second end to end for one pair. The seed
determines the initial weights, both parts of the images, and the validation images. The run on S_fine alone is trained
once for all |S_coarse|, and predicts the labels of the largest. The command may be stopped and started again: it skips
finished runs and continues a stopped one. `--print-only` trains nothing.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from configs import coarse_labels_cifar100
from hierjax.data.sources.features import FEATURES
from hierjax.evaluation.pseudo_labels import write_pseudo_labels
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder, write_whole
from hierjax.runs.run import Run
from hierjax.training.loop import run as loop

PAIRS, ARMS, HEADS, *_ = (tuple(kind) for kind in coarse_labels_cifar100.KINDS)
TITLES = {"fine": "S_fine", "pseudo": "S_fine + S_coarse-", "truth": "S_fine + S_coarse+", "direct": "direct"}
COLOURS = {"fine": "#666666", "pseudo": "#0a58ca", "truth": "#158a3a", "direct": "#d0202e"}


class Cell(NamedTuple):
  """One run: a head, a pair |S_fine|, |S_coarse| in percent, an arm and a seed."""

  head: str
  pair: str
  arm: str
  seed: int

  @property
  def percents(self) -> tuple[int, int]:
    """Returns |S_fine| and |S_coarse|."""
    fine, coarse = self.pair[1:].split("c")
    return int(fine), int(coarse)

  def folder(self, workdir: Path) -> RunFolder:
    """Returns its run folder; S_fine alone has one for all |S_coarse|."""
    parts = f"f{self.percents[0]}" if self.arm == "fine" else self.pair
    return RunFolder(workdir / f"{self.head}-{parts}-{self.arm}-seed{self.seed}")

  def config(self, features: Path | None, workdir: Path, words: Sequence[str]) -> dict:
    """Returns its config; `words` are further variants."""
    pair = f"f{self.percents[0]}c{max(coarse_labels_cifar100.PARTS)}" if self.arm == "fine" else self.pair
    config = coarse_labels_cifar100.get_config(",".join([pair, self.arm, self.head, *words])).to_dict()
    config["seed"] = config["data"]["split_seed"] = self.seed
    if self.arm == "pseudo":
      config["data"]["pseudo_labels"] = str(self._replace(arm="fine").folder(workdir).path / "pseudo_labels.npz")
    if features:
      config["data"]["root"] = str(features)
      config["backbone"]["width"] = np.load(features / "train" / FEATURES, mmap_mode="r").shape[1]
    return config


def train(cell: Cell, features: Path | None, workdir: Path, words: Sequence[str] = ()) -> None:
  """Trains and evaluates a run, after the run that predicts its pseudo-labels; skips finished ones."""
  if cell.arm == "pseudo":
    teacher = cell._replace(arm="fine")
    train(teacher, features, workdir, words)
    if not (teacher.folder(workdir).path / "pseudo_labels.npz").exists():
      write_pseudo_labels(LoadedRun.open(teacher.folder(workdir), devices.data_mesh()))
  folder = cell.folder(workdir)
  if folder.evaluation("test") is not None:
    return
  config, start = cell.config(features, workdir, words), time.perf_counter()
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
    found = loop.train_and_evaluate(config, str(folder.path))
  if cell.arm == "pseudo":
    write_whole(folder.path / "right.txt", f"{share_right(config)}\n")
  accuracy, seconds = 100 * found["path_accuracy"], time.perf_counter() - start
  print(f"{folder.path.name}: {accuracy:.2f}% in {seconds:.0f} s", flush=True)


def share_right(config: dict) -> float:
  """Returns the share of the pseudo-labels of a config that are right, 0 to 1."""
  data = {arm: dict(config["data"], partial_labels=arm) for arm in ("pseudo", "truth", "direct")}
  nodes = {arm: Run.from_config(config | {"data": data[arm]}).source("train").nodes for arm in data}
  coarse = nodes["direct"] != nodes["truth"]
  return float((nodes["pseudo"] == nodes["truth"])[coarse].mean())


def accuracies(head: str, pair: str, arm: str, seeds: int, workdir: Path) -> list[float]:
  """Returns the fine accuracy on the test images, 0 to 1, of the runs that are finished."""
  found = [Cell(head, pair, arm, seed).folder(workdir).evaluation("test") for seed in range(seeds)]
  return [metrics["path_accuracy"] for metrics in found if metrics]


def rights(head: str, pair: str, seeds: int, workdir: Path) -> list[float]:
  files = [Cell(head, pair, "pseudo", seed).folder(workdir).path / "right.txt" for seed in range(seeds)]
  return [float(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def percent(values: list[float]) -> str:
  if not values:
    return "-"
  mean = f"{100 * statistics.mean(values):.2f}"
  return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def table(heads: Sequence[str], pairs: Sequence[str], arms: Sequence[str], seeds: int, workdir: Path) -> str:
  """Returns the table in Markdown: mean and standard deviation over the seeds that are finished, in percent."""
  header = ["head", "fine", "coarse", "seeds", *(TITLES[arm] for arm in arms), "right pseudo-labels"]
  lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
  for head in heads:
    for pair in pairs:
      found = [accuracies(head, pair, arm, seeds, workdir) for arm in arms]
      parts = [f"{part}%" for part in Cell(head, pair, "fine", 0).percents]
      cells = [percent(values) for values in (*found, rights(head, pair, seeds, workdir))]
      lines.append("| " + " | ".join([head, *parts, str(min(map(len, found))), *cells]) + " |")
  return "\n".join(lines)


def draw(file: Path, heads: Sequence[str], arms: Sequence[str], seeds: int, workdir: Path) -> None:
  """Draws Figure 8: a row a head, a panel for each |S_fine|; whiskers are a standard deviation over the seeds."""
  parts = coarse_labels_cifar100.PARTS
  figure = Figure(figsize=(3.6 * len(parts), 0.5 + 2.8 * len(heads)), dpi=150, layout="constrained")
  panels = figure.subplots(len(heads), len(parts), squeeze=False, sharey="row")
  for head, row in zip(heads, panels, strict=True):
    for fine, panel in zip(parts, row, strict=True):
      for arm in arms:
        found = [accuracies(head, f"f{fine}c{coarse}", arm, seeds, workdir) for coarse in parts]
        points = [(i, 100 * np.mean(v), 100 * np.std(v, ddof=len(v) > 1)) for i, v in enumerate(found) if v]
        if points:
          places, means, spread = zip(*points, strict=True)
          panel.errorbar(places, means, spread, color=COLOURS[arm], marker="o", ms=4, capsize=3)
      panel.set(title=f"{head}, |S_fine| = {fine}%", xlabel="|S_coarse|", xlim=(-0.3, len(parts) - 0.7))
      panel.set_xticks(range(len(parts)), [f"{part}%" for part in parts])
    row[0].set_ylabel("fine accuracy, %")
  lines = [Line2D([], [], color=COLOURS[arm], marker="o", markersize=4, label=TITLES[arm]) for arm in arms]
  panels[0, 0].legend(handles=lines, fontsize=7)
  figure.savefig(file)


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--features", type=Path, help="a folder with features.npy and nodes.npy of train and test")
  parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=PAIRS, metavar="PAIR")
  parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS, metavar="HEAD")
  parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, metavar="ARM")
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--workdir", type=Path, default=Path("runs/coarse_labels"))
  parser.add_argument("--picture", type=Path, help="a PNG file")
  parser.add_argument("--words", nargs="*", default=(), help="further words of the config, `cpu` say")
  parser.add_argument("--print-only", action="store_true")
  args = parser.parse_args(argv)
  if not args.print_only:
    devices.prepare()
    for seed in range(args.seeds):
      for head in args.heads:
        for pair in args.pairs:
          for arm in args.arms:
            train(Cell(head, pair, arm, seed), args.features, args.workdir, args.words)
  if args.picture:
    draw(args.picture, args.heads, args.arms, args.seeds, args.workdir)
  print(table(args.heads, args.pairs, args.arms, args.seeds, args.workdir))


if __name__ == "__main__":
  main()
