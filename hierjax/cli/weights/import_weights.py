"""`hierjax weights import`: another library's weights for a backbone."""

from __future__ import annotations

import argparse

from hierjax.errors import UserError, did_you_mean

HELP = "Convert another library's weights to those of a backbone."
EXAMPLES = """
hierjax weights import resnet50.pth --backbone resnet50
hierjax weights import vgg16.npz --backbone vgg16 --out vgg16-hierjax.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the arguments."""
  parser.add_argument(
    "file", metavar="FILE", help="weights of torchvision, timm or open_clip: .safetensors, .npz, .pth, .pt or .bin"
  )
  parser.add_argument("--backbone", required=True, metavar="NAME", help="the network that the weights are of")
  parser.add_argument(
    "--out", default="", metavar="OUT", help="a .safetensors or .npz file (default: FILE's name, .hierjax.safetensors)"
  )


def run(args: argparse.Namespace) -> int:
  """Converts the weights and prints the lines that go into a config."""
  from pathlib import Path

  from hierjax.nn.pretrained.files import FORMATS, read_weights, shown, split_key, to_bytes
  from hierjax.nn.pretrained.name_maps import NETWORKS
  from hierjax.nn.pretrained.restore import converted, imported_summary, left_out
  from hierjax.nn.registry import BACKBONES
  from hierjax.runs.folder import write_whole

  if args.backbone not in NETWORKS:
    hint = did_you_mean(args.backbone, NETWORKS)
    raise UserError(f"--backbone {args.backbone}: choose from {', '.join(NETWORKS)}{hint}")
  network, file = NETWORKS[args.backbone], split_key(args.file)[0]
  out = Path(args.out) if args.out else file.with_name(f"{file.stem}.hierjax.safetensors")
  if out.suffix not in FORMATS or out.resolve() == file.resolve():
    raise UserError(f"--out {out}: must be another file than {file}, and end with {' or '.join(FORMATS)}")
  arrays = read_weights(args.file)
  weights = converted(file, arrays, network, BACKBONES[network.backbone](**network.settings))
  write_whole(out, to_bytes(weights, out))
  if others := left_out(arrays, network):
    print(f"left out {len(others)} arrays of other parts than the image network, such as {shown(others[0])}")
  print(imported_summary(weights, network, out))
  return 0
