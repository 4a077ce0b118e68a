"""Prepares a set of TensorFlow Datasets, so that hierjax can read it. This, and only this, needs TensorFlow.

python -m pip install -r requirements-prepare.txt
python -m hierjax.data.prepare cifar100
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

import tensorflow_datasets as tfds


def main() -> None:
  """Downloads and prepares the set that the command line names."""
  parser = argparse.ArgumentParser(prog="python -m hierjax.data.prepare", description="Prepares a TFDS image set.")
  parser.add_argument("name", help="the set: cifar100, imagenet2012, places365_small, sun397/tfds, ...")
  parser.add_argument("--data-dir", help="where to; by default what TFDS_DATA_DIR says, or TFDS's own default")
  args = parser.parse_args()
  if importlib.util.find_spec("tensorflow") is None:
    sys.exit("Preparing a set needs TensorFlow: python -m pip install -r requirements-prepare.txt")
  tfds.builder(args.name, data_dir=args.data_dir, file_format="array_record").download_and_prepare()


if __name__ == "__main__":
  main()
