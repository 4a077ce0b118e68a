"""`hierjax train`: a run of a config."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hierjax.cli.common import add_devices
from hierjax.errors import UserError

HELP = "Train the model of a config, or continue the run in its folder."
EXAMPLES = """
hierjax train quickstart
hierjax train quickstart:flat --workdir=runs/flat
hierjax train my_config.py --config.batch_size=64 --config.optim.lr=0.05
hierjax train --extend runs/quickstart --config.epochs=5
python train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_config(parser)
  about = "go on from a run's best weights, with its config: more epochs, images or labels; in a run of its own"
  parser.add_argument("--extend", default="", metavar="RUN", help=about)
  parser.add_argument(
    "--workdir", default="", metavar="FOLDER", help="the run's folder (default: runs/CONFIG-VARIANT, or RUN-extended)"
  )
  parser.add_argument(
    "--multihost", default="", metavar="HOSTS", help="auto, or ADDRESS,N,I: join a run of several processes"
  )
  add_devices(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
  """Adds the config, by position or as `--config`, and its overrides."""
  about = "a name that `hierjax config list` shows, or a file; with variants, CONFIG:WORD,WORD"
  parser.add_argument("config_name", metavar="CONFIG", nargs="?", default="", help=about)
  parser.add_argument("--config", default="", metavar="CONFIG", help="the same, as an option")
  parser.add_argument(
    "--config.KEY", dest="_", metavar="VALUE", help="another value for a key, written --config.KEY=VALUE"
  )
  parser.set_defaults(overrides=[], refuse=parser.error)


def config_of(args: argparse.Namespace) -> str:
  """Returns the one config that the command line names."""
  named = [name for name in (args.config_name, args.config) if name]
  if len(named) != 1:
    args.refuse(
      f"two configs: {' and '.join(named)} (a key's value is written --config.KEY=VALUE)"
      if named
      else "name a config, `hierjax config list` shows which there are: hierjax train quickstart"
    )
  return named[0]


def default_workdir(name: str) -> str:
  """Returns runs/CONFIG-VARIANT."""
  file, _, variant = name.partition(":")
  return "-".join([f"runs/{Path(file).stem}", *(word for word in variant.split(",") if word)])


def _config_and_workdir(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
  """Returns the config that the command line describes, and the folder that a run of it has by default."""
  from hierjax.config_files import extending, load_config

  if not args.extend:
    name = config_of(args)
    return load_config(name, args.overrides), default_workdir(name)
  if args.config_name or args.config:
    args.refuse("--extend takes the config of its run: change single keys of it, --config.KEY=VALUE")
  return extending(args.extend, args.overrides), f"{args.extend.rstrip('/')}-extended"


def _images_a_step(config: Mapping[str, Any]) -> int:
  """Returns the images that devices share at a time."""
  from hierjax.config import unpack
  from hierjax.runs.run import RunConfig
  from hierjax.training.optim import OptimConfig

  settings = unpack(RunConfig, config, "")
  return settings.batch_size // unpack(OptimConfig, settings.optim, "optim").accumulate


def run(args: argparse.Namespace) -> int:
  """Trains; returns 128 and the signal's number where a signal stopped the run."""
  from absl import logging

  from hierjax.runs import devices, peers
  from hierjax.runs.folder import RunFolder
  from hierjax.training.loop.run import train_and_evaluate
  from hierjax.training.loop.steps import Stopped

  logging.set_verbosity(logging.WARNING)
  config, workdir = _config_and_workdir(args)
  workdir = args.workdir or workdir
  folder = RunFolder(workdir)
  try:
    if args.multihost:
      peers.end_where_jax_aborts(folder)
    devices.join(args.multihost)
    devices.prepare(_images_a_step(config), args.devices)
    train_and_evaluate(config, workdir)
  except Stopped as stopped:
    print(stopped)
    return 128 + stopped.signal
  except Exception as error:
    if args.multihost and peers.is_lost(error):
      line = str(error).strip().splitlines()[0][:200]
      peers.end(folder, f"another process of the run seems to have ended ({line})")
    if args.multihost:  # one of several processes must end at once
      devices.fail(f"error: {error}" if isinstance(error, UserError | OSError) else traceback.format_exc())
    raise
  return 0
