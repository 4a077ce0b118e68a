"""Compares torchvision's, timm's and open_clip's own networks with their weights in hierjax, at 224 pixels or more.

  python tests/nn/pretrained/compare_originals.py [WORD ...]

Needs PyTorch, torchvision, timm and open_clip beside hierjax; with words, only the networks whose line has one of them.
Weights and batch statistics are drawn by their names, so nothing is downloaded. Each network's state dict goes through
`restore`, as in `hierjax weights import`; printed is the largest difference of the logits, or without a classifier of
the features, as a share of the largest.
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import open_clip
import timm
import torch
import torchvision
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.torch import save_file

from hierjax.nn.pretrained.name_maps import NETWORKS, TIMM
from hierjax.nn.pretrained.restore import restore
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
  ("timm", "seresnext50_32x4d", "se_resnext50"),
  *(("torchvision", f"convnext_{size}", f"convnext_{size}") for size in ("tiny", "small", "base", "large")),
  ("torchvision", "vit_b_16", "vit_base_patch16"),
  ("torchvision", "vit_l_16", "vit_large_patch16"),
  *(("timm", name, network) for name, (network, _) in TIMM.items() if name.startswith(("convnext", "vit", "deit"))),
  ("open_clip", "ViT-B-16", "bioclip"),
  ("open_clip", "ViT-B-16-quickgelu", "openai_clip_base_patch16"),
  ("open_clip", "ViT-L-14", "vit_large_patch14_clip"),
  ("open_clip", "ViT-L-14-quickgelu", "openai_clip_large_patch14"),
)
BOUND = 1e-4


def original(library, name):
  """Returns the network with weights that are drawn by their names."""
  makers = {
    "torchvision": lambda: torchvision.models.get_model(name, weights=None),
    "timm": lambda: timm.create_model(name),
    "open_clip": lambda: open_clip.create_model(name),
  }
  model = makers[library]().eval()
  weights = {
    key: torch.from_numpy(np.array(drawn(key, tuple(value.shape)))) for key, value in model.state_dict().items()
  }
  model.load_state_dict(weights)
  return model


def settings_of(library, name, network):
  """Returns the settings of a row's backbone that differ from the network's."""
  ours, settings = TIMM.get(name, ("", {})) if library == "timm" else ("", {})
  return settings if ours == network else {}


def imported(model, row, size, folder):
  """Returns the features of the network in hierjax, and its logits where it has a classifier."""
  file, network = Path(folder) / "original.safetensors", NETWORKS[row[2]]
  save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
  backbone = BACKBONES[network.backbone](**{**network.settings, **settings_of(*row)})
  weights = restore(file, network, backbone)
  shapes = flatten_dict(jax.eval_shape(backbone.init, jax.random.key(0), images(size)))
  variables = unflatten_dict({path: weights["/".join(("backbone", *path[1:]))] for path in shapes})
  pooled = np.asarray(jax.jit(backbone.apply)(variables, images(size)).pooled)
  if "classifier/kernel" not in weights:
    return pooled
  return pooled @ weights["classifier/kernel"] + weights["classifier/bias"]


def theirs_of(model, size):
  """Returns what the network itself makes of the images: logits, or features where it has no classifier."""
  inputs = torch.from_numpy(images(size)).permute(0, 3, 1, 2)
  with torch.no_grad():
    if isinstance(model, open_clip.CLIP):
      model.visual.proj = None
      return model.visual(inputs).numpy()
    return model(inputs).numpy()


def compare(library, name, network):
  """Prints a line, and returns whether the outputs agree."""
  model = original(library, name)
  size = model.default_cfg["input_size"][1] if library == "timm" else 224
  with tempfile.TemporaryDirectory() as folder:
    ours = imported(model, (library, name, network), size, folder)
  theirs = theirs_of(model, size)
  largest = np.abs(theirs).max()
  error, spread = np.abs(ours - theirs).max() / largest, np.abs(theirs[0] - theirs[1]).max() / largest
  print(f"| {library} | `{name}` | `{network}` | {error:.1e} | {spread:.2f} |", flush=True)
  return error <= BOUND


if __name__ == "__main__":
  print(
    f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, jax {jax.__version__}"
  )
  print("| library | its name | ours | error / largest output | what the two images differ by / largest output |")
  print("|---|---|---|---|---|")
  words = sys.argv[1:]
  chosen = [row for row in ORIGINALS if not words or any(word in " ".join(row) for word in words)]
  sys.exit(not all([compare(*row) for row in chosen]))
