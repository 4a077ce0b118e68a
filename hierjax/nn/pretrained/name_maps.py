"""Names of networks' weights in torchvision, timm and CBAM's code, and in hierjax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierjax.nn.pretrained.convnext_names import CONVNEXT_NETWORKS, CONVNEXT_TIMM
from hierjax.nn.pretrained.efficientnet_names import efficientnet_lite
from hierjax.nn.pretrained.network import Layer as Layer
from hierjax.nn.pretrained.network import Network as Network
from hierjax.nn.pretrained.vit_names import VIT_NETWORKS, VIT_TIMM

_WEIGHTS = {"weight": "kernel", "bias": "bias"}

# The names of a layer's arrays, by its kind. `maps` is a `dense` layer that reads a map of 7 x 7 cells.
LEAVES: Mapping[str, Mapping[str, str]] = {
  "conv": _WEIGHTS,
  "dense": _WEIGHTS,
  "maps": _WEIGHTS,
  "norm": {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
  "in_proj": {"in_proj_weight": "kernel", "in_proj_bias": "bias"},
  "scale": {"gamma": "gamma", "layer_scale": "gamma"},
  "timm_tokens": {
    "cls_token": "class_token",
    "class_token": "class_token",
    "reg_token": "registers",
    "pos_embed": "positions",
    "latent": "latent",
  },
  "clip_tokens": {"class_embedding": "class_token", "positional_embedding": "positions"},
  "torchvision_tokens": {"pos_embedding": "positions"},
}

# Arrays of one or two axes here, which others write with more.
VECTORS = ("class_token", "gamma", "latent")
ROWS = ("positions", "registers")

PREFIX = r"(?:module\.)?"  # of PyTorch's DataParallel
COUNTER = "num_batches_tracked"  # of batch norm; no weight

# Networks with similar names but other arithmetic: a regex of a name, and the networks that have it.
OTHERS = (
  (r"layer0\.", "Cadene's networks and timm's legacy_*, in which the 1x1 convolutions have the stride"),
  (r"conv1\.\d\.", "timm's networks with a deep stem, such as resnet50d and resnet50c"),
)


def _resnet(*attention: tuple[str, str, str]) -> tuple[Layer, ...]:
  layers = [Layer("conv1", "stem/conv", "conv"), Layer("bn1", "stem/norm", "norm"), Layer("fc", "classifier", "dense")]
  in_block = (
    (r"conv([123])", r"conv\2", "conv"),
    (r"bn([123])", r"norm\2", "norm"),
    (r"downsample\.0", "shortcut", "conv"),
    (r"downsample\.1", "shortcut_norm", "norm"),
    *attention,
  )
  for i in range(4):
    for original, ours, kind in in_block:
      layers.append(Layer(rf"layer{i + 1}\.(\d+)\.{original}", rf"stages_{i}/blocks_\1/{ours}", kind))
  return tuple(layers)


def _efficientnet_lite(size: int, **settings: bool) -> Network:
  return Network(f"efficientnet_lite{size}", settings, tuple(Layer(*row) for row in efficientnet_lite(size)))


_SE = ((r"se(?:_module)?\.fc([12])", r"attention/fc\2", "dense"),)
_CBAM = (
  (r"cbam\.ChannelGate\.mlp\.1", "attention/fc1", "dense"),
  (r"cbam\.ChannelGate\.mlp\.3", "attention/fc2", "dense"),
  (r"cbam\.SpatialGate\.spatial\.conv", "attention/conv", "conv"),
  (r"cbam\.SpatialGate\.spatial\.bn", "attention/norm", "norm"),
)

_TOP = (
  Layer(r"classifier\.0|pre_logits\.fc1", "top/fc6", "maps"),
  Layer(r"classifier\.3|pre_logits\.fc2", "top/fc7", "dense"),
  Layer(r"classifier\.6|head\.fc", "classifier", "dense"),
)


def _vgg(convolutions: tuple[tuple[int, ...], ...], batch_norm: bool) -> tuple[Layer, ...]:
  """Returns the layers, of which the convolutions of each stage are `features.N` with these N."""
  layers = []
  for i, numbers in enumerate(convolutions):
    for j, number in enumerate(numbers, start=1):
      layers.append(Layer(rf"features\.{number}", f"stages_{i}/conv{j}", "conv"))
      if batch_norm:
        layers.append(Layer(rf"features\.{number + 1}", f"stages_{i}/norm{j}", "norm"))
  return (*layers, *_TOP)


_VGG16 = _vgg(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), batch_norm=False)
_VGG16_BN = _vgg(((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40)), batch_norm=True)

NETWORKS: Mapping[str, Network] = {
  "cbam_resnet50": Network("cbam_resnet50", {}, _resnet(*_CBAM)),
  **{f"efficientnet_lite{i}": _efficientnet_lite(i) for i in range(5)},
  "efficientnet_lite0_symmetric": _efficientnet_lite(0, symmetric=True),  # timm's own; the others are TensorFlow's
  "resnet152": Network("resnet152", {}, _resnet()),
  "resnet50": Network("resnet50", {}, _resnet()),
  "se_resnet50": Network("se_resnet50", {}, _resnet(*_SE)),
  "se_resnext50": Network("se_resnext50", {}, _resnet(*_SE)),
  "vgg16": Network("vgg16", {"top": (4096, 4096)}, _VGG16),
  "vgg16_bn": Network("vgg16", {"batch_norm": True, "top": (4096, 4096)}, _VGG16_BN),
  **CONVNEXT_NETWORKS,
  **VIT_NETWORKS,
}

# timm's names, without the tag after the dot: a key of NETWORKS, and the settings that differ from it.
TIMM: Mapping[str, tuple[str, Mapping[str, Any]]] = {
  **{f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}", {}) for i in range(5)},
  "efficientnet_lite0": ("efficientnet_lite0_symmetric", {}),
  "resnet152": ("resnet152", {}),
  "resnet50": ("resnet50", {}),
  "seresnet50": ("se_resnet50", {}),
  "seresnext50_32x4d": ("se_resnext50", {}),
  "vgg16": ("vgg16", {}),
  "vgg16_bn": ("vgg16_bn", {}),
  **CONVNEXT_TIMM,
  **VIT_TIMM,
}
