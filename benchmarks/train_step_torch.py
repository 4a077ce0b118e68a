"""The networks of `train_step.py`, and their train step, in PyTorch.

Only benchmarks need PyTorch. Where it is missing, the module can be imported and `torch` is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
  import torch
  from torch import nn
  from torch.nn import functional
except ImportError:  # the benchmark prints the other columns
  torch = None  # type: ignore[assignment]

SIDES = ("torch_eager", "torch_eager_nhwc", "torch_compiled", "torch_compiled_nhwc")


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> Any:
  return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


def norm_act(width: int) -> Any:
  return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def block(inputs: int, width: int, stride: int) -> Any:
  """Returns a pre-activation block whose shortcut, where the shape changes, is a convolution of the activated input."""

  class Block(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.act = norm_act(inputs)
      self.shortcut = conv(inputs, width, 1, stride) if inputs != width or stride != 1 else None
      self.rest = nn.Sequential(conv(inputs, width, 3, stride), norm_act(width), conv(width, width, 3))

    def forward(self, x: Any) -> Any:
      y = self.act(x)
      return self.rest(y) + (x if self.shortcut is None else self.shortcut(y))

  return Block()


def small_resnet(widths: tuple[int, ...], stem_stride: int) -> Any:
  inputs = (widths[0], *widths)
  blocks = [block(inputs[i], width, 1 if i == 0 else 2) for i, width in enumerate(widths)]
  return nn.Sequential(conv(3, widths[0], 3, stem_stride), *blocks, norm_act(widths[-1]))


def cnn7(width: int) -> Any:
  def group(inputs: int, kernels: tuple[int, ...], *pool: Any) -> list[Any]:
    channels = (inputs, *(width for _ in kernels))
    convs = [(conv(channels[i], width, kernel, bias=True), nn.ReLU()) for i, kernel in enumerate(kernels)]
    return [layer for pair in convs for layer in pair] + [*pool]

  return nn.Sequential(
    *group(3, (3, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5)),
    *group(width, (3, 3), nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False), nn.Dropout(0.5)),
    *group(width, (3, 3, 1)),
  )


def path_lstm(rows: int, channels: int, width: int) -> Any:
  """Returns a module from label rows `i64[b l]` and images `f32[b d]` to an LSTM's states, as in `PathRNNHead`.

  Its projections of labels and images are made for all steps at once.
  """

  class PathLSTM(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.embed = nn.Embedding(rows, width)
      self.label, self.hidden = (nn.Linear(width, 4 * width, bias=False) for _ in range(2))
      self.image = nn.Linear(channels, 4 * width)

    def forward(self, previous: Any, images: Any) -> Any:
      gates = self.label(self.embed(previous)) + self.image(images)[:, None]
      states: list[Any] = []
      c: Any = 0.0
      for t, pre in enumerate(gates.unbind(1)):
        i, f, o, m = (pre + self.hidden(states[-1]) if t else pre).chunk(4, 1)
        c = torch.sigmoid(i) * torch.tanh(m) + (torch.sigmoid(f) * c if t else 0.0)
        states.append(torch.sigmoid(o) * torch.tanh(c))
      return torch.stack(states, 1)

  return PathLSTM()


def classifier(trunk: Any, channels: int, dropout: float, nodes: int, width: int) -> Any:
  """Returns the trunk with a CNN-RNN head, as a module from images `f32[b c h w]` and paths `i64[b l]` to the loss."""

  class Classifier(nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.trunk, self.drop = trunk, nn.Dropout(dropout)
      self.lstm, self.output = path_lstm(nodes + 1, channels, width), nn.Linear(width, nodes)

    def forward(self, images: Any, paths: Any) -> Any:
      pooled = self.drop(self.trunk(images).mean((2, 3)))
      logits = self.output(self.lstm(functional.pad(paths[:, :-1] + 1, (1, 0)), pooled))
      return functional.cross_entropy(logits.flatten(0, 1), paths.flatten(), reduction="sum") / len(images)

  return Classifier()


def networks(nodes: int) -> dict[str, Callable[[], Any]]:
  return {
    "small_resnet": lambda: classifier(small_resnet((32, 64, 256), 2), 256, 0.0, nodes, 256),
    "cnn7": lambda: classifier(cnn7(192), 192, 0.5, nodes, 256),
  }


def train_step(network: Any, images: np.ndarray, paths: np.ndarray, name: str) -> Callable[[], Any]:
  """Returns a call that takes the next step of SGD with momentum, which returns when the computation has ended.

  Args:
    network: gives the loss of normalised images and label paths.
    images: u8[b h w c].
    paths: the nodes, i32[b l].
    name: of SIDES.
  """
  layout = torch.channels_last if name.endswith("nhwc") else torch.contiguous_format
  network = network.to(memory_format=layout).train()
  weights = [p for p in network.parameters() if p.ndim > 1]
  others = [p for p in network.parameters() if p.ndim <= 1]
  groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others}]
  optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, fused=True)
  loss_of = torch.compile(network, dynamic=False) if "compiled" in name else network
  pixels, nodes = torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(paths).long()

  def call() -> float:
    inputs = ((pixels.float() - 118) / 57).contiguous(memory_format=layout)
    loss = loss_of(inputs, nodes)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()

  return call
