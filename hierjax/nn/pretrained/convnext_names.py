"""Names of ConvNeXt's weights in torchvision, timm and its authors' code, and timm's names of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierjax.nn.pretrained.network import Layer, Network
from hierjax.nn.pretrained.vit_names import TEXT, TRUNK

# Within a block: timm, torchvision, the authors.
_BLOCK = (
  (r"(?:conv_dw|block\.0|dwconv)", "conv", "conv"),
  (r"(?:norm|block\.2)", "norm", "norm"),
  (r"(?:mlp\.fc1|block\.3|pwconv1)", "fc1", "dense"),
  (r"(?:mlp\.fc2|block\.5|pwconv2)", "fc2", "dense"),
)


def _layers() -> tuple[Layer, ...]:
  layers = [
    Layer(rf"{TRUNK}stem\.0|features\.0\.0|downsample_layers\.0\.0", "stem/conv", "conv"),
    Layer(rf"{TRUNK}stem\.1|features\.0\.1|downsample_layers\.0\.1", "stem/norm", "norm"),
    Layer(rf"{TRUNK}head\.norm|classifier\.0|norm", "top/norm", "norm"),
    Layer(rf"{TRUNK}head\.fc|classifier\.2|head", "classifier", "dense"),
  ]
  for i in range(4):
    for number, part, kind in ((0, "norm", "norm"), (1, "conv", "conv")) if i else ():
      names = rf"{TRUNK}stages\.{i}\.downsample\.{number}|features\.{2 * i}\.{number}|downsample_layers\.{i}\.{number}"
      layers.append(Layer(names, f"stages_{i}/downsample/{part}", kind))
    block = rf"(?:{TRUNK}stages\.{i}\.(?:blocks\.)?|features\.{2 * i + 1}\.)(\d+)"
    layers.append(Layer(block, rf"stages_{i}/blocks_\1/scale", "scale"))
    for original, ours, kind in _BLOCK:
      layers.append(Layer(rf"{block}\.{original}", rf"stages_{i}/blocks_\1/{ours}", kind))
  return tuple(layers)


_NAMES = ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")

CONVNEXT_NETWORKS: Mapping[str, Network] = {name: Network(name, {}, _layers(), TEXT) for name in _NAMES}

# timm's name without the tag: ours, and the settings that differ.
CONVNEXT_TIMM: Mapping[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in _NAMES}
