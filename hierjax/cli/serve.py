"""`hierjax serve`: predictions over HTTP."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from hierjax import extras
from hierjax.cli.common import add_decoding, add_workdir, at_least_1, purpose_of
from hierjax.cli.named import run_folder
from hierjax.errors import UserError

if TYPE_CHECKING:
  from hierjax.serve.models import ServedModel

HELP = "Serve a model's predictions over HTTP, with a page for photographs."
EXAMPLES = """
hierjax serve runs/quickstart
hierjax serve lite0
hierjax serve runs/exported --port 9000
hierjax serve runs/quickstart --host 0.0.0.0 --threshold 0.8 --most-images 16 --seconds 10
"""
_LIMITS = (
  ("bytes", "N", "bytes of a request (default 33,554,432)"),
  ("images", "N", "images of a request (default 64)"),
  ("pixels", "N", "pixels of an image (default 50,000,000)"),
  ("waiting", "N", "images of all requests that may wait (default 256)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser, "a run's folder, or one of `hierjax export`; or a name, such as lite0 or hf:OWNER/NAME")
  parser.add_argument(
    "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)"
  )
  parser.add_argument("--port", type=int, default=8000, help="port (default 8000; 0: any that is free)")
  parser.add_argument(
    "--batch", type=at_least_1, default=0, metavar="B", help="images of the largest batch (default: 8 on CPUs, or 64)"
  )
  for name, metavar, about in _LIMITS:
    parser.add_argument(f"--most-{name}", type=at_least_1, metavar=metavar, help=about)
  parser.add_argument(
    "--seconds", type=float, metavar="S", help="for a request to arrive, and again for its answer (default 30)"
  )
  add_decoding(parser)


def run(args: argparse.Namespace) -> int:
  """Serves until SIGTERM or Ctrl-C; returns 0 after the answers to what has been asked."""
  extras.require("serve")
  from hierjax.serve.limits import Limits
  from hierjax.serve.server import Server

  given = {name: getattr(args, f"most_{name}") for name, _, _ in _LIMITS} | {"seconds": args.seconds}
  limits = Limits(**{name: value for name, value in given.items() if value is not None})
  server = Server(_opened(args), limits, lambda address: print(f"ready: {address}", flush=True))
  with server.listen(args.host, args.port) as listening:
    print(f"compiling the model for {server.address}; Ctrl-C ends the server", flush=True)
    server.run([listening])
  if server.failure:
    raise UserError(f"the model could not be compiled: {server.failure}")
  return 0


def _opened(args: argparse.Namespace) -> ServedModel:
  from hierjax.inference.exported import is_export
  from hierjax.runs import devices
  from hierjax.serve.models import open_exported, open_run

  devices.prepare()
  if is_export(args.workdir):
    if args.top != 1 or any((args.batch, args.alpha, args.threshold, args.minimise, args.level, args.rank, args.only)):
      raise UserError(f"{args.workdir} is an export, whose settings are fixed: give them to `hierjax export`")
    return open_exported(args.workdir)
  from hierjax.inference.trained_model import AnswerSettings

  name, folder = args.workdir, run_folder(args)
  model = open_run(folder, AnswerSettings(args.top, args.alpha, args.threshold, purpose_of(args)), args.batch)
  return model if folder == Path(name) else dataclasses.replace(model, name=name)
