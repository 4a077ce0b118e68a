"""A run on 256 chips, planned on paper: bytes a step of input, all-reduce and all-gather, host, memory, goodput.

  python -m benchmarks.plan
  python -m benchmarks.plan --chips 64 --images-a-chip 64

It prints the tables of docs/how_to/planning.md, and computes nothing but arithmetic: what a chip and a host can do are
the numbers of `Chip` and `Host`, the first of vendors, the second measured here. Weights are float32; GB are 10^9.

With N chips, G bytes of gradients and the grid N = D x M of `config.sharding`, a chip sends and receives in a step

    whole weights       2 (N-1)/N G                        all-reduce of the gradients (ring)
    fsdp, over data     (D-1)/D (W + G)                    all-gather of the weights W, reduce-scatter of the gradients
    nodes, over model   2 (M-1)/M F + 2 (D-1)/D G/M        the features F of a row's images, and back their gradients;
                                                           all-reduce of the part of the output layer

A run that saves every T, which takes s, and loses on average T/2 + r at each of f failures an hour, has the goodput

    1 / ((1 + s/T) (1 + f (T/2 + r))),     best at T = sqrt(2 s / f)     (Young 1974)
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a chip can do, by its vendor, and how much of it a convolutional network reaches.

  Attributes:
    tflops: bfloat16 operations a second, in 10^12.
    reached: the part of them that a step reaches, 0 to 1: an assumption.
    memory_gb: of a chip.
    link_gbs: GB a second that a chip sends to its neighbours, all links together.
    on_host: chips of a host.
  """

  tflops: float
  reached: float
  memory_gb: float
  link_gbs: float
  on_host: int

  def seconds(self, flop: float) -> float:
    """Returns the seconds of so many operations."""
    return flop / (self.tflops * 1e12 * self.reached)


CHIPS = {
  "TPU v5e": Chip(tflops=197, reached=0.3, memory_gb=16, link_gbs=200, on_host=4),
  "H100": Chip(tflops=989, reached=0.2, memory_gb=80, link_gbs=50, on_host=8),  # between hosts; 450 within one
}


IMAGE_BYTES = 256 * 256 * 3  # as a chip gets it


@dataclasses.dataclass(frozen=True)
class Host:
  """What a host can do.

  Attributes:
    cores: that decode.
    decoded: images a second that a core decodes, by how they are stored.
    kilobytes: of such an image.
    opened_us: microseconds that opening a set takes for each image: names, labels, checks.
    kept_bytes: bytes of memory for each image of a set, by its name and label.
  """

  cores: int = 96
  decoded: dict[str, int] = dataclasses.field(
    default_factory=lambda: {"JPEG of 500 x 375": 330, "JPEG of 256 x 256": 2070}
  )
  kilobytes: dict[str, int] = dataclasses.field(
    default_factory=lambda: {"JPEG of 500 x 375": 110, "JPEG of 256 x 256": 24}
  )
  opened_us: float = 50
  kept_bytes: int = 820


@dataclasses.dataclass(frozen=True)
class Job:
  """A training of ResNet-50 with an output a node.

  Attributes:
    chips: N.
    images: of a step, a chip.
    gflop: of an image forwards and backwards.
    backbone: its weights.
    width: of the pooled features.
    states: arrays as large as the weights that the optimiser keeps: 1 of sgd, 2 of adamw.
    model: M.
  """

  chips: int = 256
  images: int = 128
  gflop: float = 24.5
  backbone: int = 23_508_032
  width: int = 2048
  states: int = 1
  model: int = 8

  @property
  def batch(self) -> int:
    """Images of a step."""
    return self.chips * self.images

  @property
  def data(self) -> int:
    """D."""
    return self.chips // self.model

  def output_bytes(self, nodes: int) -> int:
    """Returns the bytes of the output layer, bias included."""
    return 4 * (self.width + 1) * nodes

  def weight_bytes(self, nodes: int) -> int:
    """Returns the bytes of all weights."""
    return 4 * self.backbone + self.output_bytes(nodes)


def all_reduced(count: int, parts: int) -> float:
  """Returns the bytes that a chip sends in a ring all-reduce of `count` bytes over so many chips."""
  return 2 * (parts - 1) / parts * count


