"""Minutes that the studies with the papers' schedules would take on one H100, predicted on paper; prints Markdown.

  python -m benchmarks.study_minutes
  python -m benchmarks.study_minutes guo_wrn dutt_resnet164 --reached 0.3

No GPU is used. The train step of each row is traced with its whole batch (`benchmarks.lowering`), and

    minutes of a run = steps x FLOP of a step / (peak x reached) / 60.

FLOP are twice the multiplications of convolutions and matrix products, forwards and backwards. These are assumed:

- peak: the vendor's dense 495 TFLOP/s of TF32 for configs with `dtype = float32`, 989 for `bfloat16`. hierjax does not
  set `jax_default_matmul_precision`, and JAX's own default takes TF32 for float32 on an H100; with
  JAX_DEFAULT_MATMUL_PRECISION=highest the minutes do not hold.
- reached: the part of the peak that a convolutional network reaches, 0.2, as in `benchmarks.plan`. Nobody measured it.

At that share the number is a lower bound. It leaves out: reading and writing maps in the GPU's memory; the launches of
kernels, of which a network on images of 32 x 32 has many small ones; decoding; and validation, evaluation, checkpoints,
and the start and the compilation of each piece. A piece is a call of `hierjax study NAME --minutes 9`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence

from benchmarks.lowering import flop_of_step
from benchmarks.plan import CHIPS, Chip, table
from hierjax.config_files import load_config
from hierjax.errors import UserError
from hierjax.runs.run import Run
from hierjax.study.plan import Row, Study, load_study
from hierjax.training.schedule import RunLength

PAPERS = ("guo_coarse", "guo_cnn7", "guo_wrn", "guo_wider", "dutt_resnet164", "zuo_imagenet")
IMAGES = {"cifar100": 50_000, "imagenet2012": 1_281_167}  # of the training split, before some are kept for validation
PEAKS = {"float32": 495.0, "bfloat16": CHIPS["H100"].tflops}  # dense TFLOP/s by `config.dtype`; float32 as TF32
HEAD = ("study, row", "runs", "steps", "images", "GFLOP a step", "PFLOP", "images/s", "minutes", "pieces")


@dataclasses.dataclass(frozen=True)
class Assumed:
  """What is assumed of the GPU and of how it is lent.

  Attributes:
    reached: the part of the peak that a step reaches, 0 to 1.
    piece: minutes of a piece.
  """

  reached: float = CHIPS["H100"].reached
  piece: float = 9.0

  def chip(self, dtype: str) -> Chip:
    """Returns the chip for a `config.dtype`."""
    return dataclasses.replace(CHIPS["H100"], tflops=PEAKS[dtype], reached=self.reached)

  def pieces(self, minutes: float) -> int:
    """Returns in how many pieces so many minutes are done."""
    return math.ceil(minutes / self.piece)


@dataclasses.dataclass(frozen=True)
class Predicted:
  """A row of a study, predicted.

  Attributes:
    name: of the row.
    runs: its number of runs: one a seed, and one more for each further combination of tuned values.
    steps: of a run.
    batch: images of a step.
    flop: of a step.
    seconds: of a step.
  """

  name: str
  runs: int
  steps: int
  batch: int
  flop: float
  seconds: float

  @property
  def minutes(self) -> float:
    """Of a run."""
    return self.steps * self.seconds / 60

  def cells(self, assumed: Assumed) -> list[str]:
    """Returns the numbers of the table's line; all but `runs` are of one run."""
    amounts = f"{self.steps:,}", f"{self.steps * self.batch:,}", f"{self.flop / 1e9:,.1f}"
    total, rate = self.steps * self.flop / 1e15, self.batch / self.seconds
    times = f"{total:,.1f}", f"{rate:,.0f}", f"{self.minutes:,.1f}", f"{assumed.pieces(self.minutes):,}"
    return [f"{self.runs}", *amounts, *times]


def training_images(run: Run) -> int:
  """Returns how many images a run is trained on; raises UserError for a set whose size is not known here."""
  data = run.data
  if data.name in ("noise", "shapes"):  # they draw images of their own for validation
    return data.examples
  if data.name not in IMAGES:
    raise UserError(f"how many training images {data.name!r} has is not known: add it to IMAGES of study_minutes.py")
  return round(IMAGES[data.name] * (1 - data.validation))


def predicted(study: Study, row: Row, assumed: Assumed) -> Predicted:
  """Returns a row predicted, with the first of its tuned values; raises UserError as `training_images` does."""
  first, *others = row.candidates()
  settings = (*study.settings, *row.settings, *first)
  run = Run.from_config(load_config(row.config, [f"--config.{one}" for one in settings]))
  config = run.config
  bounds = config.least_steps, config.most_steps
  length = RunLength.of(training_images(run) / config.batch_size, config.epochs, bounds)
  flop = flop_of_step(run, config.batch_size)
  seconds = assumed.chip(config.dtype).seconds(flop)
  return Predicted(row.name, len(study.seeds) + len(others), length.total_steps, config.batch_size, flop, seconds)


def lines(name: str, rows: Sequence[Predicted], assumed: Assumed) -> list[str]:
  """Returns a study's lines of the table; the last one has the sums over all runs, and the pieces of the study."""
  runs, minutes = sum(row.runs for row in rows), sum(row.runs * row.minutes for row in rows)
  total = sum(row.runs * row.steps * row.flop for row in rows) / 1e15
  last = [f"{runs}", "", "", "", f"{total:,.1f}", "", f"{minutes:,.1f}", f"{assumed.pieces(minutes):,}"]
  cells = [[f"`{name}`, {row.name}", *row.cells(assumed)] for row in rows]
  return table(HEAD, [*cells, [f"`{name}`, all runs", *last]])[2:]


def heading(assumed: Assumed) -> str:
  """Returns the sentences above the tables: what is assumed."""
  share = f"{100 * assumed.reached:g}%"
  peak, other = PEAKS["float32"], PEAKS["bfloat16"]
  return (
    f"Predicted on paper, none has been run: one H100 at {share} of its peak, which is {peak:g} TFLOP/s for float32 "
    f"(as TF32) and {other:g} for bfloat16; {share} is an assumption. At that share the minutes are a lower bound: "
    "products alone, without memory, launches of kernels, decoding, validation, start and compilation. A piece has "
    f"{assumed.piece:g} minutes."
  )


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("studies", nargs="*", metavar="NAME", help=f"studies (default: {' '.join(PAPERS)})")
  parser.add_argument("--reached", type=float, default=Assumed.reached, help="part of the peak (default: %(default)s)")
  parser.add_argument("--piece", type=float, default=Assumed.piece, help="minutes of a piece (default: %(default)s)")
  args = parser.parse_args()
  if not 0 < args.reached <= 1 or args.piece <= 0:
    parser.error("--reached is above 0 and at most 1, and --piece above 0")
  assumed = Assumed(args.reached, args.piece)
  print(f"{heading(assumed)}\n", *table(HEAD, ()), sep="\n", flush=True)
  try:
    for name in args.studies or PAPERS:
      study = load_study(name)
      rows = [predicted(study, row, assumed) for row in study.rows]
      print(*lines(name, rows, assumed), sep="\n", flush=True)
  except UserError as error:
    parser.error(str(error))


if __name__ == "__main__":
  main()
