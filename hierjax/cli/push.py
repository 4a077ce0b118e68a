"""`hierjax push`: a run to the Hugging Face Hub."""

from __future__ import annotations

import argparse

from hierjax.cli.common import add_workdir

HELP = "Publish a run on the Hugging Face Hub, or in a folder: what predict needs, and a model card."
EXAMPLES = """
hierjax push runs/mine hf:me/mushrooms
hierjax push runs/mine hf:me/mushrooms --private
hierjax push runs/mine runs/published
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  add_workdir(parser)
  parser.add_argument("to", metavar="TO", help="hf:OWNER/NAME of the Hub, or a new folder, to look at it first")
  parser.add_argument("--private", action="store_true", help="make the repository of the Hub private where it is new")
  parser.set_defaults(refuse=parser.error)


def run(args: argparse.Namespace) -> int:
  """Publishes the run and prints how others load it."""
  import tempfile
  from pathlib import Path

  from hierjax.evaluation.model_card import model_card
  from hierjax.nn.pretrained import hub
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder
  from hierjax.runs.published import publish

  devices.prepare()
  folder, to_hub = RunFolder(args.workdir), args.to.startswith(hub.PREFIX)
  if to_hub:
    hub.check_name(args.to)
  elif args.private:
    args.refuse("--private is for hf:OWNER/NAME")
  with tempfile.TemporaryDirectory() as temporary:
    out = Path(temporary, "run") if to_hub else Path(args.to)
    step = publish(folder, out, devices.data_mesh(), model_card(folder, args.to if to_hub else ""))
    print(f"{folder.path}: the weights of step {step}, with {', '.join(sorted(p.name for p in out.iterdir()))}")
    if to_hub:
      print(hub.upload(out, args.to, args.private))
  print(f"next: hierjax predict {args.to} IMAGES...")
  return 0