def moved(job: Job, nodes: int) -> dict[str, float]:
  """Returns the bytes that a chip sends in a step, by layout."""
  backbone, output, d = 4 * job.backbone, job.output_bytes(nodes), job.data
  features = 4 * job.width * job.batch / d  # of the images of a row of the grid
  whole = all_reduced(backbone + output, job.chips)
  exchanged = 2 * (job.model - 1) / job.model * features
  return {
    "whole": whole,
    "fsdp": whole,  # the all-gather and the reduce-scatter are the two halves of an all-reduce
    "nodes": all_reduced(backbone, job.chips) + exchanged + all_reduced(output // job.model, d),
  }


def kept(job: Job, nodes: int) -> dict[str, float]:
  """Returns the bytes of weights, gradients, optimiser and logits of a chip, by layout."""
  arrays = 2 + job.states
  backbone, output = 4 * job.backbone, job.output_bytes(nodes)
  logits = 4 * job.images * nodes
  gathered = backbone + output  # of one step: the weights, and the gradients before they are divided
  return {
    "whole": arrays * (backbone + output) + 2 * logits,
    "fsdp": arrays * (backbone + output) / job.chips + 2 * gathered + 2 * logits,
    "nodes": arrays * (backbone + output / job.model) + 2 * logits,  # a row's images, of 1/M of the nodes
  }


def compute_seconds(job: Job, nodes: int, chip: Chip) -> float:
  """Returns the seconds of a step's products: those of the backbone, and 6 a weight and image of the output layer."""
  return chip.seconds(job.images * (job.gflop * 1e9 + 6 * job.width * nodes))


def goodput(save_minutes: float, every_minutes: float, lost_a_day: float, restart_minutes: float) -> float:
  """Returns the share of the time that ends up in the weights; see the top of the file."""
  failures = lost_a_day / (24 * 60)
  return 1 / ((1 + save_minutes / every_minutes) * (1 + failures * (every_minutes / 2 + restart_minutes)))


def best_interval(save_minutes: float, lost_a_day: float) -> float:
  """Returns the minutes between two saves that lose least."""
  return math.sqrt(2 * save_minutes * 24 * 60 / lost_a_day)


# Tables.


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  """Returns the lines of a Markdown table, numbers to the right."""
  return [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|", *(f"| {' | '.join(r)} |" for r in rows)]


def output_layers(job: Job) -> list[str]:
  """Returns the table of bytes and memory by output layer and layout."""
  rows = []
  for nodes in (1_000, 20_000, 1_000_000):
    sent, memory = moved(job, nodes), kept(job, nodes)
    for layout in sent:
      times = [f"{1e3 * sent[layout] / (chip.link_gbs * 1e9):,.0f}" for chip in CHIPS.values()]
      rows.append([f"{nodes:,}", layout, _gb(job.output_bytes(nodes)), _gb(sent[layout]), *times, _gb(memory[layout])])
  links = [f"ms, {name}" for name in CHIPS]
  return table(["nodes", "layout", "output layer, GB", "sent a step, GB", *links, "without activations, GB"], rows)


def chips(job: Job) -> list[str]:
  """Returns the table of the time of a step's products, and the input that it wants."""
  rows = []
  for name, chip in CHIPS.items():
    for nodes in (1_000, 20_000, 1_000_000):
      seconds = compute_seconds(job, nodes, chip)
      rate = job.images / seconds
      rows.append([name, f"{nodes:,}", f"{1e3 * seconds:,.0f}", f"{rate:,.0f}", f"{job.chips * rate:,.0f}"])
  return table(["chip", "nodes", "ms a step", "images/s a chip", "images/s in all"], rows)


def hosts(job: Job, host: Host) -> list[str]:
  """Returns the table of what a host must read, decode and pass on, and can."""
  rows = []
  for name, chip in CHIPS.items():
    rate = chip.on_host * job.images / compute_seconds(job, 20_000, chip)
    for stored, decoded in host.decoded.items():
      able = host.cores * decoded
      network, bus = rate * host.kilobytes[stored] / 1e6, rate * IMAGE_BYTES / 1e9
      part, step = min(1.0, able / rate), job.images * IMAGE_BYTES / 1e6
      rates = [f"{rate:,.0f}", f"{able:,}", f"{network:.2f}", f"{bus:.2f}"]
      rows.append([name, stored, f"{step:.1f}", *rates, f"{100 * part:.0f}%"])
  wanted = ["wanted, images/s", "decoded, images/s", "read, GB/s", "to the chips, GB/s"]
  return table(["chip", "stored as", "MB a step, a chip", *wanted, "fed"], rows)


def sets(job: Job, host: Host) -> list[str]:
  """Returns the table of what sets of many images ask of each host."""
  rows = []
  for name, images in (("ImageNet-1k", 1_281_167), ("ImageNet-21k", 14_197_122), ("100 million", 100_000_000)):
    small, large = (images * host.kilobytes[k] / 1e6 for k in ("JPEG of 256 x 256", "JPEG of 500 x 375"))
    opened, memory = images * host.opened_us / 60e6, images * host.kept_bytes / 1e9
    epoch = images / (job.chips * job.images / compute_seconds(job, 20_000, CHIPS["TPU v5e"])) / 60
    rows.append(
      [name, f"{small / 1e3:,.2f}", f"{large / 1e3:,.2f}", f"{opened:,.1f}", f"{memory:,.1f}", f"{epoch:,.1f}"]
    )
  head = [
    "images",
    "of 256 pixels, TB",
    "of 500 x 375, TB",
    "opened in, minutes",
    "names, GB a process",
    "epoch, minutes",
  ]
  return table(head, rows)


def goodputs() -> list[str]:
  """Returns the table of goodput by minutes between saves and failures a day."""
  every = (5, 15, 60, 240)
  rows = []
  for lost in (0.25, 1, 4, 24):
    shares = [f"{100 * goodput(0.25, minutes, lost, 5):.1f}%" for minutes in every]
    rows.append([f"{lost:g}", *shares, f"{best_interval(0.25, lost):.0f}"])
  return table(["failures a day", *(f"{minutes} minutes" for minutes in every), "best, minutes"], rows)


def _gb(count: float) -> str:
  return f"{count / 1e9:,.2f}"


def tables(job: Job = Job(), host: Host = Host()) -> dict[str, list[str]]:
  """Returns the tables by title."""
  return {
    "A step's products": chips(job),
    "Between the chips, and memory": output_layers(job),
    "A host": hosts(job, host),
    "Sets of images": sets(job, host),
    "Goodput": goodputs(),
  }


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--chips", type=int, default=Job.chips)
  parser.add_argument("--images-a-chip", type=int, default=Job.images)
  parser.add_argument("--model", type=int, default=Job.model, help="chips along `model`")
  parser.add_argument("--cores", type=int, default=Host.cores, help="of a host, that decode")
  args = parser.parse_args()
  if args.chips % args.model:
    parser.error(f"--chips {args.chips} must be a multiple of --model {args.model}")
  job = Job(chips=args.chips, images=args.images_a_chip, model=args.model)
  for title, lines in tables(job, Host(cores=args.cores)).items():
    print(f"{title}\n", *lines, "", sep="\n")


if __name__ == "__main__":
  main()
