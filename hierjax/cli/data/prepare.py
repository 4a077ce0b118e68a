"""`hierjax data prepare`: a set of TensorFlow Datasets in a form that hierjax reads without TensorFlow."""

from __future__ import annotations

import argparse

HELP = "Download and prepare a set of TensorFlow Datasets; only this needs TensorFlow."
EXAMPLES = """
pip install "hierjax[prepare]" && hierjax data prepare cifar100
hierjax data prepare imagenet2012 --data-dir /data/tfds
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument("name", metavar="NAME", help="the set: cifar100, imagenet2012, places365_small, sun397/tfds, ...")
  parser.add_argument("--data-dir", metavar="FOLDER", help="where to (default: TFDS_DATA_DIR, or TFDS's own default)")


def run(args: argparse.Namespace) -> int:
  """Downloads and prepares the set."""
  from hierjax.extras import require

  require("prepare")
  import tensorflow_datasets as tfds

  tfds.builder(args.name, data_dir=args.data_dir, file_format="array_record").download_and_prepare()
  return 0
