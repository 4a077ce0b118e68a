"""Compares torchvision's and timm's own networks with their weights in hierjax, at 224 pixels.

  python tests/pretrained/compare_originals.py [WORD ...]

Needs PyTorch, torchvision and timm beside hierjax; with words, only the networks whose line has one of them. Weights
and batch statistics are drawn by their names, so nothing is downloaded. Each network's state dict goes through
`hierjax weights import`; printed is the largest difference of the logits as a share of the largest logit.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import timm
import torch
import torchvision
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.torch import save_file

from hierjax.cli.main import main
from hierjax.nn.pretrained.files import read_weights
from hierjax.nn.pretrained.name_maps import NETWORKS
from hierjax.nn.registry import BACKBONES
from state_dicts import drawn, images

# What each library calls a network, and what hierjax does.
ORIGINALS = (
  ("torchvision", "vgg16", "vgg16"),
  ("torchvision", "vgg16_bn", "vgg16_bn"),
  ("torchvision", "resnet50", "resnet50"),
  ("torchvision", "resnet152", "resnet152"),
  ("timm", "vgg16", "vgg16"),
  ("timm", "vgg16_bn", "vgg16_bn"),
  ("timm", "resnet50", "resnet50"),
  ("timm", "resnet152", "resnet152"),
  ("timm", "seresnet50", "se_resnet50"),
)
BOUND = 1e-4


def original(library, name):
  """Returns the network with weights that are drawn by their names."""
  makers = {"torchvision": torchvision.models.get_model, "timm": timm.create_model}
  model = makers[library](name, **{"torchvision": {"weights": None}, "timm": {"pretrained": False}}[library]).eval()
  weights = {
    key: torch.from_numpy(np.array(drawn(key, tuple(value.shape)))) for key, value in model.state_dict().items()
  }
  model.load_state_dict(weights)
  return model


def imported(model, network, folder):
  """Returns the logits of the network in hierjax, after `hierjax weights import`."""
  file, out = Path(folder) / "original.safetensors", Path(folder) / "ours.safetensors"
  save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
  with contextlib.redirect_stdout(io.StringIO()):
    status = main(["weights", "import", str(file), "--backbone", network, "--out", str(out)])
  if status:
    raise SystemExit(status)
  weights = read_weights(out)
  backbone = BACKBONES[NETWORKS[network].backbone](**NETWORKS[network].settings)
  shapes = flatten_dict(jax.eval_shape(backbone.init, jax.random.key(0), images(224)))
  variables = unflatten_dict({path: weights["/".join(("backbone", *path[1:]))] for path in shapes})
  pooled = jax.jit(backbone.apply)(variables, images(224)).pooled
  return np.asarray(pooled) @ weights["classifier/kernel"] + weights["classifier/bias"]


def compare(library, name, network):
  """Prints a line, and returns whether the logits agree."""
  model = original(library, name)
  with torch.no_grad():
    theirs = model(torch.from_numpy(images(224)).permute(0, 3, 1, 2)).numpy()
  with tempfile.TemporaryDirectory() as folder:
    ours = imported(model, network, folder)
  largest = np.abs(theirs).max()
  error, spread = np.abs(ours - theirs).max() / largest, np.abs(theirs[0] - theirs[1]).max() / largest
  print(f"| {library} | `{name}` | `{network}` | {error:.1e} | {spread:.2f} |", flush=True)
  return error <= BOUND


if __name__ == "__main__":
  print(
    f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, jax {jax.__version__}"
  )
  print("| library | its name | ours | error / largest logit | what the two images differ by / largest logit |")
  print("|---|---|---|---|---|")
  words = sys.argv[1:]
  chosen = [row for row in ORIGINALS if not words or any(word in " ".join(row) for word in words)]
  sys.exit(not all([compare(*row) for row in chosen]))
