"""`hierjax weights wrap`: a pretrained classifier as a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierjax.cli.common import quoted
from hierjax.errors import UserError

HELP = "Make a run of a pretrained classifier whose classes are the leaves of a tree."
EXAMPLES = """
hierjax weights wrap lite0 --workdir=runs/imagenet
hierjax weights wrap resnet50.pth --backbone resnet50 --workdir=runs/imagenet
hierjax weights wrap plants.pth --backbone convnext_tiny --tree plants.csv --classes classes.txt --workdir=runs/plants
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  about = "lite0, lite1, lite2, hf:timm/NAME, or a file (.pth, .pt, .bin, .safetensors, .npz)"
  parser.add_argument("weights", metavar="WEIGHTS", help=about)
  parser.add_argument("--backbone", default="", metavar="NAME", help="the network of a file, which does not say it")
  parser.add_argument(
    "--tree", default="imagenet1k", metavar="TREE", help="a tree of the catalogue, or a file (default imagenet1k)"
  )
  parser.add_argument(
    "--classes", default="", metavar="FILE",
    help="names, ids or paths of the classes, one a line, in the order of the classifier (default: those of ImageNet)",
  )  # fmt: skip
  parser.add_argument("--workdir", required=True, metavar="FOLDER", help="the run's folder, a new one")
  parser.add_argument(
    "--config.KEY", dest="_", metavar="VALUE", help="another value for a key, written --config.KEY=VALUE"
  )
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
  """Makes the folder and says what to do with it."""
  from hierjax.training.initial.wrapped import WrapSettings, wrap

  classes = _lines(args.classes) if args.classes else ()
  settings = WrapSettings(args.tree, classes, args.backbone, args.overrides)
  for line in wrap(args.weights, args.workdir, settings):
    print(line)
  print(f"wrote {args.workdir}; next: hierjax predict {quoted(args.workdir)} PHOTOS --threshold 0.5")
  return 0


def _lines(file: str) -> tuple[str, ...]:
  """Returns the lines of a file of names that are not blank."""
  try:
    text = Path(file).read_text(encoding="utf-8")
  except UnicodeDecodeError:
    raise UserError(f"--classes {file}: is no text in UTF-8") from None
  return tuple(line.strip() for line in text.splitlines() if line.strip())
